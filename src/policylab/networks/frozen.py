"""What travels inside a network without being trained: normalisation and other constants."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from policylab import spaces
from policylab.experience import Spec, Statistics


class Frozen(eqx.Module):
    """A marker: arrays below a Frozen node are carried and saved but never receive an update."""


class Normaliser(Frozen):
    """x -> (x - mean) / std, with the statistics of the data it was built from."""

    mean: Float[Array, " size"]
    std: Float[Array, " size"]

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " size"]:
        """The normalised vector."""
        return (x - self.mean) / self.std


class Scaler(Frozen):
    """Between environment units and the unit in which networks act: `centre + half_range * u`, u in [-1, 1] where bounded."""

    centre: Float[Array, " size"]
    half_range: Float[Array, " size"]

    def to_environment(self, u: Float[Array, " size"]) -> Float[Array, " size"]:
        """From network units to environment units."""
        return self.centre + self.half_range * u

    def to_unit(self, x: Float[Array, " size"]) -> Float[Array, " size"]:
        """From environment units to network units."""
        return (x - self.centre) / self.half_range


def observation_normaliser(spec: Spec, *, enabled: bool = True, epsilon: float = 1e-3) -> Normaliser:
    """A normaliser of flattened observations; the identity when not `enabled`, without statistics, or for one-hot choices."""
    width = spaces.size(spec.observation)
    known = spec.statistics.get("observation")
    if not enabled or known is None or isinstance(spec.observation, spaces.Discrete):
        return Normaliser(jnp.zeros(width), jnp.ones(width))
    return Normaliser(known.mean, known.std + epsilon)


def action_scaler(space: spaces.Box, statistics: Statistics | None) -> Scaler:
    """From the bounds of the action space; from the range seen in the data where a dimension is unbounded."""
    low, high = (jnp.asarray(bound).reshape(-1) for bound in space.bounds())
    if statistics is not None:
        low = jnp.where(jnp.isfinite(low), low, statistics.low)
        high = jnp.where(jnp.isfinite(high), high, statistics.high)
    low, high = jnp.where(jnp.isfinite(low), low, -1.0), jnp.where(jnp.isfinite(high), high, 1.0)
    half_range = (high - low) / 2
    return Scaler((high + low) / 2, jnp.where(half_range > 0, half_range, 1.0))


def trainable(model: PyTree) -> PyTree:
    """A tree of booleans: True at the float arrays of `model` that are not below a Frozen node."""

    def mark(node: PyTree) -> PyTree:
        return jax.tree.map(lambda _: False, node) if isinstance(node, Frozen) else eqx.is_inexact_array(node)

    return jax.tree.map(mark, model, is_leaf=lambda node: isinstance(node, Frozen))
