"""Running statistics of observations, for learners that make their own data."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from policylab import spaces
from policylab.experience import Spec, Window
from policylab.networks.frozen import Normaliser

_LEAST = 1e-3  # added to every deviation, as where statistics come from data


class Seen(eqx.Module):
    """Mean and variance of all flattened observations so far, and how many they were."""

    count: Float[Array, ""]
    mean: Float[Array, " size"]
    variance: Float[Array, " size"]
    space: spaces.Space = eqx.field(static=True)

    @staticmethod
    def nothing(spec: Spec) -> Seen:
        """Before the first observation."""
        size = spaces.size(spec.observation)
        return Seen(jnp.zeros(()), jnp.zeros(size), jnp.ones(size), spec.observation)

    def with_more(self, batch: Window) -> Seen:
        """With the valid observations of a batch [..., time], merged as Chan, Golub and LeVeque 1979 do."""
        valid = batch.valid.reshape(-1)
        rows = jax.tree.map(lambda leaf: leaf.reshape(valid.shape[0], *leaf.shape[batch.valid.ndim :]), batch.observation)
        flat = jax.vmap(lambda one: spaces.flatten(self.space, one))(rows)
        added = jnp.sum(valid)
        share = lambda rows: jnp.sum(jnp.where(valid[:, None], rows, 0.0), axis=0) / jnp.maximum(added, 1)
        mean = share(flat)
        variance, change, total = share((flat - mean) ** 2), mean - self.mean, jnp.maximum(self.count + added, 1.0)
        both = (self.count * self.variance + added * variance) / total + change**2 * self.count * added / total**2
        return Seen(self.count + added, self.mean + change * added / total, both, self.space)

    def within(self, model: PyTree) -> PyTree:
        """`model` with these numbers in all its normalisers of observations; choices, which are one-hot, stay as they are."""
        if isinstance(self.space, spaces.Discrete):
            return model
        own = Normaliser(self.mean, jnp.sqrt(self.variance) + _LEAST)
        fits = lambda node: isinstance(node, Normaliser) and node.mean.shape == self.mean.shape
        return jax.tree.map(lambda node: own if fits(node) else node, model, is_leaf=lambda node: isinstance(node, Normaliser))
