"""Rotary positions (Su et al. 2021, arXiv 2104.09864), with the stretched frequencies of Llama 3.1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@dataclass(frozen=True)
class Stretch:
    """Llama 3.1's way to a longer context: waves longer than `original / low` are slowed down by `factor`, those shorter than
    `original / high` are kept, and between the two one goes over into the other."""

    factor: float
    low: float
    high: float
    original: int


def frequencies(size: int, base: float, stretch: Stretch | None = None) -> np.ndarray:
    """base^(-2i / size) for i < size / 2, in radians per place, as float32."""
    plain = (1.0 / base ** (np.arange(0, size, 2, dtype=np.float32) / np.float32(size))).astype(np.float32)
    if stretch is None:
        return plain
    wave = 2 * math.pi / plain
    blend = (stretch.original / wave - stretch.low) / (stretch.high - stretch.low)
    mixed = (1 - blend) * plain / stretch.factor + blend * plain
    slowed = np.where(wave > stretch.original / stretch.low, plain / stretch.factor, plain)
    between = (wave <= stretch.original / stretch.low) & (wave >= stretch.original / stretch.high)
    return np.where(between, mixed, slowed).astype(np.float32)


def turns(position: Int[Array, "*batch time"], frequency: np.ndarray) -> tuple[Array, Array]:
    """Cosine and sine of every place's angles, [*batch, time, 1, size / 2] (the axis of length 1 is that of the heads)."""
    angle = position[..., None].astype(jnp.float32) * frequency
    return jnp.cos(angle)[..., None, :], jnp.sin(angle)[..., None, :]


def turned(x: Float[Array, "*batch time head size"], turn: tuple[Array, Array]) -> Float[Array, "*batch time head size"]:
    """The pairs (x_i, x_{i + size/2}) turned by the angles of their place."""
    cosine, sine = turn
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1).astype(x.dtype)
