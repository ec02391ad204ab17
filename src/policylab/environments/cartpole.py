"""Cart and pole: keep a pole upright by pushing its cart; the dynamics of Gymnasium's CartPole-v1 as a pure function."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from policylab.environment import Environment, Step
from policylab.environments.drawing import AGENT, DANGER, Canvas
from policylab.experience import Spec
from policylab.spaces import Box, Discrete

GRAVITY, CART, POLE, HALF_LENGTH, FORCE = 9.8, 1.0, 0.1, 0.5, 10.0  # m/s^2, kg, kg, m, N
SECONDS, HORIZON = 0.02, 500  # Gymnasium's time limit; put `TimeLimit(CartPole(), HORIZON)` to have it
FARTHEST, STEEPEST = 2.4, 12 * 2 * np.pi / 360


class CartPole(Environment):
    """Observes (position in m, speed, angle in rad, its speed); the choices push left (0) or right (1) with 10 N.

    The reward is 1 for every step, the last one included. The episode ends when the cart is 2.4 m away or the pole leans by 12
    degrees (Barto, Sutton and Anderson 1983). It starts with all four numbers uniform in [-0.05, 0.05].
    """

    @property
    def spec(self) -> Spec:
        """4 observed numbers, 2 choices."""
        high = (2 * FARTHEST, np.inf, 2 * STEEPEST, np.inf)
        return Spec(
            Box((4,), tuple(-bound for bound in high), high), Discrete(2, ("left", "right")),
            control_rate=1.0 / SECONDS, environment="CartPole-v1",
        )  # fmt: skip

    def reset(self, key: PRNGKeyArray) -> tuple[Float[Array, "4"], Float[Array, "4"]]:
        """Near upright, near the middle, nearly still."""
        state = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return state, state

    def step(self, state: Float[Array, "4"], action: Int[Array, ""], key: PRNGKeyArray) -> tuple[Float[Array, "4"], Step]:
        """Explicit Euler over 0.02 s; the key is not used."""
        _place, speed, angle, turn = state
        cosine, sine, mass = jnp.cos(angle), jnp.sin(angle), CART + POLE
        push = (jnp.where(action == 1, FORCE, -FORCE) + POLE * HALF_LENGTH * turn**2 * sine) / mass
        leaning = (GRAVITY * sine - cosine * push) / (HALF_LENGTH * (4.0 / 3.0 - POLE * cosine**2 / mass))
        moving = push - POLE * HALF_LENGTH * leaning * cosine / mass
        state = state + SECONDS * jnp.stack([speed, moving, turn, leaning])
        return state, Step(state, jnp.ones(()), fallen(state), jnp.zeros((), bool))

    def at(self, observation: Float[Array, "4"]) -> Float[Array, "4"]:
        """The observation is the state."""
        return observation

    def picture(self, observation: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
        """The cart on its track, whose ends are marked, and the pole."""
        canvas = Canvas(-2.7, -0.6, 2.7, 1.4)
        place, angle = float(observation[0]), float(observation[2])
        canvas.line([(-FARTHEST, -0.2), (FARTHEST, -0.2)], "#9a9a98", 0.03)
        for end in (-FARTHEST, FARTHEST):
            canvas.line([(end, -0.32), (end, -0.08)], DANGER, 0.06)
        for wheel in (-0.2, 0.2):
            canvas.circle((place + wheel, -0.13), 0.09, "#222222")
        canvas.rectangle((place - 0.34, -0.1), (place + 0.34, 0.16), "#4f5358")
        canvas.line([(place, 0.06), (place + np.sin(angle), 0.06 + np.cos(angle))], AGENT, 0.1)
        canvas.circle((place, 0.06), 0.05, "#ffffff")
        return canvas.pixels()


def fallen(state: Float[Array, "4"]) -> Bool[Array, ""]:
    """Whether the cart is too far away or the pole leans too much."""
    return (jnp.abs(state[0]) > FARTHEST) | (jnp.abs(state[2]) > STEEPEST)
