"""Pendulum swing-up: Gymnasium's Pendulum-v1, as a compiled environment, and an energy-shaping pilot."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.environment import Environment
from policylab.environments.pendulum import GRAVITY, HORIZON, LARGEST_TORQUE, LENGTH, MASS, Pendulum
from policylab.environments.time_limit import TimeLimit
from policylab.policy import Policy
from policylab.tasks.scripted import RECIPES, Scripted


class SwingUp(Policy):
    """Pumps energy until the pole can rise, then holds it with a linear controller (Astrom and Furuta 2000, "Swinging up a
    pendulum by energy control")."""

    def act(self, observation: Float[Array, "3"], memory: PyTree, *, key: PRNGKeyArray) -> tuple[Float[Array, "1"], PyTree]:
        """The torque in Nm."""
        cosine, sine, speed = observation
        # Twice the energy per moment of inertia (m l^2 / 3), 0 for the upright pole at rest.
        energy = 0.5 * speed**2 + 1.5 * GRAVITY / LENGTH * (cosine - 1.0)
        pump = -energy * jnp.sign(speed) * MASS * LENGTH**2
        hold = -(12.0 * jnp.arctan2(sine, cosine) + 3.0 * speed)
        torque = jnp.where(cosine > 0.85, hold, pump)
        return jnp.clip(torque, -LARGEST_TORQUE, LARGEST_TORQUE)[None], memory


def _environment() -> Environment:
    return TimeLimit(Pendulum(), HORIZON)


def load(name: str, title: str) -> Scripted:
    """The task."""
    return Scripted(name, title, _environment, SwingUp, RECIPES, 20_000, {"random": -1221.1, "expert": -147.4})
