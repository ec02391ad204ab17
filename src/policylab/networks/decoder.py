"""A decoder-only transformer over token ids; its settings cover GPT-2, Llama 3, Qwen2 and Qwen3.

Layers are one stack of arrays, run by a scan, so that a deep network compiles as quickly as a shallow one. Padding has no influence:
a place looks only at valid places at or before it, and its position counts the valid places alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from policylab.errors import BadInput
from policylab.networks.rotary import Stretch, frequencies, turned, turns

_SPREAD = 0.02  # standard deviation of fresh weights, as GPT-2's


@dataclass(frozen=True)
class Architecture:
    """What a decoder looks like. `groups` heads of keys and values serve `heads` of queries; `hidden` units in the feed-forward part.

    GPT-2: positions "learned", norm "layer", forward "gelu", all biases, tied. Llama 3: the defaults with `stretch`. Qwen2: biases on
    query, key and value (`attention_bias`). Qwen3: `head_norm`, an RMSNorm on every head's query and key. `dtype` is that of the
    parameters and activations; norms, softmax and logits are float32 always. `checkpointing` computes a layer's inner values anew in
    the backward pass instead of keeping them.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    groups: int
    size: int
    hidden: int
    context: int
    positions: Literal["rotary", "learned"] = "rotary"
    norm: Literal["rms", "layer"] = "rms"
    forward: Literal["swiglu", "gelu"] = "swiglu"
    attention_bias: bool = False
    bias: bool = False
    head_norm: bool = False
    tied: bool = True
    epsilon: float = 1e-6
    base: float = 10_000.0
    stretch: Stretch | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    checkpointing: bool = False

    def __post_init__(self) -> None:
        """Raises `BadInput` for numbers that do not go together."""
        if min(self.vocabulary, self.width, self.layers, self.heads, self.groups, self.size, self.hidden, self.context) < 1:
            raise BadInput(f"a decoder needs at least one of everything, but this one has {self}")
        if self.heads % self.groups or (self.positions == "rotary" and self.size % 2):
            raise BadInput(
                f"a decoder with {self.heads} heads of size {self.size} in {self.groups} groups cannot be: make the heads a multiple "
                "of the groups, and the size even where positions are rotary"
            )


class Adapter(eqx.Module):
    """A change of low rank to a matrix: x -> scale * (x down) up (LoRA, Hu et al. 2021, arXiv 2106.09685)."""

    down: Float[Array, "*layer input rank"]
    up: Float[Array, "*layer rank output"]
    scale: float = eqx.field(static=True)


class Linear(eqx.Module):
    """x -> x weight + bias, with an adapter's change where there is one."""

    weight: Float[Array, "*layer input output"]
    bias: Float[Array, "*layer output"] | None = None
    adapter: Adapter | None = None

    def __call__(self, x: Float[Array, "*batch input"]) -> Float[Array, "*batch output"]:
        """Along the last axis."""
        y = x @ self.weight
        if self.adapter is not None:
            y = y + ((x @ self.adapter.down) @ self.adapter.up * self.adapter.scale).astype(y.dtype)
        return y if self.bias is None else y + self.bias


class Norm(eqx.Module):
    """RMSNorm, or LayerNorm where there is a bias, computed in float32."""

    scale: Float[Array, "*layer width"]
    bias: Float[Array, "*layer width"] | None
    epsilon: float = eqx.field(static=True)

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Along the last axis."""
        wide = x.astype(jnp.float32)
        if self.bias is None:
            wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + self.epsilon)
            return self.scale * wide.astype(x.dtype)
        wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + self.epsilon)
        return (wide * self.scale + self.bias).astype(x.dtype)


class Layer(eqx.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)). Leaves have a leading `layer` axis where they are a stack."""

    attention_norm: Norm
    query: Linear
    key: Linear
    value: Linear
    out: Linear
    query_norm: Norm | None
    key_norm: Norm | None
    forward_norm: Norm
    gate: Linear | None
    up: Linear
    down: Linear
    size: int = eqx.field(static=True)

    def project(
        self, x: Float[Array, "batch time width"], turn: tuple[Array, Array] | None
    ) -> tuple[Float[Array, "batch time head size"], Float[Array, "row time size"], Float[Array, "row time size"]]:
        """Queries, keys and values of every head, turned by their positions; of the last two
        every group of every text is a row."""
        normed = self.attention_norm(x)
        query, key, value = (line(normed).reshape(*x.shape[:2], -1, self.size) for line in (self.query, self.key, self.value))
        query = query if self.query_norm is None else self.query_norm(query)
        key = key if self.key_norm is None else self.key_norm(key)
        query, key = (query, key) if turn is None else (turned(query, turn), turned(key, turn))
        key, value = (part.swapaxes(1, 2).reshape(-1, x.shape[1], self.size) for part in (key, value))
        return query, key, value

    def finish(
        self, x: Float[Array, "batch time width"], mixed: Float[Array, "batch time all_heads"]
    ) -> Float[Array, "batch time width"]:
        """What attention found is added to the stream, then the feed-forward part."""
        x = x + self.out(mixed)
        normed = self.forward_norm(x)
        if self.gate is None:
            return x + self.down(jax.nn.gelu(self.up(normed), approximate=True))
        return x + self.down(jax.nn.silu(self.gate(normed)) * self.up(normed))


def attended(
    query: Float[Array, "batch time head size"],
    key: Float[Array, "row past size"],
    value: Float[Array, "row past size"],
    seen: Bool[Array, "batch time past"],
) -> Float[Array, "batch time all_heads"]:
    """softmax(q k / sqrt(size)) v over the places that are `seen`; heads share the keys and values of their group. A row is a group of one
    text of the batch: products with many batch axes are slow on a processor, and so a cache is read as it lies."""
    batch, time, heads, size = query.shape
    groups, past = key.shape[0] // batch, key.shape[1]
    query = query.reshape(batch, time, groups, heads // groups, size).transpose(0, 2, 3, 1, 4)
    query = query.reshape(batch * groups, -1, size)
    scores = jnp.einsum("bqs,bks->bqk", query, key, preferred_element_type=jnp.float32) * size**-0.5
    scores = jnp.where(seen[:, None], scores.reshape(batch, heads, time, past), -1e30)
    weight = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    mixed = jnp.einsum("bqk,bks->bqs", weight.reshape(batch * groups, -1, past), value)
    return mixed.reshape(batch, heads, time, size).transpose(0, 2, 1, 3).reshape(batch, time, heads * size)


class Decoder(eqx.Module):
    """Ids -> logits of the id that follows each. `head` is None where the embedding serves for it (`tied`)."""

    embedding: Float[Array, "vocabulary width"]
    positions: Float[Array, "context width"] | None
    layers: Layer
    norm: Norm
    head: Linear | None
    architecture: Architecture = eqx.field(static=True)

    def __init__(self, architecture: Architecture, *, key: PRNGKeyArray):
        """Fresh weights: normal with standard deviation 0.02, smaller where a layer adds to the stream."""
        a, keys = architecture, iter(jax.random.split(key, 16))
        draw = lambda *shape, by=1.0: (_SPREAD * by * jax.random.normal(next(keys), shape)).astype(a.dtype)
        zeros = lambda bias, *shape: jnp.zeros(shape, a.dtype) if bias else None
        norm = lambda *shape: Norm(jnp.ones(shape, a.dtype), zeros(a.norm == "layer", *shape), a.epsilon)

        def linear(inputs: int, outputs: int, bias: bool, by: float = 1.0) -> Linear:
            return Linear(draw(a.layers, inputs, outputs, by=by), zeros(bias, a.layers, outputs))

        small, inner, shared = (2 * a.layers) ** -0.5, a.heads * a.size, a.groups * a.size
        self.embedding = draw(a.vocabulary, a.width)
        self.positions = draw(a.context, a.width) if a.positions == "learned" else None
        self.layers = Layer(
            norm(a.layers, a.width),
            linear(a.width, inner, a.bias or a.attention_bias),
            linear(a.width, shared, a.bias or a.attention_bias),
            linear(a.width, shared, a.bias or a.attention_bias),
            linear(inner, a.width, a.bias, small),
            norm(a.layers, a.size) if a.head_norm else None,
            norm(a.layers, a.size) if a.head_norm else None,
            norm(a.layers, a.width),
            linear(a.width, a.hidden, a.bias) if a.forward == "swiglu" else None,
            linear(a.width, a.hidden, a.bias),
            linear(a.hidden, a.width, a.bias, small),
            a.size,
        )
        self.norm = norm(a.width)
        self.head = None if a.tied else Linear(draw(a.width, a.vocabulary))
        self.architecture = a

    def embed(
        self, ids: Int[Array, "batch time"], position: Int[Array, "batch time"]
    ) -> tuple[Float[Array, "batch time width"], tuple[Array, Array] | None]:
        """The first vectors of the stream, and the turns of rotary positions."""
        x = self.embedding[ids]
        if self.positions is not None:
            return x + self.positions[position], None
        a = self.architecture
        return x, turns(position, frequencies(a.size, a.base, a.stretch))

    def hidden(self, ids: Int[Array, "batch time"], valid: Bool[Array, "batch time"]) -> Float[Array, "batch time width"]:
        """Every place's vector after the last norm."""
        position = places(valid)
        x, turn = self.embed(ids, position)
        time = jnp.arange(ids.shape[1])
        seen = (time[:, None] >= time)[None] & valid[:, None, :]

        def step(x: Array, layer: Layer) -> tuple[Array, None]:
            query, key, value = layer.project(x, turn)
            return layer.finish(x, attended(query, key, value, seen)), None

        return self.norm(jax.lax.scan(jax.checkpoint(step) if self.architecture.checkpointing else step, x, self.layers)[0])

    def logits(self, hidden: Float[Array, "*batch width"]) -> Float[Array, "*batch vocabulary"]:
        """From vectors after the last norm, in float32."""
        if self.head is not None:
            return self.head(hidden).astype(jnp.float32)
        return jnp.einsum("...w,vw->...v", hidden, self.embedding, preferred_element_type=jnp.float32)

    def __call__(
        self, ids: Int[Array, "batch time"], valid: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time vocabulary"]:
        """Logits of the id after each place."""
        return self.logits(self.hidden(ids, valid))


def places(valid: Bool[Array, "batch time"]) -> Int[Array, "batch time"]:
    """The position of every place: how many valid ones stand before it."""
    return jnp.maximum(jnp.cumsum(valid, axis=-1) - 1, 0).astype(jnp.int32)
