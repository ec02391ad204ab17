"""The multi-goal point by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environments.multigoal import MultiGoal


def test_the_better_goal_is_worth_more_and_every_direction_has_one():
    environment = MultiGoal()
    key = jax.random.key(0)
    state = jnp.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0])  # the second goal: straight up
    rewards, succeeded = [], []
    for action in ([1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -5.0]):
        place, step = state, None
        for _ in range(8):
            place, step = environment.step(place, jnp.array(action), key)
        assert step is not None
        rewards.append(float(step.reward))
        succeeded.append(float(step.info["success"]))
    np.testing.assert_allclose(rewards, [0.7, 1.0, 0.7, 0.7], rtol=1e-4)
    assert succeeded == [0.0, 1.0, 0.0, 0.0]
    _, first = environment.step(state, jnp.zeros(2), key)
    np.testing.assert_allclose(first.reward, np.exp(-(0.8**2) / (2 * 0.09)), rtol=1e-5)


def test_it_conforms_draws_every_goal_and_is_drawn():
    environment = MultiGoal(goals=3)
    report = lab.check(environment)
    assert report.passed, str(report)
    starts, _ = jax.vmap(environment.reset)(jax.random.split(jax.random.key(1), 300))
    assert np.all(np.asarray(starts[:, 2:]).mean(0) > 0.25)
    assert np.abs(np.asarray(starts[:, :2])).max() <= 0.05
    assert environment.picture(np.asarray(starts[0])).ndim == 3
    with pytest.raises(lab.BadInput, match="nowhere to go"):
        MultiGoal(goals=0)
