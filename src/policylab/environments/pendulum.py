"""Pendulum: swing a pole up and hold it with too little torque; the dynamics of Gymnasium's Pendulum-v1 as a pure function."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.environment import Environment, Step
from policylab.experience import Spec
from policylab.spaces import Box

GRAVITY, MASS, LENGTH = 10.0, 1.0, 1.0
SECONDS, HORIZON = 0.05, 200
LARGEST_SPEED, LARGEST_TORQUE = 8.0, 2.0
LARGEST_COST = 3.1415927**2 + 0.1 * LARGEST_SPEED**2 + 0.001 * LARGEST_TORQUE**2


class Pendulum(Environment):
    """Observes (cos, sin, speed in rad/s) of the angle from upright; the action is a torque in [-2, 2] Nm, clipped there.

    reward = -(angle^2 + 0.1 speed^2 + 0.001 torque^2), in [-16.27, 0]. Episodes start at a uniform angle and a speed in [-1, 1], never
    end by themselves and are cut after 200 steps of 0.05 s. The state is [angle, speed, steps taken].
    """

    @property
    def spec(self) -> Spec:
        """3 observed numbers, 1 torque."""
        return Spec(
            Box((3,), (-1.0, -1.0, -LARGEST_SPEED), (1.0, 1.0, LARGEST_SPEED)), Box((1,), -LARGEST_TORQUE, LARGEST_TORQUE),
            horizon=HORIZON, control_rate=1.0 / SECONDS, environment="Pendulum-v1",
        )  # fmt: skip

    def reset(self, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """A fresh state and its observation."""
        high = jnp.array([jnp.pi, 1.0])
        angle, speed = jax.random.uniform(key, (2,), minval=-high, maxval=high)
        state = jnp.stack([angle, speed, jnp.zeros(())])
        return state, _observed(state)

    def step(self, state: PyTree, action: PyTree, key: PRNGKeyArray) -> tuple[PyTree, Step]:
        """The next state and what the agent sees of it; the key is not used."""
        angle, speed, time = state
        torque = jnp.clip(action[0], -LARGEST_TORQUE, LARGEST_TORQUE)
        wrapped = (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
        cost = wrapped**2 + 0.1 * speed**2 + 0.001 * torque**2
        pull = 3 * GRAVITY / (2 * LENGTH) * jnp.sin(angle) + 3.0 / (MASS * LENGTH**2) * torque
        speed = jnp.clip(speed + pull * SECONDS, -LARGEST_SPEED, LARGEST_SPEED)
        state = jnp.stack([angle + speed * SECONDS, speed, time + 1.0])
        return state, Step(_observed(state), -cost, jnp.zeros((), bool), state[2] >= HORIZON)


def _observed(state: Float[Array, "3"]) -> Float[Array, "3"]:
    return jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])
