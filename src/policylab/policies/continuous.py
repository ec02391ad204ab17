"""What forms over continuous actions share: the check of the action space and the normal density."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec


def box_of(spec: Spec, form: str) -> spaces.Box:
    """The action space of `spec` if it is a Box; otherwise one sentence on which form to choose instead."""
    if isinstance(spec.action, spaces.Box):
        return spec.action
    instead = "Categorical" if isinstance(spec.action, spaces.Discrete) else "Product, with one form per part"
    raise BadInput(f"the form {form} is for continuous actions but these are {spaces.describe(spec.action)}: use {instead}")


def normal_log_density(
    x: Float[Array, " size"], mean: Float[Array, " size"], log_std: Float[Array, " size"]
) -> Float[Array, " size"]:
    """Log-density of independent normals, one term per dimension, in nats."""
    return -0.5 * ((x - mean) * jnp.exp(-log_std)) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
