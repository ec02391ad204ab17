"""Encoders of histories: one attention layer over the steps so far, and attention pooling."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from policylab.networks.mlp import MLP, LayerNorm, Linear


class HistoryEncoder(eqx.Module):
    """Rows of a history -> one vector. Tokens are projected with their place in time, attend to each other, and are pooled with weights
    that a learned query gives them; rows that are not `seen` take no part."""

    token: MLP
    place: Float[Array, "time width"]
    attention: Linear
    norm: LayerNorm
    after: MLP
    query: Float[Array, " width"]
    head: Linear

    def __init__(self, inputs: int, outputs: int, *, length: int, width: int, key: PRNGKeyArray):
        keys = jax.random.split(key, 6)
        layer = lambda k, a, b: MLP(a, b, width=width, depth=0, key=k).layers[0]
        self.token = MLP(inputs, width, width=width, depth=1, activation="gelu", key=keys[0])
        self.place = 0.1 * jax.random.normal(keys[1], (length, width))
        self.attention = layer(keys[2], width, 3 * width)
        self.norm = LayerNorm(width)
        self.after = MLP(width, width, width=width, depth=1, activation="gelu", key=keys[3])
        self.query = jax.random.normal(keys[4], (width,)) * width**-0.5
        self.head = layer(keys[5], width, outputs)

    def __call__(self, rows: Float[Array, "time input"], seen: Float[Array, " time"]) -> Float[Array, " output"]:
        """One history; at least one row must be seen."""
        x = jax.vmap(self.token)(rows) + self.place
        scale = x.shape[1] ** -0.5
        asks, keys, values = jnp.split(jax.vmap(self.attention)(x), 3, axis=1)
        hidden = jnp.where(seen > 0, 0.0, -1e9)
        x = x + jax.nn.softmax(asks @ keys.T * scale + hidden) @ values
        x = x + jax.vmap(lambda row: self.after(self.norm(row)))(x)
        return self.head(jax.nn.softmax(x @ self.query * scale + hidden) @ x)
