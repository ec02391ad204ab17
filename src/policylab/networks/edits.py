"""Texts with backspaces in one pass: attention sees what stands, and positions rewind (Cundy and Ermon 2023, arXiv 2306.05426, section 4.3)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from policylab.experience import Tokens
from policylab.networks.decoder import Decoder, Layer, attended


class Edits(eqx.Module):
    """What a trace of tokens and backspaces comes to. After every place: `standing`, the places whose tokens stand in the text; `top`, the
    last of these; `position`, the number of them before `top`."""

    standing: Bool[Array, "batch time time"]
    top: Int[Array, "batch time"]
    position: Int[Array, "batch time"]


def edits(trace: Tokens, backspace: int) -> Edits:
    """Work off a trace [batch, time] whose kinds are 1 (given) first, then 2, then 0. The id `backspace` of kind 2 takes the last standing
    token away if that is of kind 2, and otherwise nothing; padding leaves the text as it is."""
    batch, time = trace.ids.shape
    given = jnp.sum(trace.kind == 1, axis=-1)
    rows = jnp.arange(batch)

    def step(carry: tuple[Array, Array, Array], at: tuple[Array, Array, Array]) -> tuple[tuple, tuple[Array, Array, Array]]:
        stack, depth, standing = carry
        place, ids, kind = at
        erases = (kind == 2) & (ids == backspace)
        writes = (kind > 0) & ~erases
        erases = erases & (depth > given)
        gone = erases[:, None] & (jnp.arange(time) == stack[rows, jnp.maximum(depth - 1, 0)][:, None])
        standing = (standing & ~gone) | (writes[:, None] & (jnp.arange(time) == place))
        stack = stack.at[rows, depth].set(jnp.where(writes, place, stack[rows, depth]), mode="drop")
        depth = depth + writes - erases
        return (stack, depth, standing), (standing, stack[rows, jnp.maximum(depth - 1, 0)], depth - 1)

    start = (jnp.zeros((batch, time), jnp.int32), jnp.zeros(batch, jnp.int32), jnp.zeros((batch, time), bool))
    along = (jnp.arange(time), trace.ids.T, trace.kind.T)
    _, (standing, top, position) = jax.lax.scan(step, start, along)
    return Edits(standing.swapaxes(0, 1), top.T, jnp.maximum(position.T, 0))


def hidden_after(network: Decoder, trace: Tokens, done: Edits) -> Float[Array, "batch time width"]:
    """The last vector of the text as it stands after every place of a trace: what a pass over that text alone gives at its end.

    A token is read at the position it has in the text and sees what then stood before it. What it saw is what stands when it has
    become the last token again, so that after a backspace its vector is there already.
    """
    x, turn = network.embed(trace.ids, done.position)

    def step(x: Array, layer: Layer) -> tuple[Array, None]:
        query, key, value = layer.project(x, turn)
        return layer.finish(x, attended(query, key, value, done.standing)), None

    x = network.norm(jax.lax.scan(jax.checkpoint(step) if network.architecture.checkpointing else step, x, network.layers)[0])
    return jnp.take_along_axis(x, done.top[..., None], axis=1)
