"""Several goals around the start, one of which is worth more in every episode: where a policy has to choose between directions."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from policylab.environment import Environment, Step
from policylab.environments.drawing import AGENT, FLOOR, GOAL, START, WALL, Canvas
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.spaces import Box


def _number(value: object) -> Float[Array, ""]:
    return jnp.asarray(value, jnp.float32)


class MultiGoal(Environment):
    """A point in the square [-1, 1]^2, steered by velocities in [-1, 1]^2, of which each part is clipped there and moves it by `speed`
    metres a step; `goals` places lie evenly on the circle of radius `distance`, the first to the right.

    reward = max_g worth_g exp(-d_g^2 / (2 spread^2)), d_g the distance to goal g after the step, worth_g 1 for one goal, drawn
    anew for every episode, and `lesser` for the others. Observed: the place, and for every goal 1 if it is the one. At the start, within
    `jitter` of the middle, the values of actions have a peak in the direction of every goal. Episodes do not end by themselves.
    """

    goals: int = eqx.field(static=True, default=4)
    distance: Float[Array, ""] = eqx.field(converter=_number, default=0.8)
    spread: Float[Array, ""] = eqx.field(converter=_number, default=0.3)
    lesser: Float[Array, ""] = eqx.field(converter=_number, default=0.7)
    speed: Float[Array, ""] = eqx.field(converter=_number, default=0.1)
    jitter: Float[Array, ""] = eqx.field(converter=_number, default=0.05)

    def __check_init__(self) -> None:
        if self.goals < 1:
            raise BadInput(f"a point with {self.goals} goals has nowhere to go: give at least 1")

    @property
    def spec(self) -> Spec:
        """2 + `goals` observed numbers, 2 actions."""
        size = 2 + self.goals
        low = (-1.0, -1.0, *(0.0,) * self.goals)
        return Spec(Box((size,), low, (1.0,) * size), Box((2,), -1.0, 1.0), environment="multi-goal point")

    @property
    def places(self) -> Float[Array, "goal 2"]:
        """Where the goals are, in metres."""
        angle = 2 * jnp.pi * jnp.arange(self.goals) / self.goals
        return self.distance * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)

    def reset(self, key: PRNGKeyArray) -> tuple[Float[Array, " number"], Float[Array, " number"]]:
        """Near the middle, with a goal that is worth more."""
        where, which = jax.random.split(key)
        place = self.jitter * jax.random.uniform(where, (2,), minval=-1.0, maxval=1.0)
        state = jnp.concatenate([place, jax.nn.one_hot(jax.random.randint(which, (), 0, self.goals), self.goals)])
        return state, state

    def step(
        self, state: Float[Array, " number"], action: Float[Array, "2"], key: PRNGKeyArray
    ) -> tuple[Float[Array, " number"], Step]:
        """A step; the key is not used. `info["success"]` is 1 within `spread` of the goal that is worth more."""
        place = jnp.clip(state[:2] + self.speed * jnp.clip(action, -1.0, 1.0), -1.0, 1.0)
        worth = jnp.where(state[2:] > 0.5, 1.0, self.lesser)
        squared = jnp.sum((self.places - place) ** 2, axis=1)
        reward = jnp.max(worth * jnp.exp(-squared / (2.0 * self.spread**2)))
        arrived = jnp.any((squared < self.spread**2) & (state[2:] > 0.5))
        after = jnp.concatenate([place, state[2:]])
        no = jnp.zeros((), bool)
        return after, Step(after, reward, no, no, info={"success": arrived.astype(jnp.float32)})

    def at(self, observation: Float[Array, " number"]) -> Float[Array, " number"]:
        """The observation is the state."""
        return observation

    def picture(self, observation: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
        """The goals, the one that is worth more filled, and the point."""
        canvas = Canvas(-1.3, -1.3, 1.3, 1.3)
        canvas.rectangle((-1.1, -1.1), (1.1, 1.1), WALL)
        canvas.rectangle((-1.0, -1.0), (1.0, 1.0), FLOOR)
        for place, better in zip(np.asarray(self.places), observation[2:], strict=True):
            centre = (float(place[0]), float(place[1]))
            canvas.circle(centre, 0.16, GOAL)
            if better < 0.5:
                canvas.circle(centre, 0.11, FLOOR)
        canvas.circle((0.0, 0.0), 0.05, START)
        canvas.circle((float(observation[0]), float(observation[1])), 0.06, AGENT)
        return canvas.pixels()
