"""A point in the plane that has to reach a goal, past an obstacle, through drag and noise: small, and every part adjustable."""

from __future__ import annotations

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from policylab.environment import Environment, Step
from policylab.environments.drawing import AGENT, DANGER, FLOOR, GOAL, START, WALL, Canvas
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.spaces import Box


def _numbers(value: object) -> Float[Array, "..."]:
    return jnp.asarray(value, jnp.float32)


class PointMass(Environment):
    """A point in the square [-1, 1]^2, steered by actions in [-1, 1]^2, of which each part is clipped there.

    With `order` 1 an action is a velocity (`gain` metres per second at most); with 2 a force that gives an acceleration, and the
    observation is (x, y, velocity x, velocity y). `drag` is the share of the velocity lost per second (order 2), `noise`
    sigma_s, the standard deviation of the Gaussian disturbance that the dynamics add to the position (order 1) or the velocity
    (order 2) at every step: state noise in the sense of Belkhale, Cui and Sadigh 2023, "Data Quality in Imitation Learning".
    The walls stop the point.

    Episodes start uniformly in the rectangle `start` (left, bottom, right, top) and end within `radius` of `goal`, with
    `info["success"]`. `obstacle` is (x, y, radius), 0 for none: the way of a step is checked, not only its end. A `deadly` one
    ends the episode, another one stops the point. The reward is -1 per step and 0 on arrival, or, with `shaped`, minus the
    distance to the goal; touching a deadly obstacle costs `penalty` more. Numbers are leaves, so changing them compiles nothing.

    It sets no time limit: put `TimeLimit(PointMass(), 100)`.
    """

    start: Float[Array, "4"] = eqx.field(converter=_numbers, default=(-0.9, -0.9, -0.7, 0.9))
    goal: Float[Array, "2"] = eqx.field(converter=_numbers, default=(0.8, 0.0))
    radius: Float[Array, ""] = eqx.field(converter=_numbers, default=0.1)
    obstacle: Float[Array, "3"] = eqx.field(converter=_numbers, default=(0.0, 0.0, 0.0))
    gain: Float[Array, ""] = eqx.field(converter=_numbers, default=1.0)
    drag: Float[Array, ""] = eqx.field(converter=_numbers, default=0.0)
    noise: Float[Array, ""] = eqx.field(converter=_numbers, default=0.0)
    seconds: Float[Array, ""] = eqx.field(converter=_numbers, default=0.05)
    penalty: Float[Array, ""] = eqx.field(converter=_numbers, default=0.0)
    order: int = eqx.field(static=True, default=1)
    deadly: bool = eqx.field(static=True, default=False)
    shaped: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if self.order not in (1, 2):
            raise BadInput(f"a point mass of order {self.order} is not known: choose 1 (velocities) or 2 (forces)")

    @property
    def spec(self) -> Spec:
        """2 or 4 observed numbers, 2 actions."""
        units = ("m",) if self.order == 1 else ("m", "m/s")
        return Spec(
            Box((2 * self.order,), (-1.0, -1.0, *(-np.inf,) * 2)[: 2 * self.order], (1.0, 1.0, *(np.inf,) * 2)[: 2 * self.order]),
            Box((2,), -1.0, 1.0), units=(("observation", ", ".join(units)),), environment="point mass",
        )  # fmt: skip

    def reset(self, key: PRNGKeyArray) -> tuple[Float[Array, " number"], Float[Array, " number"]]:
        """A place in the start region, at rest."""
        place = jax.random.uniform(key, (2,), minval=self.start[:2], maxval=self.start[2:])
        state = place if self.order == 1 else jnp.concatenate([place, jnp.zeros(2)])
        return state, state

    def step(
        self, state: Float[Array, " number"], action: Float[Array, "2"], key: PRNGKeyArray
    ) -> tuple[Float[Array, " number"], Step]:
        """Explicit Euler; the key draws the disturbance."""
        disturbance = self.noise * jax.random.normal(key, (2,))
        place, push = state[:2], self.gain * jnp.clip(action, -1.0, 1.0)
        if self.order == 1:
            velocity = push
            wanted = place + self.seconds * velocity + disturbance
        else:
            velocity = state[2:] * (1.0 - self.seconds * self.drag) + self.seconds * push + disturbance
            wanted = place + self.seconds * velocity
        reached = jnp.clip(wanted, -1.0, 1.0)
        touched = self._touches(place, reached)
        held = jnp.where(touched & (not self.deadly), place, reached)
        velocity = jnp.where((held == wanted), velocity, 0.0)
        arrived = jnp.linalg.norm(held - self.goal) <= self.radius
        if self.deadly:
            arrived &= ~touched
        reward = -jnp.linalg.norm(held - self.goal) if self.shaped else jnp.where(arrived, 0.0, -1.0)
        lost = touched & self.deadly
        state = held if self.order == 1 else jnp.concatenate([held, velocity])
        info = {"success": arrived.astype(jnp.float32), "touched": touched.astype(jnp.float32)}
        return state, Step(state, reward - jnp.where(lost, self.penalty, 0.0), arrived | lost, jnp.zeros((), bool), info=info)

    def at(self, observation: Float[Array, " number"]) -> Float[Array, " number"]:
        """The observation is the state."""
        return observation

    def picture(self, observation: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
        """The square with start region, goal, obstacle and the point."""
        canvas = Canvas(-1.1, -1.1, 1.1, 1.1)
        canvas.rectangle((-1.1, -1.1), (1.1, 1.1), WALL)
        canvas.rectangle((-1.0, -1.0), (1.0, 1.0), FLOOR)
        left, bottom, right, top = (float(edge) for edge in self.start)
        canvas.rectangle((left, bottom), (right, top), START)
        canvas.circle((float(self.goal[0]), float(self.goal[1])), float(self.radius), GOAL)
        if float(self.obstacle[2]) > 0:
            canvas.circle(
                (float(self.obstacle[0]), float(self.obstacle[1])), float(self.obstacle[2]), DANGER if self.deadly else WALL
            )
        canvas.circle((float(observation[0]), float(observation[1])), 0.05, AGENT)
        return canvas.pixels()

    def with_noise(self, noise: float) -> PointMass:
        """The same with another sigma_s."""
        return replace(self, noise=noise)

    def _touches(self, begin: Float[Array, "2"], end: Float[Array, "2"]) -> Bool[Array, ""]:
        """Whether the straight way from `begin` to `end` enters the obstacle."""
        way, centre, radius = end - begin, self.obstacle[:2], self.obstacle[2]
        share = jnp.clip(jnp.dot(centre - begin, way) / jnp.maximum(jnp.dot(way, way), 1e-12), 0.0, 1.0)
        return (radius > 0) & (jnp.linalg.norm(begin + share * way - centre) < radius)
