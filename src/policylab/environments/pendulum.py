"""Pendulum: swing a pole up and hold it with too little torque; the dynamics of Gymnasium's Pendulum-v1 as a pure function."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from policylab.environment import Environment, Step
from policylab.environments.drawing import AGENT, FLOOR, GOAL, Canvas
from policylab.experience import Spec
from policylab.spaces import Box

GRAVITY, MASS, LENGTH = 10.0, 1.0, 1.0
SECONDS, HORIZON = 0.05, 200  # Gymnasium's time limit; put `TimeLimit(Pendulum(), HORIZON)` to have it
LARGEST_SPEED, LARGEST_TORQUE = 8.0, 2.0
LARGEST_COST = 3.1415927**2 + 0.1 * LARGEST_SPEED**2 + 0.001 * LARGEST_TORQUE**2


class Pendulum(Environment):
    """Observes (cos, sin, speed in rad/s) of the angle from upright; the action is a torque in [-2, 2] Nm, clipped there.

    reward = -(angle^2 + 0.1 speed^2 + 0.001 torque^2), in [-16.27, 0], of the state before the step. Episodes start at a uniform
    angle and a speed in [-1, 1] and never end by themselves. The state is [angle, speed].
    """

    @property
    def spec(self) -> Spec:
        """3 observed numbers, 1 torque."""
        return Spec(
            Box((3,), (-1.0, -1.0, -LARGEST_SPEED), (1.0, 1.0, LARGEST_SPEED)), Box((1,), -LARGEST_TORQUE, LARGEST_TORQUE),
            control_rate=1.0 / SECONDS, environment="Pendulum-v1", units=(("action", "Nm"),),
        )  # fmt: skip

    def reset(self, key: PRNGKeyArray) -> tuple[Float[Array, "2"], Float[Array, "3"]]:
        """A uniform angle and a slow speed."""
        high = jnp.array([jnp.pi, 1.0])
        state = jax.random.uniform(key, (2,), minval=-high, maxval=high)
        return state, _observed(state)

    def step(self, state: Float[Array, "2"], action: Float[Array, "1"], key: PRNGKeyArray) -> tuple[Float[Array, "2"], Step]:
        """Semi-implicit Euler over 0.05 s; the key is not used."""
        angle, speed = state
        torque = jnp.clip(action[0], -LARGEST_TORQUE, LARGEST_TORQUE)
        wrapped = (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
        cost = wrapped**2 + 0.1 * speed**2 + 0.001 * torque**2
        pull = 3 * GRAVITY / (2 * LENGTH) * jnp.sin(angle) + 3.0 / (MASS * LENGTH**2) * torque
        speed = jnp.clip(speed + pull * SECONDS, -LARGEST_SPEED, LARGEST_SPEED)
        state = jnp.stack([angle + speed * SECONDS, speed])
        return state, Step(_observed(state), -cost, jnp.zeros((), bool), jnp.zeros((), bool))

    def at(self, observation: Float[Array, "3"]) -> Float[Array, "2"]:
        """The angle in (-pi, pi] and the speed."""
        return jnp.stack([jnp.arctan2(observation[1], observation[0]), observation[2]])

    def picture(self, observation: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
        """The pole, with its tip where the angle says, in the circle of its tip; the mark at the top is where it should be."""
        canvas = Canvas(-1.3, -1.3, 1.3, 1.3)
        canvas.circle((0.0, 0.0), 1.13, FLOOR)
        canvas.circle((0.0, 1.0), 0.13, GOAL)
        tip = (-float(observation[1]), float(observation[0]))
        canvas.line([(0.0, 0.0), tip], AGENT, 0.14)
        canvas.circle((0.0, 0.0), 0.12, "#222222")
        canvas.circle((0.0, 0.0), 0.05, "#ffffff")
        return canvas.pixels()


def _observed(state: Float[Array, "2"]) -> Float[Array, "3"]:
    return jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])
