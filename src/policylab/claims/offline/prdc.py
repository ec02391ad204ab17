"""PRDC uses actions that were taken at similar states, where TD3+BC copies this state's (Ran et al. 2023, arXiv 2306.06569)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from policylab.data.recording import recording_from_steps
from policylab.environment import Environment, Step, unroll
from policylab.experience import Spec
from policylab.learner import Learner
from policylab.policies.deterministic import Deterministic
from policylab.policy import Policy
from policylab.sources.dataset import Dataset
from policylab.spaces import Box
from policylab.training import train

STEPS, EPISODES, ROWS, HORIZON = 5_000, 20, 1_000, 50
LENGTH, STRIPE, GOAL = 10.0, 0.25, 9.5
QUIET, BRIDGE, LARGEST_STEP = (3.25, 6.0), (4.75, 5.25), 0.7
SHARED: dict[str, Any] = {"width": 32, "batch_size": 64, "learning_rate": 1e-3, "policy": Deterministic(width=32)}
GRID = [{"alpha": alpha} for alpha in (2.5, 7.5, 40.0)]


class Line(Environment):
    """A point on [0, 10] that moves by its action in [-1, 1]; -1 per step until it passes 9.5, at most 50 steps. Whoever leaves or
    crosses the bridge from 4.75 to 5.25 with a move of more than 0.7 falls (-50, end). Episodes start below 1."""

    @property
    def spec(self) -> Spec:
        """One position, one move."""
        return Spec(Box((1,), 0.0, LENGTH), Box((1,), -1.0, 1.0), horizon=HORIZON)

    def reset(self, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """A position in [0, 1)."""
        position = jax.random.uniform(key, (1,))
        return position, position

    def step(self, state: PyTree, action: PyTree, key: PRNGKeyArray) -> tuple[PyTree, Step]:
        """Move."""
        move = jnp.clip(action, -1.0, 1.0)
        position = jnp.clip(state + move, 0.0, LENGTH)
        touches = (jnp.minimum(state, position) < BRIDGE[1]) & (jnp.maximum(state, position) >= BRIDGE[0])
        falls = (touches & (jnp.abs(move) > LARGEST_STEP))[0]
        arrives = (position[0] >= GOAL) & ~falls
        reward = jnp.where(falls, -float(HORIZON), -1.0)
        return position, Step(position, reward, falls | arrives, jnp.zeros((), bool), info={"success": arrives.astype(float)})


@cache
def data() -> Dataset:
    """1 000 moves at uniform positions. Around the bridge, from 3.25 to 6, all go right by 0.2 to 0.4; elsewhere, in stripes of 0.25, all go
    right by 0.8 to 1 or all left. Nobody has ever fallen."""
    random = np.random.default_rng(0)
    position = random.uniform(0.0, GOAL, ROWS)
    size, right = random.uniform(0.8, 1.0, ROWS), np.floor(position / STRIPE) % 2 == 0
    careful = (position >= QUIET[0]) & (position < QUIET[1])
    move = np.where(careful, random.uniform(0.2, 0.4, ROWS), np.where(right, size, -size))
    rows = jnp.asarray(position, jnp.float32)[:, None], jnp.asarray(move, jnp.float32)[:, None]
    after, step = jax.jit(jax.vmap(lambda s, a: Line().step(s, a, jax.random.key(0))))(*rows)
    recording = recording_from_steps(
        np.asarray(rows[0]), np.asarray(rows[1]), np.asarray(step.reward), np.asarray(step.terminal),
        ~np.asarray(step.terminal), np.asarray(after), spec=Line().spec, name="line",
    )  # fmt: skip
    return Dataset.of(recording)


def scores(learner: Learner, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Train and play 20 episodes per seed -> the score [seed], 100 for arriving at once and 0 for never, and how much the critic
    overestimates the discounted return from the start [seed]."""
    run = train(learner, data(), steps=STEPS, seeds=list(seeds))

    def play(policy: Policy, critic: Any, seed: Array) -> tuple[Array, Array]:
        key = jax.random.fold_in(jax.random.key(3), seed)
        episodes = unroll(policy, Line(), episodes=EPISODES, horizon=HORIZON, key=key)
        discounted = jnp.sum(jnp.where(episodes.valid, episodes.reward, 0.0) * 0.99 ** jnp.arange(HORIZON), axis=1)
        claimed = jax.vmap(lambda o, a: jnp.min(critic.values(o, a)))(episodes.observation[:, 0], episodes.action[:, 0])
        return episodes.returns.mean(), jnp.mean(claimed - discounted)

    products = run.products()
    returns, excess = jax.jit(jax.vmap(play))(products["policy"], products["critic"], jnp.asarray(seeds))
    return 100.0 * (np.asarray(returns, np.float64) + HORIZON) / (HORIZON - BEST), np.asarray(excess, np.float64)


BEST = 13.0
