"""What policies that make actions from noise share: how the network is told the level, the way to an action, and the mode."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.networks.frozen import Scaler
from policylab.policy import Policy

EMBEDDING = 16  # numbers that tell the network the level


def embed(level: Float[Array, ""]) -> Float[Array, " size"]:
    """Sines and cosines of the level, a number of the size of 1, at geometric frequencies from 0.5 to 16."""
    angle = level * jnp.geomspace(0.5, 16.0, EMBEDDING // 2)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)])


def action_of(space: spaces.Box, scaler: Scaler, unit: Float[Array, " action"]) -> PyTree:
    """The action in environment units from units of half its range, cut to the bounds where there are some."""
    return spaces.unflatten(space, scaler.to_environment(jnp.clip(unit, -1.0, 1.0) if space.bounded else unit))


class FromNoNoise(Policy):
    """A generative policy without randomness: one of the likely actions, where there are several a compromise."""

    generative: Any  # a policy with `noise_space` and `decode`

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """`decode` of noise 0; the key is not used."""
        return self.generative.decode(observation, jnp.zeros(self.generative.noise_space.shape)), memory
