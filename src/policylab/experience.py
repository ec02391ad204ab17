"""What flows between the nouns: specifications, windows of experience, ratings, preferences, trials and tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from policylab import spaces
from policylab.errors import BadInput


class Statistics(eqx.Module):
    """Mean, standard deviation and range of one field, flattened as `spaces.flatten` does; from the data or running."""

    mean: Float[Array, " size"]
    std: Float[Array, " size"]
    low: Float[Array, " size"]
    high: Float[Array, " size"]


class Spec(eqx.Module):
    """What a policy sees and does. Spaces and names are static; the statistics are arrays.

    `horizon` is the longest episode in steps (0: unknown), `control_rate` the steps per second (0: unknown), `units` pairs a
    field with its unit, `reward_shape` is () for one objective or (n,) for a vector of them. `encoder` is how rows of a log
    become observations and actions, as JSON text ("" where they are numbers already); `Encoder.of(spec)` reads it.
    """

    observation: spaces.Space = eqx.field(static=True)
    action: spaces.Space = eqx.field(static=True)
    statistics: dict[str, Statistics] = eqx.field(default_factory=dict)
    reward_shape: tuple[int, ...] = eqx.field(static=True, default=())
    roles: tuple[str, ...] = eqx.field(static=True, default=())
    horizon: int = eqx.field(static=True, default=0)
    control_rate: float = eqx.field(static=True, default=0.0)
    units: tuple[tuple[str, str], ...] = eqx.field(static=True, default=())
    environment: str = eqx.field(static=True, default="")
    tokenizer: str = eqx.field(static=True, default="")
    encoder: str = eqx.field(static=True, default="")

    def require(self, other: Spec, *, ours: str = "the policy", theirs: str = "the environment") -> None:
        """Raise one clear sentence unless both specs have the same observation and action spaces (bounds may differ)."""
        for name in ("observation", "action"):
            mine, yours = spaces.describe(getattr(self, name)), spaces.describe(getattr(other, name))
            if mine != yours:
                raise BadInput(
                    f"{ours} has {name}s of {mine} but {theirs} has {yours}: use one that matches, or map the {name}"
                )

    def to_json(self) -> dict[str, Any]:
        """Everything but the arrays of `statistics`, of which only the field names are kept."""
        return {
            "observation": spaces.to_json(self.observation),
            "action": spaces.to_json(self.action),
            "statistics": {name: int(value.mean.shape[-1]) for name, value in self.statistics.items()},
            "reward_shape": list(self.reward_shape),
            "roles": list(self.roles),
            "horizon": self.horizon,
            "control_rate": self.control_rate,
            "units": [list(pair) for pair in self.units],
            "environment": self.environment,
            "tokenizer": self.tokenizer,
            "encoder": self.encoder,
        }

    @staticmethod
    def from_json(document: dict[str, Any]) -> Spec:
        """The spec that `to_json` described, its statistics neutral (mean 0, std 1) until the arrays are filled in."""
        neutral = {name: _neutral_statistics(size) for name, size in document["statistics"].items()}
        return Spec(
            spaces.from_json(document["observation"]),
            spaces.from_json(document["action"]),
            neutral,
            tuple(document["reward_shape"]),
            tuple(document["roles"]),
            document["horizon"],
            document["control_rate"],
            tuple((name, unit) for name, unit in document["units"]),
            document["environment"],
            document["tokenizer"],
            document.get("encoder", ""),
        )


def _neutral_statistics(size: int) -> Statistics:
    return Statistics(jnp.zeros(size), jnp.ones(size), jnp.full(size, -1.0), jnp.full(size, 1.0))


class Window(eqx.Module):
    """Consecutive steps of one episode. Leaves have a leading `time` axis; a batch of them one more axis before it.

    `Steps` requests deliver windows of one with the time axis left out, so that `batch.reward` has shape [batch].
    `next_observation` is what followed `duration` steps later: the observation before any reset, also after a time limit.
    `terminal` says that the decision process ended, `truncated` that the clock did. `valid` is False on padding.
    `extra` holds what `needs` asked for beyond that: `return_to_go`, `weight`, `propensity`, `log_prob`, `goal`, `row` ...
    """

    observation: PyTree[Array]
    action: PyTree[Array]
    reward: Float[Array, "*time"]
    next_observation: PyTree[Array]
    terminal: Bool[Array, "*time"]
    truncated: Bool[Array, "*time"]
    valid: Bool[Array, "*time"]
    duration: Int[Array, "*time"]
    memory: PyTree[Array] = None
    extra: dict[str, PyTree[Array]] = eqx.field(default_factory=dict)

    @property
    def continues(self) -> Float[Array, "*time"]:
        """1 where the process goes on after this step (a truncated step does), 0 where it is terminal."""
        return 1.0 - self.terminal.astype(jnp.float32)

    @property
    def weight(self) -> Float[Array, "*time"]:
        """The weight of each step in a loss: 0 on padding, else `extra["weight"]` where given, else 1."""
        valid = self.valid.astype(jnp.float32)
        return valid * self.extra["weight"] if "weight" in self.extra else valid


class Tokens(eqx.Module):
    """Text inside a program, right-padded to a bucket. `kind` is 0 for padding, 1 for given text, 2 for what the policy wrote."""

    ids: Int[Array, "*batch length"]
    kind: Int[Array, "*batch length"]


class Rated(eqx.Module):
    """Answers to prompts with a reward per part; a step's or an outcome's reward stands on its last part."""

    prompt: PyTree[Array]
    sample: PyTree[Array]
    reward: Float[Array, "*batch part"]
    ends: Bool[Array, "*batch part"]
    weight: Float[Array, "*batch"]
    rater: Int[Array, "*batch"]


class Preference(eqx.Module):
    """Two answers to one observation and the probability `p` that `a` is the better one. Never sorted by the label."""

    observation: PyTree[Array]
    a: PyTree[Array]
    b: PyTree[Array]
    p: Float[Array, "*batch"]
    weight: Float[Array, "*batch"]


@dataclass(frozen=True)
class Trials:
    """A table of evaluation trials, one row each, as equally long NumPy columns.

    `policy` names what was tried, `seed` the training seed it came from, `instance` the task instance or episode number (equal
    instances of two policies share their random numbers), `cluster` what is correlated (a user, a scenario), `outcome` the
    score in the task's units, `success` 1/0 or NaN where the task has no success, `length` the steps taken. Where the trial
    was a comparison, `preference` is the probability that this row's policy won (NaN elsewhere), `order` its place in it.
    """

    policy: np.ndarray
    seed: np.ndarray
    instance: np.ndarray
    outcome: np.ndarray
    success: np.ndarray
    length: np.ndarray
    cluster: np.ndarray
    scorer: np.ndarray
    order: np.ndarray
    preference: np.ndarray
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    @staticmethod
    def of(
        policy: str,
        outcome: np.ndarray,
        *,
        seeds: np.ndarray,
        success: np.ndarray | None = None,
        length: np.ndarray | None = None,
        scorer: str = "environment",
    ) -> Trials:
        """Trials of one policy from `outcome` of shape [seed, episode]."""
        rows, episodes = outcome.shape
        nothing = np.full(outcome.size, np.nan)
        instance = np.tile(np.arange(episodes), rows)
        return Trials(
            policy=np.full(outcome.size, policy, dtype=object),
            seed=np.repeat(np.asarray(seeds), episodes),
            instance=instance,
            outcome=np.asarray(outcome, np.float64).reshape(-1),
            success=nothing if success is None else np.asarray(success, np.float64).reshape(-1),
            length=nothing if length is None else np.asarray(length, np.float64).reshape(-1),
            cluster=instance,
            scorer=np.full(outcome.size, scorer, dtype=object),
            order=np.zeros(outcome.size, np.int64),
            preference=nothing,
        )

    def __len__(self) -> int:
        return len(self.outcome)

    def __add__(self, other: Trials) -> Trials:
        """Both tables, one below the other; extra columns must agree."""
        join = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in _TRIAL_COLUMNS}
        return Trials(**join, extra={k: np.concatenate([self.extra[k], other.extra[k]]) for k in self.extra})

    def where(self, mask: np.ndarray) -> Trials:
        """The rows that `mask` selects."""
        return Trials(
            **{name: getattr(self, name)[mask] for name in _TRIAL_COLUMNS}, extra={k: v[mask] for k, v in self.extra.items()}
        )

    def matrix(self, policy: str, column: str = "outcome") -> np.ndarray:
        """One policy's column as an array of shape [seed, instance]; raises `BadInput` if some cells are missing."""
        rows = self.where(self.policy == policy)
        seeds, instances = np.unique(rows.seed), np.unique(rows.instance)
        if len(rows) != len(seeds) * len(instances):
            raise BadInput(
                f"{policy} has {len(rows)} trials for {len(seeds)} seeds x {len(instances)} instances: run the missing ones"
            )
        order = np.lexsort((rows.instance, rows.seed))
        return getattr(rows, column)[order].reshape(len(seeds), len(instances))


_TRIAL_COLUMNS = ("policy", "seed", "instance", "outcome", "success", "length", "cluster", "scorer", "order", "preference")
