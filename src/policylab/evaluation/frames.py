"""Pictures of one episode."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from policylab.environment import Environment, unroll
from policylab.environments.hosted import Gymnasium
from policylab.errors import BadInput, Unsupported
from policylab.policy import Policy


def frames(policy: Policy, environment: Environment, *, seed: int = 0, most: int = 100, horizon: int = 0) -> list[np.ndarray]:
    """About `most` evenly spaced RGB frames [height, width, 3] of one episode from the start that `seed` draws, and its last one.
    `horizon` cuts the episode after so many steps; 0 leaves it to the environment, or 1,000 where that sets no limit.

    Raises `BadInput` where the environment has no pictures or the machine cannot draw them.
    """
    horizon = horizon or environment.spec.horizon or 1_000
    if not isinstance(environment, Gymnasium):
        return _of_observations(policy, environment, seed, most, horizon)
    try:
        simulator = environment.host.build(render_mode="rgb_array")
    except TypeError as error:
        raise BadInput(f"{environment.spec.environment} has no pictures of its own") from error
    act = jax.jit(lambda policy, observation, memory, key: policy.act(observation, memory, key=key))
    key = jax.random.key(seed)
    memory, ended, found, time = policy.initial_memory(key=key), False, [], 0
    host, stride = environment.host, max(1, horizon // most)
    try:
        raw, _ = simulator.reset(seed=seed)
        found.append(_drawn(simulator))
        while not ended:
            buffer = host.buffer(1)
            host.write(buffer, 0, raw)
            observation = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), buffer)
            action, memory = act(policy, observation, memory, jax.random.fold_in(key, time))
            raw, _, terminal, truncated, _ = simulator.step(
                host.read(jax.tree.map(lambda leaf: np.asarray(leaf)[None], action), 0)
            )
            ended, time = terminal or truncated or time + 1 >= horizon, time + 1
            if ended or time % stride == 0:
                found.append(_drawn(simulator))
    finally:
        simulator.close()
    return found


def _of_observations(policy: Policy, environment: Environment, seed: int, most: int, horizon: int) -> list[np.ndarray]:
    """Frames that the environment draws from what was observed."""
    play = eqx.filter_jit(lambda policy: unroll(policy, environment, episodes=1, horizon=horizon, key=jax.random.key(seed)))
    episode = jax.device_get(play(policy))
    length, stride = int(episode.lengths[0]), max(1, horizon // most)
    times = [*range(0, length, stride), length]
    shown = lambda t: jax.tree.map(lambda leaf: np.asarray(leaf[0, t]), episode.observation)
    try:
        return [environment.picture(shown(t)) for t in times]
    except Unsupported as error:
        raise BadInput(f"{environment.spec.environment or type(environment).__name__} has no pictures of its own") from error


def _drawn(simulator: Any) -> np.ndarray:
    try:
        return np.asarray(simulator.render())
    except Exception as error:  # what drivers and simulators raise has no common kind
        advice = ": try MUJOCO_GL=egl" if "gl" in str(error).lower() else ""
        raise BadInput(f"this machine cannot draw the environment ({type(error).__name__}: {error}){advice}") from error
