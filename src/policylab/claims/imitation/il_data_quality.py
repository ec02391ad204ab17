"""Data quality in imitation: consistent actions and the world's own noise, not the variety of states, make demonstrations good
(Belkhale, Cui and Sadigh 2023, arXiv 2306.02437)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab.claim import Claim, Equivalent, Greater, Relation
from policylab.data.recording import Recording
from policylab.environment import Episodes, unroll
from policylab.environments.pointmass import PointMass
from policylab.errors import BadInput
from policylab.evaluation import coverage
from policylab.evaluation.rows import rows_of
from policylab.experience import Spec, Statistics, Window
from policylab.learner import Clock, Request, Steps
from policylab.learners.imitation.bc import BC
from policylab.policies.deterministic import Deterministic
from policylab.policy import Policy
from policylab.source import Source
from policylab.training import train

HORIZON, TRIED, UPDATES, BATCH = 100, 100, 2_000, 64
SPEED, PUSH = 0.8, 5.0  # of the pilot in m/s, and the largest acceleration in m/s^2
TEST_NOISE = 0.2  # sigma_s while the clone is tried: of the velocity, in m/s per step
SIGMAS = (0.0, 0.05, 0.1, 0.2, 0.4)
FEW, SOME, MANY = 2, 10, 100


@dataclass(frozen=True)
class Condition:
    """How demonstrations are made: how many, under which noise of the world, with which noise on the executed and logged action
    (in the units of sigma_s), and whether the pilot passes the obstacle on a random side."""

    demonstrations: int
    sigma: float = 0.0
    action_noise: float = 0.0
    both_sides: bool = False


CONDITIONS: Mapping[str, Condition] = (
    {f"{sigma:g} of {count}": Condition(count, sigma) for count in (FEW, SOME, MANY) for sigma in SIGMAS}
    | {f"labelled {sigma:g} of {count}": Condition(count, 0.0, sigma) for count in (FEW, SOME, MANY) for sigma in (0.1, 0.2)}
    | {f"both sides {count}": Condition(count, 0.1, 0.0, True) for count in (FEW, SOME, MANY)}
)


def room(sigma: float) -> PointMass:
    """Left to right past a deadly obstacle in the middle."""
    return PointMass(
        start=(-0.9, -0.3, -0.7, 0.3),
        goal=(0.8, 0.0),
        radius=0.1,
        obstacle=(0.0, 0.0, 0.4),
        noise=sigma,
        deadly=True,
        order=2,
        gain=PUSH,
    )


class Pilot(Policy):
    """Steers to a speed of 0.8 m/s over (or, on a random side, also under) the obstacle and then to the goal; noise on its actions is logged."""

    noise: Array
    both_sides: Array

    def initial_memory(self, *, key: PRNGKeyArray) -> Float[Array, ""]:
        """The side: 1 over, -1 under."""
        return jnp.where(self.both_sides & jax.random.bernoulli(key), -1.0, 1.0)

    def act(self, observation: Float[Array, "4"], memory: PyTree, *, key: PRNGKeyArray) -> tuple[Float[Array, "2"], PyTree]:
        """A push that turns half of the difference to the wanted velocity within a step."""
        place, velocity = observation[:2], observation[2:]
        over = jnp.stack([jnp.asarray(-0.45), 0.55 * memory]), jnp.stack([jnp.asarray(0.15), 0.55 * memory])
        way = jnp.where(place[0] < -0.5, over[0], jnp.where(place[0] < 0.1, over[1], jnp.array([0.8, 0.0]))) - place
        wanted = SPEED * way / jnp.maximum(jnp.linalg.norm(way), 0.05)
        push = 0.5 * (wanted - velocity) / (0.05 * PUSH)
        # sigma_s changes the velocity by sigma m/s per step, an action by 0.05 s times PUSH per unit.
        return jnp.clip(push + self.noise / (0.05 * PUSH) * jax.random.normal(key, (2,)), -1.0, 1.0), memory


class Demonstrations(Source):
    """Successful demonstrations that every seed flies for itself, at its `init`; batches are uniform over the first `count` of them."""

    environment: PointMass
    pilot: Pilot
    count: Array
    batch_size: int = eqx.field(static=True, default=BATCH)

    @property
    def spec(self) -> Spec:
        """Of the room; inputs are normalised by the room's size, the same for all conditions."""
        half = Statistics(jnp.zeros(4), jnp.full(4, 0.5), -jnp.ones(4), jnp.ones(4))
        return replace(self.environment.spec, statistics={"observation": half})

    def serve(self, needs: Mapping[str, Request]) -> Demonstrations:
        """Steps only."""
        (request,) = needs.values()
        if not isinstance(request, Steps):
            raise BadInput("these demonstrations answer requests for steps only")
        return replace(self, batch_size=request.count)

    def init(self, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Episodes:
        """One and a half times as many as are ever needed, the successful ones first."""
        flown = unroll(self.pilot, self.environment, episodes=MANY + MANY // 2, horizon=HORIZON, key=key)
        return jax.tree.map(lambda leaf: leaf[jnp.argsort(-flown.success, stable=True)], flown)

    def next(self, state: Episodes, products: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray) -> tuple[Episodes, Window]:
        """A step is drawn by its episode and its place in it, so that every step is as likely."""
        used = state.lengths * (jnp.arange(len(state.lengths)) < self.count)
        place = jax.random.randint(key, (self.batch_size,), 0, jnp.sum(used))
        episode: Int[Array, " batch"] = jnp.searchsorted(jnp.cumsum(used), place, side="right")
        time = place - (jnp.cumsum(used) - used)[episode]
        flag = jnp.zeros(self.batch_size, bool)
        return state, Window(
            state.observation[episode, time], state.action[episode, time], state.reward[episode, time],
            state.observation[episode, time + 1], flag, flag, ~flag, jnp.ones(self.batch_size, jnp.int32),
        )  # fmt: skip


def source(condition: Condition) -> Demonstrations:
    """The demonstrations of one condition."""
    pilot = Pilot(jnp.asarray(condition.action_noise), jnp.asarray(condition.both_sides))
    return Demonstrations(room(condition.sigma), pilot, jnp.asarray(condition.demonstrations))


def qualities(condition: Condition, flown: Episodes) -> tuple[float, float]:
    """Action divergence and state entropy of the demonstrations of one seed, by the estimators of the dataset card."""
    lengths = np.asarray(flown.lengths)[: condition.demonstrations]
    first = lambda leaf, more: np.concatenate([np.asarray(leaf)[i, : n + more] for i, n in enumerate(lengths)])
    steps = int(lengths.sum())
    ends = np.zeros(steps, bool)
    ends[np.cumsum(lengths) - 1] = True
    recording = Recording(
        first(flown.observation, 1),
        first(flown.action, 0),
        first(flown.reward, 0),
        ends,
        np.zeros(steps, bool),
        lengths,
        room(0.0).spec,
    )
    rows = rows_of(recording, limit=steps, seed=0)
    divergence = coverage.action_divergence(rows, seed=0)
    return (0.0 if divergence is None else divergence), coverage.state_entropy(rows.state)


def measured(condition: Condition, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Percent of 100 tries that arrive [seed], action divergence [seed] and state entropy [seed]."""
    learner = BC(learning_rate=1e-3, batch_size=BATCH, policy=Deterministic(width=64))
    run = train(learner, source(condition), steps=UPDATES, seeds=list(seeds))

    def play(policy: Policy, seed: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(7), seed)
        return unroll(policy, room(TEST_NOISE), episodes=TRIED, horizon=HORIZON, key=key).success.mean()

    success = jax.jit(jax.vmap(play))(run.products()["policy"], jnp.asarray(seeds))
    flown = jax.device_get(run.source_state)
    pairs = [qualities(condition, jax.tree.map(lambda leaf, i=i: leaf[i], flown)) for i in range(len(seeds))]
    divergence, entropy = np.array(pairs).T
    return 100.0 * np.asarray(success, np.float64), divergence, entropy


def agreement(success: np.ndarray, quality: np.ndarray, count: np.ndarray) -> float:
    """Spearman's correlation of success with a quality over conditions, the number of demonstrations held fixed (partial)."""
    ranks = [scipy.stats.rankdata(column) for column in (success, quality, count)]
    left = [r - np.polyval(np.polyfit(ranks[2], r, 1), ranks[2]) for r in ranks[:2]]
    spread = np.linalg.norm(left[0]) * np.linalg.norm(left[1])
    return float(left[0] @ left[1] / spread) if spread > 0 else 0.0


def measure(seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Success of every condition, and per seed how well the two qualities order the conditions."""
    rows = {name: measured(condition, seeds) for name, condition in CONDITIONS.items()}
    count = np.array([condition.demonstrations for condition in CONDITIONS.values()])
    success, divergence, entropy = (np.stack([row[i] for row in rows.values()]) for i in range(3))
    each = lambda quality, sign: np.array([agreement(success[:, i], sign * quality[:, i], count) for i in range(len(seeds))])
    return {name: row[0] for name, row in rows.items()} | {
        "low divergence": each(divergence, -1.0),
        "entropy": each(entropy, 1.0),
        "entropy gap": np.abs(rows["0.2 of 100"][2] - rows["labelled 0.2 of 100"][2]),
    }


CLAIM = Claim(
    system="il-data-quality",
    says="Noise of the world while demonstrating helps a clone, up to a level that grows with the number of demonstrations; at the same"
    " variety of states, demonstrations whose actions agree are better; the variety of states alone does not tell which data are good"
    " (Belkhale, Cui and Sadigh 2023, arXiv 2306.02437, sections 4 and 5).",
    task="A point with inertia that passes a deadly obstacle (radius 0.4 m in a room of 2 x 2 m; pushes of at most 5 m/s^2, 20 per second)."
    " Percent of 100 tries that arrive within 100 steps under noise of 0.2 m/s per step on the velocity.",
    arms={
        "0 of 2": "2 demonstrations without noise",
        "0.05 of 2": "under noise of 0.05 m/s per step on the velocity, which the pilot corrects",
        "0.1 of 2": "under noise of 0.1 m/s",
        "0.2 of 2": "under noise of 0.2 m/s",
        "0.4 of 2": "under noise of 0.4 m/s",
        "0 of 10": "10 demonstrations without noise",
        "0.05 of 10": "under noise of 0.05 m/s",
        "0.1 of 10": "under noise of 0.1 m/s, always over the obstacle",
        "0.2 of 10": "under noise of 0.2 m/s",
        "0.4 of 10": "under noise of 0.4 m/s",
        "0 of 100": "100 demonstrations without noise",
        "0.05 of 100": "under noise of 0.05 m/s",
        "0.1 of 100": "under noise of 0.1 m/s",
        "0.2 of 100": "under noise of 0.2 m/s",
        "0.4 of 100": "under noise of 0.4 m/s",
        "labelled 0.1 of 2": "2 demonstrations moved as much by noise of the pilot's own action, which is logged with it: 0.1 m/s",
        "labelled 0.2 of 2": "0.2 m/s",
        "labelled 0.1 of 10": "10 demonstrations, 0.1 m/s",
        "labelled 0.2 of 10": "10 demonstrations, 0.2 m/s",
        "labelled 0.1 of 100": "100 demonstrations, 0.1 m/s",
        "labelled 0.2 of 100": "100 demonstrations, 0.2 m/s",
        "both sides 2": "2 demonstrations under noise of 0.1 m/s, over or under the obstacle at random",
        "both sides 10": "10 of them",
        "both sides 100": "100 of them",
        "low divergence": "partial rank correlation of success with minus the action divergence, over the 24 conditions, number held fixed",
        "entropy": "the same with the entropy of the states",
        "entropy gap": "distance of the state entropies of 0.2 of 100 and labelled 0.2 of 100, in nats",
    },
    parts=(
        Greater("0.2 of 100", "0 of 100", 5.0),
        Greater("0.2 of 2", "0.4 of 2", 5.0),
        Equivalent("0.4 of 100", "0.2 of 100", 5.0, "0 of 100"),
        Greater("0.2 of 100", "labelled 0.2 of 100", 5.0),
        Relation("entropy gap", 0.5, "below"),
        Greater("0.1 of 10", "both sides 10", 5.0),
        Relation("low divergence", "entropy"),
    ),
    measure=measure,
    budget="equal updates (2 000), batches (64), network (2 layers of 64), learning rate (0.001); the number of demonstrations is the"
    " condition",
    scale="analogue",
    deviation="A scripted pilot in a plane instead of people and simulated arms; squared error only; divergence and entropy by the"
    " nearest-neighbour estimators of the dataset card instead of by definition; demonstrations that fail are left out.",
    minutes=10,
    tuning="the same settings for all conditions, not tuned; the room was settled on seeds 1000 to 1002: with velocities for actions, or"
    " weaker noise while the clone is tried, most conditions succeeded always, and the levels of noise were doubled for the same reason",
)
