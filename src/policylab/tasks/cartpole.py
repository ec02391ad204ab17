"""Cart and pole: Gymnasium's CartPole-v1, as a compiled environment, and a linear pilot."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab.environment import Environment
from policylab.environments.cartpole import HORIZON, CartPole
from policylab.environments.time_limit import TimeLimit
from policylab.policy import Policy
from policylab.tasks.scripted import CHOICE_RECIPES, Scripted


class Balance(Policy):
    """Pushes to the side towards which angle, turn, place and speed, weighted, lean."""

    def act(self, observation: Float[Array, "4"], memory: PyTree, *, key: PRNGKeyArray) -> tuple[Int[Array, ""], PyTree]:
        """Left or right."""
        place, speed, angle, turn = observation
        return (0.1 * place + 0.2 * speed + 2.0 * angle + 0.4 * turn > 0).astype(jnp.int32), memory


def _environment() -> Environment:
    return TimeLimit(CartPole(), HORIZON)


def load(name: str, title: str) -> Scripted:
    """The task."""
    return Scripted(name, title, _environment, Balance, CHOICE_RECIPES, 20_000, {"random": 22.4, "expert": 500.0})
