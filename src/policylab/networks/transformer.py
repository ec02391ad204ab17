"""A causal transformer over vectors, its layers held in one stack of arrays (Vaswani et al. 2017, arXiv 1706.03762)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from policylab.errors import BadInput

_SPREAD = 0.02  # standard deviation of fresh weights, as GPT-2's


class RMSNorm(eqx.Module):
    """x / sqrt(mean(x^2) + 1e-6) * scale (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    scale: Float[Array, "*layer width"]

    def __call__(self, x: Float[Array, "*time width"]) -> Float[Array, "*time width"]:
        """Along the last axis."""
        return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6) * self.scale


def rotated(x: Float[Array, "time head size"], position: Int[Array, " time"], base: float) -> Float[Array, "time head size"]:
    """Rotary positions: the pairs (x_i, x_{i + size/2}) turned by position * base^(-2i / size) (Su et al. 2021, arXiv 2104.09864)."""
    half = x.shape[-1] // 2
    angle = position[:, None, None] * base ** (-jnp.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


class Block(eqx.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)), where feed_forward(x) = (silu(x W_gate) * x W_up) W_down (SwiGLU,
    Shazeer 2020, arXiv 2002.05202). Groups of heads share keys and values (Ainslie et al. 2023, arXiv 2305.13245)."""

    attention_norm: RMSNorm
    query: Float[Array, "*layer width head size"]
    key: Float[Array, "*layer width group size"]
    value: Float[Array, "*layer width group size"]
    out: Float[Array, "*layer head size width"]
    forward_norm: RMSNorm
    gate: Float[Array, "*layer width hidden"]
    up: Float[Array, "*layer width hidden"]
    down: Float[Array, "*layer hidden width"]

    def __call__(
        self, x: Float[Array, "time width"], position: Int[Array, " time"], seen: Bool[Array, "time time"], base: float
    ) -> Float[Array, "time width"]:
        """One layer; `seen[t, u]` says whether t looks at u."""
        normed = self.attention_norm(x)
        query = rotated(jnp.einsum("tw,whs->ths", normed, self.query), position, base)
        key = rotated(jnp.einsum("tw,wgs->tgs", normed, self.key), position, base)
        value = jnp.einsum("tw,wgs->tgs", normed, self.value)
        mixed = jax.nn.dot_product_attention(query, key, value, mask=seen[None])
        x = x + jnp.einsum("ths,hsw->tw", mixed, self.out)
        normed = self.forward_norm(x)
        return x + (jax.nn.silu(normed @ self.gate) * (normed @ self.up)) @ self.down


class Transformer(eqx.Module):
    """`layers` blocks and a last norm, from vectors to vectors. A place looks at itself and at the valid places before it."""

    blocks: Block
    norm: RMSNorm
    base: float = eqx.field(static=True)

    def __init__(
        self,
        width: int,
        *,
        layers: int,
        heads: int,
        groups: int = 0,
        hidden: int = 0,
        base: float = 10_000.0,
        key: PRNGKeyArray,
    ):
        """`groups` heads of keys and values (0: one for each head), `hidden` units in the feed-forward part (0: 8/3 of the width).

        Raises `BadInput` where `width` is no even multiple of `heads`, or `heads` no multiple of `groups`.
        """
        groups, hidden = groups or heads, hidden or round(8 * width / 3)
        if width % (2 * heads) or heads % groups:
            raise BadInput(
                f"a transformer of width {width} with {heads} heads in {groups} groups cannot be: make the width a multiple of twice "
                "the heads, and the heads one of the groups"
            )
        size = width // heads
        shapes = {
            "query": (width, heads, size), "key": (width, groups, size), "value": (width, groups, size), "out": (heads, size, width),
            "gate": (width, hidden), "up": (width, hidden), "down": (hidden, width),
        }  # fmt: skip
        keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
        # What is added to the stream is smaller the more layers add to it, so that its size does not grow with them.
        spread = {name: _SPREAD / (2 * layers) ** 0.5 if name in ("out", "down") else _SPREAD for name in shapes}
        drawn = {name: spread[name] * jax.random.normal(keys[name], (layers, *shape)) for name, shape in shapes.items()}
        ones = jnp.ones((layers, width))
        self.blocks = Block(attention_norm=RMSNorm(ones), forward_norm=RMSNorm(ones), **drawn)
        self.norm, self.base = RMSNorm(jnp.ones(width)), base

    def __call__(
        self, x: Float[Array, "time width"], valid: Bool[Array, " time"], position: Int[Array, " time"] | None = None
    ) -> Float[Array, "time width"]:
        """Every place's vector after the last layer; what stands at places that are not `valid` has no influence on others."""
        position = jnp.arange(x.shape[0]) if position is None else position
        here = jnp.arange(x.shape[0])
        seen = (here[:, None] >= here) & (valid[None, :] | (here[:, None] == here))
        x, _ = jax.lax.scan(lambda x, block: (block(x, position, seen, self.base), None), x, self.blocks)
        return self.norm(x)
