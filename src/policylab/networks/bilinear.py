"""Bilinear transduction: a network of an anchor and the difference to it (Netanyahu et al. 2023, arXiv 2304.14329)."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from policylab import spaces
from policylab.networks.mlp import MLP


@dataclass(frozen=True)
class AnchoredSpace(spaces.Composite):
    """An observation that was taken apart into `anchor` and `delta` = observation - anchor; networks read it bilinearly.

    `rank` is the length of the two vectors whose inner product makes one feature.
    """

    rank: int = 32


def anchored(space: spaces.Space, *, rank: int) -> AnchoredSpace:
    """The space of (anchor, delta) for observations of `space`."""
    size = spaces.size(space)
    return AnchoredSpace((("anchor", spaces.Box((size,))), ("delta", spaces.Box((size,)))), rank)


class Bilinear(eqx.Module):
    """feature_t = <f_t(delta, rest), g_t(anchor, rest)>, t = 1 ... `width`, then one hidden layer and a linear output.

    The input is anchor, delta and what else there is (an action), joined; f and g are perceptrons of `depth` hidden layers whose
    `width * rank` outputs are read as `width` vectors. An unseen state can so be composed of a seen anchor and a seen difference.
    """

    of_delta: MLP
    of_anchor: MLP
    head: MLP
    size: int = eqx.field(static=True)
    rank: int = eqx.field(static=True)

    def __init__(
        self, size: int, rest: int, outputs: int, *, rank: int, width: int, depth: int, activation: str, layer_norm: bool,
        key: PRNGKeyArray,
    ):  # fmt: skip
        delta_key, anchor_key, head_key = jax.random.split(key, 3)
        half = lambda k: MLP(
            size + rest, width * rank, width=width, depth=depth, activation=activation, layer_norm=layer_norm, key=k
        )
        self.of_delta, self.of_anchor = half(delta_key), half(anchor_key)
        self.head = MLP(width, outputs, width=width, depth=1, activation=activation, layer_norm=layer_norm, key=head_key)
        self.size, self.rank = size, rank

    def composed(self, x: Float[Array, " input"]) -> Float[Array, " width"]:
        """The inner products."""
        anchor, delta, rest = x[: self.size], x[self.size : 2 * self.size], x[2 * self.size :]
        f = self.of_delta(jnp.concatenate([delta, rest])).reshape(-1, self.rank)
        g = self.of_anchor(jnp.concatenate([anchor, rest])).reshape(-1, self.rank)
        return jnp.sum(f * g, axis=-1)

    def hidden(self, x: Float[Array, " input"]) -> Float[Array, " width"]:
        """The last hidden layer's output."""
        return self.head.hidden(self.composed(x))

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        """One sample."""
        return self.head(self.composed(x))
