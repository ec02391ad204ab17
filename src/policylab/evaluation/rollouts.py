"""Playing policies: returns on common random numbers, and whole episodes as a Recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.data.recording import Recording
from policylab.environment import Environment, unroll
from policylab.environments.hosted import Gymnasium, explained
from policylab.errors import BadInput
from policylab.evaluation.lanes import Played, play
from policylab.experience import Spec, Tokens, Trials
from policylab.policy import Policy


def evaluate(
    policies: Policy,
    environment: Environment,
    *,
    episodes: int,
    seeds: Sequence[int] | np.ndarray,
    key: PRNGKeyArray,
    horizon: int = 0,
    name: str = "policy",
) -> Trials:
    """Play `episodes` whole episodes with each of several policies: one row of Trials per seed and episode.

    `policies` is one policy with a leading axis over `seeds` on every leaf, as training leaves it; pass `policy.mode()` for
    its deterministic version. Episode i's start and noise depend on `key` and i alone, so every policy ever evaluated with
    that key meets the same ones (common random numbers). `horizon` in steps cuts episodes short (0: the environment's own).
    Raises `BadInput` if the policy and the environment do not fit, or an environment without time limit gets no horizon.
    """
    check(jax.tree.map(lambda leaf: leaf[0], policies), environment)
    seeds, steps = np.asarray(seeds), _steps(environment, horizon)
    with explained():
        if isinstance(environment, Gymnasium):
            played = play(policies, environment, count=len(seeds), episodes=episodes, horizon=steps, key=key)
        else:
            played = Played(*jax.device_get(_sums(policies, environment, key, jnp.asarray(steps), len(seeds), episodes)))
    return Trials.of(name, played.returns, seeds=seeds, success=played.success, length=played.lengths)


def collect(
    policy: Policy,
    environment: Environment,
    *,
    key: PRNGKeyArray,
    episodes: int = 0,
    steps: int = 0,
    horizon: int = 0,
    name: str = "",
    progress: Callable[[int, int], Any] | None = None,
) -> Recording:
    """Whole episodes of one policy: `episodes` of them, or as many as it takes to hold at least `steps` actions.

    Each episode keeps the observation that followed its last action, before any reset. An episode that `horizon` cuts short
    is marked truncated. Equal keys give equal recordings. `progress(done, steps)` is called where steps were asked for.
    """
    if (episodes > 0) == (steps > 0) or min(episodes, steps) < 0:
        raise BadInput("say how much to collect: either a number of episodes or a number of steps")
    check(policy, environment)
    limit, parts, done = _steps(environment, horizon), [], 0
    block = episodes or max(1, min(64, -(-steps // limit)))
    while not parts or done < steps:
        with explained():
            parts.append(_record(policy, environment, block, limit, jax.random.fold_in(key, len(parts))))
        done += int(parts[-1]["lengths"].sum())
        if progress is not None and steps:
            progress(min(done, steps), steps)
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    recording = Recording(
        **{column: joined[column] for column in ("observation", "action", "reward", "terminal", "truncated", "lengths")},
        spec=environment.spec,
        extra=joined["extra"],
        name=name,
        origin={"environment": environment.spec.environment, "policy": type(policy).__name__, "horizon": limit},
    )
    enough = recording.episodes if episodes else int(np.searchsorted(np.cumsum(recording.lengths), steps)) + 1
    return recording.select(np.arange(enough))


def check(policy: Policy, environment: Environment) -> None:
    """Raise `BadInput` unless the policy takes the environment's observations and gives actions of its action space."""
    spec = environment.spec
    own = getattr(policy, "spec", None)
    if own is not None:
        own.require(spec)
    blank, wanted = blanks(spec)
    if isinstance(blank, Tokens):
        _check_words(policy, spec)
    try:
        action = jax.eval_shape(_first_action, policy, blank, jax.random.key(0))
    except (TypeError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise BadInput(f"the policy cannot read observations of {spaces.describe(spec.observation)}: {reason}") from error
    wanted, given = (_shapes(tree) for tree in (wanted, action))
    if wanted != given:
        raise BadInput(
            f"the policy gives actions of shape {given} but {spec.environment or 'the environment'} takes"
            f" {spaces.describe(spec.action)}: use a policy for this environment"
        )


def blanks(spec: Spec) -> tuple[PyTree, PyTree]:
    """An observation and an action of the right structure, shapes and dtypes: `Tokens` where the spec is one of texts."""
    observation, action = spaces.zeros(spec.observation), spaces.zeros(spec.action)
    if not spec.tokenizer:
        return observation, action
    from policylab.policies.language import is_text

    return (Tokens(observation, observation), Tokens(action, action)) if is_text(spec) else (observation, action)


def _check_words(policy: Policy, spec: Spec) -> None:
    """Raise `BadInput` unless a policy that says so reads the tokens of the environment and writes answers of its length."""
    place, longest = spec.environment or "the environment", spaces.size(spec.action)
    if getattr(policy, "tokenizer", spec.tokenizer) != spec.tokenizer:
        raise BadInput(
            f"the policy reads other tokens than {place}: make the task with its tokenizer, text_task(..., tokenizer=Tokenizer.of(policy.tokenizer))"
        )
    if getattr(policy, "answer", longest) != longest:
        raise BadInput(
            f"{place} takes answers of {longest} tokens: let the policy write as many, policy.sampled(answer={longest})"
        )


def _first_action(policy: Policy, observation: PyTree, key: PRNGKeyArray) -> PyTree:
    return policy.act(observation, policy.initial_memory(key=key), key=key)[0]


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: tuple(leaf.shape), tree)


def _steps(environment: Environment, horizon: int) -> int:
    own = environment.spec.horizon
    if not (horizon or own):
        raise BadInput(f"{environment.spec.environment or 'the environment'} has no time limit: say `horizon`, in steps")
    return min(horizon or own, own or horizon)


@partial(jax.jit, static_argnames=("count", "episodes"))
def _sums(
    policies: Policy, environment: Environment, key: PRNGKeyArray, horizon: Int[Array, ""], count: int, episodes: int
) -> tuple[Float[Array, "seed episode"], Float[Array, "seed episode"], Int[Array, "seed episode"]]:
    """Returns, success and lengths, in one loop over time that stops when every episode has ended.

    Random numbers are drawn as in `unroll`, so that both give the same episodes.
    """
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i), 3))(jnp.arange(episodes))

    def start(policy: Policy, episode: Array) -> tuple:
        state, observation = environment.reset(episode[0])
        return state, observation, policy.initial_memory(key=episode[1]), jnp.asarray(True)

    def move(policy: Policy, episode: Array, carry: tuple, time: Array) -> tuple[tuple, tuple]:
        state, observation, memory, alive = carry
        act_key, step_key = jax.random.split(jax.random.fold_in(episode[2], time))
        action, memory = policy.act(observation, memory, key=act_key)
        state, step = environment.step(state, action, step_key)
        gains = jnp.where(alive, jnp.sum(step.reward), 0.0), jnp.where(alive, step.info.get("success", jnp.nan), 0.0), alive
        return (state, step.observation, memory, alive & ~(step.terminal | step.truncated)), gains

    def everywhere(function: Any, *axes: int | None) -> Any:
        """Over seeds, and within them over episodes; the axes are those of the arguments after policy and episode keys."""
        over_episodes = jax.vmap(function, in_axes=(None, 0, *axes))
        return jax.vmap(over_episodes, in_axes=(0, None, *axes), axis_size=count)  # a policy may have no arrays

    def more(loop: tuple) -> Array:
        carry, _, _, _, time = loop
        return jnp.any(carry[3]) & (time < horizon)

    def go(loop: tuple) -> tuple:
        carry, total, success, length, time = loop
        carry, (reward, reached, alive) = everywhere(move, 0, None)(policies, keys, carry, time)
        return carry, total + reward, jnp.maximum(success, reached), length + alive, time + 1

    carry = everywhere(start)(policies, keys)
    nothing = jnp.zeros(carry[3].shape)
    loop = carry, nothing, nothing, jnp.zeros(carry[3].shape, jnp.int32), jnp.zeros((), jnp.int32)
    _, total, success, length, _ = jax.lax.while_loop(more, go, loop)
    return total, success, length


def _record(policy: Policy, environment: Environment, episodes: int, horizon: int, key: PRNGKeyArray) -> dict[str, Any]:
    """Columns of whole episodes, without the padding."""
    if isinstance(environment, Gymnasium):
        stacked = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], policy)
        return play(stacked, environment, count=1, episodes=episodes, horizon=horizon, key=key, record=True).columns
    played = jax.device_get(_unroll(policy, environment, key, episodes, horizon))
    valid, rows = np.asarray(played.valid), np.arange(episodes)
    lengths = valid.sum(1)
    reached = np.concatenate([np.ones((episodes, 1), bool), valid], axis=1)
    truncated = np.asarray(played.truncated).copy()
    truncated[rows, lengths - 1] |= ~np.asarray(played.terminal)[rows, lengths - 1]
    take = lambda tree, mask: jax.tree.map(lambda leaf: np.asarray(leaf)[mask], tree)
    return {
        "observation": take(played.observation, reached),
        "lengths": lengths,
        "truncated": truncated[valid],
        **{column: take(getattr(played, column), valid) for column in ("action", "reward", "terminal")},
        "extra": take({"success": played.info["success"]} if "success" in played.info else {}, valid),
    }


_unroll = eqx.filter_jit(
    lambda policy, environment, key, episodes, horizon: unroll(policy, environment, episodes=episodes, horizon=horizon, key=key)
)
