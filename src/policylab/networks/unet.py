"""A one-dimensional U-Net over steps that is told a condition at every block (Chi et al. 2023, "Diffusion Policy", arXiv 2303.04137).

Convolutions are matrix products over windows of steps: on a processor that is several times as fast as a convolution of few steps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from policylab.errors import BadInput
from policylab.networks.mlp import MLP, Linear


def mish(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x tanh(softplus(x)) (Misra 2019, arXiv 1908.08681), with one exponential: tanh(log(1 + e)) = (e^2 + 2 e) / (e^2 + 2 e + 2)."""
    e = jnp.exp(jnp.minimum(x, 20.0))
    odd = e * (e + 2.0)
    return x * odd / (odd + 2.0)


def linear(inputs: int, outputs: int, *, key: PRNGKeyArray) -> Linear:
    """A fresh layer."""
    return Linear.of(jax.random.uniform(key, ((inputs + 1) * outputs,), minval=-1.0, maxval=1.0), inputs, outputs)


def stacked(
    x: Float[Array, "time channel"], kernel: int, *, before: int, after: int, stride: int = 1
) -> Float[Array, "out all"]:
    """Every `stride`-th window of `kernel` steps, its channels side by side; zeros stand `before` the first step and `after` the last."""
    padded = jnp.pad(x, ((before, after), (0, 0)))
    count = (padded.shape[0] - kernel) // stride + 1
    return jnp.concatenate([padded[i : i + (count - 1) * stride + 1 : stride] for i in range(kernel)], axis=1)


class Convolution(eqx.Module):
    """x * weight + bias over windows of `kernel` steps; `stride` 2 halves the steps."""

    line: Linear
    kernel: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, key: PRNGKeyArray):
        self.line, self.kernel, self.stride = linear(kernel * inputs, outputs, key=key), kernel, stride

    def __call__(self, x: Float[Array, "time input"]) -> Float[Array, "out output"]:
        """As many steps, or half of them."""
        side = self.kernel // 2
        return self.line(stacked(x, self.kernel, before=side, after=side, stride=self.stride))


class Doubling(eqx.Module):
    """A transposed convolution of kernel 4 and stride 2: each new step is a sum over the two old ones that are nearest."""

    even: Linear
    odd: Linear

    def __init__(self, channels: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key)
        self.even, self.odd = (linear(2 * channels, channels, key=k) for k in keys)

    def __call__(self, x: Float[Array, "time channel"]) -> Float[Array, "twice channel"]:
        """Twice the steps."""
        even, odd = self.even(stacked(x, 2, before=1, after=0)[: len(x)]), self.odd(stacked(x, 2, before=0, after=1))
        return jnp.stack([even, odd], axis=1).reshape(2 * len(x), -1)


class Block(eqx.Module):
    """Convolution, group norm (Wu and He 2018, arXiv 1803.08494; over all steps of a group of channels, epsilon 1e-5), Mish."""

    convolution: Convolution
    scale: Float[Array, " channel"]
    shift: Float[Array, " channel"]
    groups: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int, *, key: PRNGKeyArray):
        self.convolution = Convolution(inputs, outputs, kernel, key=key)
        self.scale, self.shift, self.groups = jnp.ones(outputs), jnp.zeros(outputs), groups

    def __call__(self, x: Float[Array, "time input"]) -> Float[Array, "time output"]:
        """As many steps."""
        x = self.convolution(x)
        grouped = x.reshape(len(x), self.groups, -1)
        mean = grouped.mean((0, 2), keepdims=True)
        spread = jax.lax.rsqrt(jnp.mean((grouped - mean) ** 2, (0, 2), keepdims=True) + 1e-5)
        return mish(((grouped - mean) * spread).reshape(x.shape) * self.scale + self.shift)


class Residual(eqx.Module):
    """x + second(a(condition) first(x) + b(condition)): the condition scales and shifts every channel (FiLM, Perez et al. 2017)."""

    first: Block
    second: Block
    film: Linear
    past: Linear | None

    def __init__(self, inputs: int, outputs: int, condition: int, kernel: int, groups: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 4)
        self.first = Block(inputs, outputs, kernel, groups, key=keys[0])
        self.second = Block(outputs, outputs, kernel, groups, key=keys[1])
        self.film = linear(condition, 2 * outputs, key=keys[2])
        self.past = None if inputs == outputs else linear(inputs, outputs, key=keys[3])

    def __call__(self, x: Float[Array, "time input"], told: Float[Array, " condition"]) -> Float[Array, "time output"]:
        """As many steps; `told` is the condition after an activation."""
        scale, shift = jnp.split(self.film(told), 2)
        return self.second(scale * self.first(x) + shift) + (x if self.past is None else self.past(x))


class UNet(eqx.Module):
    """From `condition`, a sequence of `steps` x `channels` and `level`, all in one vector, to a sequence of the same size.

    Two residual blocks per width on the way down, with the steps halved in between, two in the middle, two per width on the way up,
    which also see what the way down had at that width.
    """

    level: MLP
    down: tuple[tuple[Residual, Residual], ...]
    halve: tuple[Convolution, ...]
    middle: tuple[Residual, Residual]
    up: tuple[tuple[Residual, Residual], ...]
    double: tuple[Doubling, ...]
    last: Block
    out: Linear
    steps: int = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    condition: int = eqx.field(static=True)

    def __init__(
        self, condition: int, steps: int, channels: int, level: int, *, widths: Sequence[int], kernel: int, groups: int,
        embedding: int, key: PRNGKeyArray,
    ):  # fmt: skip
        """`level` numbers say the noise level; `embedding` is how many the blocks are told of it. Raises `BadInput` for sizes that do not go
        together."""
        halvings = len(widths) - 1
        if not widths or kernel % 2 == 0 or any(width % groups for width in widths) or steps % 2**halvings:
            raise BadInput(
                f"a U-Net of widths {tuple(widths)}, kernel {kernel} and {groups} groups over {steps} steps cannot be: the kernel must be "
                f"odd, each width a multiple of the groups, and the steps a multiple of {2**halvings}, since every width but the last halves them"
            )
        keys = iter(jax.random.split(key, 6 * len(widths) + 5))
        told = embedding + condition
        residual = lambda inputs, outputs: Residual(inputs, outputs, told, kernel, groups, key=next(keys))
        self.level = MLP(level, embedding, width=4 * embedding, depth=1, activation="silu", key=next(keys))
        pairs = list(itertools.pairwise([channels, *widths]))
        self.down = tuple((residual(a, b), residual(b, b)) for a, b in pairs)
        self.halve = tuple(Convolution(width, width, 3, stride=2, key=next(keys)) for width in widths[:-1])
        self.middle = (residual(widths[-1], widths[-1]), residual(widths[-1], widths[-1]))
        self.up = tuple((residual(2 * b, a), residual(a, a)) for a, b in reversed(pairs[1:]))
        self.double = tuple(Doubling(a, key=next(keys)) for a, _ in reversed(pairs[1:]))
        self.last = Block(widths[0], widths[0], kernel, groups, key=next(keys))
        self.out = linear(widths[0], channels, key=next(keys))
        self.steps, self.channels, self.condition = steps, channels, condition

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        """One sample."""
        condition, x, level = jnp.split(x, [self.condition, self.condition + self.steps * self.channels])
        told = mish(jnp.concatenate([self.level(level), condition]))
        x, kept = x.reshape(self.steps, self.channels), []
        for i, (first, second) in enumerate(self.down):
            x = second(first(x, told), told)
            kept.append(x)
            x = self.halve[i](x) if i < len(self.halve) else x
        for block in self.middle:
            x = block(x, told)
        for (first, second), double in zip(self.up, self.double, strict=True):
            x = double(second(first(jnp.concatenate([x, kept.pop()], axis=1), told), told))
        return self.out(self.last(x)).reshape(-1)


def parameters(network: eqx.Module) -> int:
    """How many numbers are learned."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array)))
