"""Environment: a functional decision process. `step` never resets: whoever rolls out does, after recording the last observation."""

from __future__ import annotations

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt8

from policylab.errors import Unsupported
from policylab.experience import Spec
from policylab.policy import Policy


class Step(eqx.Module):
    """What one action led to. `terminal`: the process ended; `truncated`: the clock did (set by `TimeLimit` alone).

    `reward` is a scalar or a vector of objectives, `available` masks the actions of the next state, `info` holds arrays such
    as `success` (1.0 once the goal is reached) or `uncertainty` (of a learned world).
    """

    observation: PyTree[Array]
    reward: Float[Array, "*objective"]
    terminal: Bool[Array, "*player"]
    truncated: Bool[Array, "*player"]
    available: PyTree[Array] = None
    info: dict[str, PyTree[Array]] = eqx.field(default_factory=dict)


class Environment(eqx.Module):
    """A decision process over one sample; callers `vmap`. What varies per episode is drawn in `reset`."""

    @property
    @abstractmethod
    def spec(self) -> Spec:
        """Observation and action spaces, horizon, control rate, units."""

    @abstractmethod
    def reset(self, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """A fresh state and its observation."""

    @abstractmethod
    def step(self, state: PyTree, action: PyTree, key: PRNGKeyArray) -> tuple[PyTree, Step]:
        """The next state and what the agent sees of it."""

    def renew(self, state: PyTree, observation: PyTree, ended: Bool[Array, ""], key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """What to go on from: a fresh episode where `ended`, else `state` and `observation` as they are.

        Whoever rolls out on and on calls this after recording the last observation; a hosted environment resets only the
        episodes that ended.
        """
        return jax.tree.map(lambda new, old: jnp.where(ended, new, old), self.reset(key), (state, observation))

    def step_and_renew(
        self, state: PyTree, action: PyTree, step_key: PRNGKeyArray, reset_key: PRNGKeyArray
    ) -> tuple[PyTree, PyTree, Step]:
        """`step`, then `renew` where that ended the episode: the state and observation to go on from, and the step.

        For whoever rolls out on and on; a hosted environment does both in one call.
        """
        state, step = self.step(state, action, step_key)
        state, observation = self.renew(state, step.observation, step.terminal | step.truncated, reset_key)
        return state, observation, step

    def at(self, observation: PyTree) -> PyTree:
        """The state that shows `observation`, where it can be known (branched rollouts; every World has it)."""
        raise Unsupported(f"{type(self).__name__} cannot be put into a state that shows a given observation")

    def available(self, state: PyTree) -> Bool[Array, " choice"] | None:
        """Which choices may be taken in `state`; None where all may, always."""
        return None

    def turn(self, state: PyTree) -> Bool[Array, " player"]:
        """Whose move it is, one flag per player; the actions of the others do not count. A single player always moves."""
        return jnp.ones(max(1, len(self.spec.roles)), bool)

    def picture(self, observation: PyTree) -> UInt8[np.ndarray, "height width 3"]:
        """An RGB picture of what `observation` shows, where the environment can draw it; on the host, for reports."""
        raise Unsupported(f"{type(self).__name__} cannot draw its observations")

    @property
    def restorable(self) -> bool:
        """Whether a state can be stored and stepped again; search replays actions where it cannot."""
        return True

    @property
    def hosted(self) -> bool:
        """Whether stepping leaves the compiled program for the host (a simulator in C, an API)."""
        return False


class Episodes(eqx.Module):
    """Whole episodes from `unroll`: leaves [episode, time, ...], `observation` one longer along time; padded after the end."""

    observation: PyTree[Array]
    action: PyTree[Array]
    reward: Float[Array, "episode time *objective"]
    terminal: Bool[Array, "episode time"]
    truncated: Bool[Array, "episode time"]
    valid: Bool[Array, "episode time"]
    info: dict[str, PyTree[Array]]

    @property
    def returns(self) -> Float[Array, " episode"]:
        """Undiscounted sum of rewards per episode."""
        return jnp.sum(jnp.where(self.valid, self.reward, 0.0), axis=1)

    @property
    def lengths(self) -> Array:
        """Steps per episode."""
        return jnp.sum(self.valid, axis=1)

    @property
    def success(self) -> Float[Array, " episode"]:
        """1 where `info["success"]` was ever above 0, NaN where the environment reports none."""
        if "success" not in self.info:
            return jnp.full(self.valid.shape[:1], jnp.nan)
        return jnp.max(jnp.where(self.valid, self.info["success"], 0.0), axis=1)


def unroll(policy: Policy, environment: Environment, *, episodes: int, horizon: int, key: PRNGKeyArray) -> Episodes:
    """`episodes` whole episodes of at most `horizon` steps, in one scan. Pure: works under `jit`, and `vmap` over policies.

    Episode i draws its start and its noise from `fold_in(key, i)` alone, so that two policies unrolled with one key meet the
    same starts (common random numbers). A finished episode is stepped on, unrecorded, until the scan ends.
    """
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(episodes))

    def start(episode_key: PRNGKeyArray) -> tuple:
        environment_key, policy_key, noise = jax.random.split(episode_key, 3)
        state, observation = environment.reset(environment_key)
        return (state, observation, policy.initial_memory(key=policy_key), jnp.asarray(True)), observation, noise

    def move(carry: tuple, noise: PRNGKeyArray, time: Array) -> tuple[tuple, tuple]:
        state, observation, memory, alive = carry
        act_key, step_key = jax.random.split(jax.random.fold_in(noise, time))
        action, memory = policy.act(observation, memory, key=act_key)
        state, step = environment.step(state, action, step_key)
        ended = step.terminal | step.truncated
        row = (step.observation, action, step.reward, step.terminal & alive, step.truncated & alive, alive, step.info)
        return (state, step.observation, memory, alive & ~ended), row

    carry, first, noises = jax.vmap(start)(keys)
    moves = jax.vmap(move, in_axes=(0, 0, None))
    _, rows = jax.lax.scan(lambda c, time: moves(c, noises, time), carry, jnp.arange(horizon))
    rows = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), rows)
    observation = jax.tree.map(lambda a, b: jnp.concatenate([a[:, None], b], axis=1), first, rows[0])
    return Episodes(observation, *rows[1:])
