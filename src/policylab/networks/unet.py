"""A one-dimensional U-Net over steps that is told a condition at every block (Chi et al. 2023, "Diffusion Policy", arXiv 2303.04137).

Convolutions are sums of matrix products, weight times steps: on a processor that is several times as fast as a convolution of few steps,
and since weights stand on the left and steps in columns, none of the products that gradients need turns a weight over.
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
from policylab.networks.mlp import MLP


def mish(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x tanh(softplus(x)) (Misra 2019, arXiv 1908.08681), with one exponential: tanh(log(1 + e)) = (e^2 + 2 e) / (e^2 + 2 e + 2)."""
    e = jnp.exp(jnp.minimum(x, 20.0))
    odd = e * (e + 2.0)
    return x * odd / (odd + 2.0)


def summed(
    weights: Sequence[Float[Array, "output input"]], x: Float[Array, "input time"], *, before: int, stride: int = 1
) -> Float[Array, "output out"]:
    """The sum over i of weights[i] x[:, stride t + i - before], at every `stride`-th step t. Steps outside are zeros, with which nothing is
    multiplied: of a kernel of 5 over 4 steps that is a third."""
    steps, count, total = x.shape[1], x.shape[1] // stride, 0.0
    for i, weight in enumerate(weights):
        offset = i - before
        first, end = max(0, -(offset // stride)), min(count, (steps - 1 - offset) // stride + 1)
        if first < end:
            part = weight @ x[:, stride * first + offset : stride * (end - 1) + offset + 1 : stride]
            total = total + jnp.pad(part, ((0, 0), (first, count - end)))
    return jnp.asarray(total)


class Convolution(eqx.Module):
    """A weighted sum over windows of `kernel` steps, with a matrix for each step of the window; `stride` 2 halves the steps."""

    weights: tuple[Float[Array, "output input"], ...]
    bias: Float[Array, " output"]
    stride: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, key: PRNGKeyArray):
        """Uniform in +-1/sqrt(kernel * inputs), PyTorch's default."""
        size = outputs * inputs
        unit = jax.random.uniform(key, (kernel * size + outputs,), minval=-1.0, maxval=1.0) / math.sqrt(kernel * inputs)
        *weights, self.bias = jnp.split(unit, [size * i for i in range(1, kernel + 1)])
        self.weights, self.stride = tuple(weight.reshape(outputs, inputs) for weight in weights), stride

    def __call__(self, x: Float[Array, "input time"]) -> Float[Array, "output out"]:
        """As many steps, or half of them."""
        return summed(self.weights, x, before=len(self.weights) // 2, stride=self.stride) + self.bias[:, None]


class Doubling(eqx.Module):
    """A transposed convolution of kernel 4 and stride 2: each new step is a sum over the two old ones that are nearest."""

    even: Convolution
    odd: Convolution

    def __init__(self, channels: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key)
        self.even, self.odd = (Convolution(channels, channels, 2, key=k) for k in keys)

    def __call__(self, x: Float[Array, "channel time"]) -> Float[Array, "channel twice"]:
        """Twice the steps."""
        even, odd = (summed(half.weights, x, before=b) + half.bias[:, None] for b, half in ((1, self.even), (0, self.odd)))
        return jnp.stack([even, odd], axis=2).reshape(len(x), -1)


class Block(eqx.Module):
    """Convolution, group norm (Wu and He 2018, arXiv 1803.08494; over all steps of a group of channels, epsilon 1e-5), Mish."""

    convolution: Convolution
    scale: Float[Array, " channel"]
    shift: Float[Array, " channel"]
    groups: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int, *, key: PRNGKeyArray):
        self.convolution = Convolution(inputs, outputs, kernel, key=key)
        self.scale, self.shift, self.groups = jnp.ones(outputs), jnp.zeros(outputs), groups

    def __call__(self, x: Float[Array, "input time"]) -> Float[Array, "output time"]:
        """As many steps."""
        x = self.convolution(x)
        grouped = x.reshape(self.groups, -1)
        centred = grouped - grouped.mean(1, keepdims=True)
        normed = centred * jax.lax.rsqrt(jnp.mean(centred**2, 1, keepdims=True) + 1e-5)
        return mish(normed.reshape(x.shape) * self.scale[:, None] + self.shift[:, None])


class Residual(eqx.Module):
    """x + second(a(condition) first(x) + b(condition)): the condition scales and shifts every channel (FiLM, Perez et al. 2017)."""

    first: Block
    second: Block
    film: Convolution
    past: Convolution | None

    def __init__(self, inputs: int, outputs: int, condition: int, kernel: int, groups: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 4)
        self.first = Block(inputs, outputs, kernel, groups, key=keys[0])
        self.second = Block(outputs, outputs, kernel, groups, key=keys[1])
        self.film = Convolution(condition, 2 * outputs, key=keys[2])
        self.past = None if inputs == outputs else Convolution(inputs, outputs, key=keys[3])

    def __call__(self, x: Float[Array, "input time"], told: Float[Array, "condition 1"]) -> Float[Array, "output time"]:
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
    out: Convolution
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
        self.out = Convolution(widths[0], channels, key=next(keys))
        self.steps, self.channels, self.condition = steps, channels, condition

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        """One sample."""
        condition, x, level = jnp.split(x, [self.condition, self.condition + self.steps * self.channels])
        told = mish(jnp.concatenate([self.level(level), condition]))[:, None]
        x, kept = x.reshape(self.steps, self.channels).T, []
        for i, (first, second) in enumerate(self.down):
            x = second(first(x, told), told)
            kept.append(x)
            x = self.halve[i](x) if i < len(self.halve) else x
        for block in self.middle:
            x = block(x, told)
        for (first, second), double in zip(self.up, self.double, strict=True):
            x = double(second(first(jnp.concatenate([x, kept.pop()]), told), told))
        return self.out(self.last(x)).T.reshape(-1)


def parameters(network: eqx.Module) -> int:
    """How many numbers are learned."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array)))
