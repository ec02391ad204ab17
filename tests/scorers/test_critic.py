"""Critics: their parts agree with one another."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import policylab as lab
from policylab.scorers.critic import ActionValue


def test_the_first_members_value_is_the_first_of_all_values_and_the_score_the_least() -> None:
    spec = lab.Spec(lab.Box((3,)), lab.Box((2,), -2.0, 2.0))
    critic = ActionValue(spec, members=3, width=8, depth=1, key=jax.random.key(0))
    observation, action = jnp.array([0.1, -0.4, 2.0]), jnp.array([1.5, -0.3])
    values = critic.values(observation, action)
    np.testing.assert_allclose(critic.first_value(observation, action), values[0], rtol=1e-6)
    np.testing.assert_allclose(critic.scores(observation, action), [values.min()], rtol=1e-6)
