"""The pendulum against Gymnasium's, step for step."""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

import policylab as lab
from policylab.environments.pendulum import HORIZON, Pendulum


def test_every_step_is_that_of_gymnasium():
    theirs = gymnasium.make("Pendulum-v1")
    theirs.reset(seed=0)
    random = np.random.default_rng(0)
    environment, step = Pendulum(), jax.jit(Pendulum().step)
    for start in random.uniform([-np.pi, -8.0], [np.pi, 8.0], (5, 2)):
        theirs.reset()
        state = jnp.asarray([*start, 0.0], jnp.float32)
        for _ in range(40):
            theirs.unwrapped.state = np.asarray(state[:2], np.float64)  # float32 drifts apart over many steps
            action = random.uniform(-3.0, 3.0, 1).astype(np.float32)
            state, ours = step(state, action, jax.random.key(0))
            observation, reward, terminal, _, _ = theirs.step(action)
            np.testing.assert_allclose(ours.observation, observation, atol=1e-4)
            np.testing.assert_allclose(ours.reward, reward, rtol=1e-4, atol=1e-4)
            assert bool(ours.terminal) == terminal
    space = theirs.observation_space
    np.testing.assert_allclose(environment.spec.observation.bounds(), (space.low, space.high))


def test_an_episode_is_cut_after_200_steps_and_conforms():
    policy = lab.Deterministic(width=4, depth=1).build(Pendulum().spec, key=jax.random.key(0))
    episodes = lab.unroll(policy, Pendulum(), episodes=2, horizon=HORIZON + 5, key=jax.random.key(1))
    assert list(episodes.lengths) == [HORIZON, HORIZON]
    assert not bool(episodes.terminal.any())
    assert lab.check(Pendulum()).passed
