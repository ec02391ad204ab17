"""Keys and values that a decoder keeps while it writes, so that a new token costs one step and not the whole text."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from policylab.networks.decoder import Decoder, Layer, attended, places


class Cache(eqx.Module):
    """One pair of arrays per layer, [batch * group, place, size]: the prompt's places first, then one per written token.

    A prompt's padding stays where it is and is never looked at (`valid`), so that all rows write to the same place at every step;
    `count` is the number of valid tokens of each row so far, which is the position of its next one.
    """

    keys: tuple[Array, ...]
    values: tuple[Array, ...]
    valid: Bool[Array, "batch place"]
    count: Int[Array, " batch"]

    def repeated(self, times: int) -> Cache:
        """Every text as often, next to each other: a prompt is read once and answered several times."""
        batch = self.count.shape[0]
        again = lambda leaf: jnp.repeat(leaf.reshape(batch, -1, *leaf.shape[1:]), times, axis=0).reshape(-1, *leaf.shape[1:])
        return jax.tree.map(again, self)


def prefill(
    network: Decoder, ids: Int[Array, "batch time"], valid: Bool[Array, "batch time"], room: int
) -> tuple[Cache, Float[Array, "batch vocabulary"]]:
    """Read right-padded prompts in one pass: the cache, with `room` for as many tokens more, and the logits of the first of them."""
    position = places(valid)
    x, turn = network.embed(ids, position)
    time = jnp.arange(ids.shape[1])
    seen = (time[:, None] >= time)[None] & valid[:, None, :]

    def step(x: Array, layer: Layer) -> tuple[Array, tuple[Array, Array]]:
        query, key, value = layer.project(x, turn)
        return layer.finish(x, attended(query, key, value, seen)), (key, value)

    x, (keys, values) = jax.lax.scan(step, x, network.layers)
    count = jnp.sum(valid, axis=-1, dtype=jnp.int32)
    last = jnp.take_along_axis(x, jnp.maximum(count - 1, 0)[:, None, None], axis=1)[:, 0]
    longer = lambda stack: tuple(jnp.pad(layer, ((0, 0), (0, room), (0, 0))) for layer in stack)
    cache = Cache(longer(keys), longer(values), jnp.pad(valid, ((0, 0), (0, room))), count)
    return cache, network.logits(network.norm(last))


def sliced(network: Decoder) -> tuple[Layer, ...]:
    """The layers one by one. Taken once before a loop over tokens: slices inside it would copy every weight at every step."""
    return tuple(jax.tree.map(lambda leaf, i=i: leaf[i], network.layers) for i in range(network.architecture.layers))


def extend(
    network: Decoder, layers: tuple[Layer, ...], cache: Cache, ids: Int[Array, " batch"], place: Int[Array, ""]
) -> tuple[Cache, Float[Array, "batch vocabulary"]]:
    """Write one token per row at `place` of the cache: the new cache, and the logits of what follows."""
    x, turn = network.embed(ids[:, None], cache.count[:, None])
    valid = jax.lax.dynamic_update_slice_in_dim(cache.valid, jnp.ones((ids.shape[0], 1), bool), place, axis=1)
    keys, values = [], []
    for layer, old_keys, old_values in zip(layers, cache.keys, cache.values, strict=True):
        query, key, value = layer.project(x, turn)
        keys.append(jax.lax.dynamic_update_slice_in_dim(old_keys, key, place, axis=1))
        values.append(jax.lax.dynamic_update_slice_in_dim(old_values, value, place, axis=1))
        x = layer.finish(x, attended(query, keys[-1], values[-1], valid[:, None]))
    return Cache(tuple(keys), tuple(values), valid, cache.count + 1), network.logits(network.norm(x[:, 0]))
