"""Multilayer perceptrons, alone or as an ensemble held in one stack of arrays."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

_ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "gelu": jax.nn.gelu, "silu": jax.nn.silu, "elu": jax.nn.elu}


class Linear(eqx.Module):
    """x @ weight + bias, uniform in +-1/sqrt(inputs) at the start (PyTorch's default, which published settings assume)."""

    weight: Float[Array, "*members input output"]
    bias: Float[Array, "*members output"]

    @staticmethod
    def of(unit: Float[Array, " number"], inputs: int, outputs: int) -> Linear:
        """From (inputs + 1) * outputs numbers that are uniform in [-1, 1)."""
        scaled = unit.reshape(inputs + 1, outputs) / math.sqrt(max(inputs, 1))
        return Linear(scaled[:-1], scaled[-1])

    def __call__(self, x: Float[Array, "*rows input"]) -> Float[Array, "*rows output"]:
        """Along the last axis."""
        return x @ self.weight + self.bias


class LayerNorm(eqx.Module):
    """Normalise a feature vector to mean 0 and variance 1, then scale and shift (epsilon 1e-5)."""

    scale: Float[Array, "*members size"]
    shift: Float[Array, "*members size"]

    def __init__(self, size: int):
        self.scale, self.shift = jnp.ones(size), jnp.zeros(size)

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " size"]:
        """One sample."""
        return (x - x.mean()) * jax.lax.rsqrt(x.var() + 1e-5) * self.scale + self.shift


class MLP(eqx.Module):
    """`depth` hidden layers of `width`, each linear, optional layer norm, activation; then a linear output."""

    layers: tuple[Linear, ...]
    norms: tuple[LayerNorm, ...]
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int = 256,
        depth: int = 2,
        activation: str = "relu",
        layer_norm: bool = False,
        key: PRNGKeyArray,
    ):
        sizes = list(itertools.pairwise([inputs, *[width] * depth, outputs]))
        ends = list(itertools.accumulate((a + 1) * b for a, b in sizes))
        # One draw for all layers: a draw each takes longer to compile than the rest of a small learner.
        unit = jnp.split(jax.random.uniform(key, (ends[-1],), minval=-1.0, maxval=1.0), ends[:-1])
        self.layers = tuple(Linear.of(part, a, b) for part, (a, b) in zip(unit, sizes, strict=True))
        self.norms = tuple(LayerNorm(width) for _ in range(depth)) if layer_norm else ()
        self.activation = activation

    def hidden(self, x: Float[Array, " input"]) -> Float[Array, " width"]:
        """The last hidden layer's output."""
        for i, layer in enumerate(self.layers[:-1]):
            x = layer(x)
            x = self.norms[i](x) if self.norms else x
            x = _ACTIVATIONS[self.activation](x)
        return x

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        """One sample."""
        return self.layers[-1](self.hidden(x))


class Ensemble(eqx.Module):
    """Networks of one shape, held as one whose every array has a leading `members` axis."""

    members: Any

    @staticmethod
    def of(build: Callable[[PRNGKeyArray], Any], count: int, *, key: PRNGKeyArray) -> Ensemble:
        """`count` networks from `build(key)`."""
        return Ensemble(eqx.filter_vmap(build)(jax.random.split(key, count)))

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, "members output"]:
        """Every member's output for one sample."""
        return eqx.filter_vmap(lambda member: member(x))(self.members)
