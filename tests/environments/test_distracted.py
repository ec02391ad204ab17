"""What goes on beside an environment changes nothing in it, and never runs away."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environment import unroll
from policylab.environments.distracted import Distracted
from policylab.environments.pendulum import Pendulum
from policylab.policies.uniform import UniformRandom

_BESIDE = Distracted(Pendulum(), pairs=3)


def test_the_environment_goes_its_way_and_the_distractions_keep_their_spread():
    policy = UniformRandom(_BESIDE.spec.action)
    play = jax.jit(lambda key: unroll(policy, _BESIDE, episodes=200, horizon=60, key=key))
    seen = np.asarray(play(jax.random.key(0)).observation)
    assert seen.shape == (200, 61, 3 + 6)
    np.testing.assert_allclose(np.linalg.norm(seen[..., :2], axis=-1), 1.0, rtol=1e-5)
    # The long-run standard deviation, 0.14 / sqrt(1 - 0.99^2), from the start to the end.
    for time in (0, 60):
        np.testing.assert_allclose(seen[:, time, 3:].std(), 0.14 / np.sqrt(1 - 0.99**2), rtol=0.08)
    # The slowest pair turns by 0.2 radians a step: successive values correlate with 0.99 cos(0.2).
    first = seen[:, :, 3]
    np.testing.assert_allclose(np.mean(first[:, 1:] * first[:, :-1]) / np.mean(first**2), 0.99 * np.cos(0.2), atol=0.02)


def test_a_step_from_what_was_observed_is_that_of_the_environment():
    _, observation = _BESIDE.reset(jax.random.key(1))
    state = _BESIDE.at(observation)
    _, step = _BESIDE.step(state, jnp.ones(1), jax.random.key(2))
    _, own = Pendulum().step(Pendulum().at(observation[:3]), jnp.ones(1), jax.random.key(2))
    np.testing.assert_allclose(step.observation[:3], own.observation, rtol=1e-5)
    assert float(step.reward) == float(own.reward)
    assert _BESIDE.spec.observation.shape == (9,)


def test_without_a_pair_there_is_no_distraction():
    with pytest.raises(lab.BadInput, match="vector of observed numbers"):
        Distracted(Pendulum(), pairs=0)
