"""Writing answers: one compiled loop over tokens for all prompts of a batch, behind a signature for one.

Every row draws from its own key, so that an answer does not depend on who else is in the batch. Log-probabilities are those of
`log_prob_of`, the same function that training uses: of the whole distribution at the policy's temperature, before top-k and top-p
cut its tail off.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int, Key

from policylab.experience import Tokens
from policylab.networks.cache import extend, prefill, sliced
from policylab.networks.decoder import Decoder
from policylab.networks.frozen import Frozen
from policylab.policies.stops import Stops


class Sampling(Frozen):
    """How a token is drawn. Its numbers are traced: changing them compiles nothing anew.

    `temperature` divides the logits; the `top_k` likeliest tokens are kept (a number as large as the vocabulary: all), and of these the
    likeliest that together have `top_p` of the probability (1: all; Holtzman et al. 2020, arXiv 1904.09751). `greedy` takes the likeliest.
    """

    temperature: Float[Array, ""]
    top_p: Float[Array, ""]
    top_k: Int[Array, ""]
    greedy: bool = eqx.field(static=True, default=False)


class Written(eqx.Module):
    """Answers and the log-probability of each of their tokens, 0 where padded. Shapes [*batch, answer]."""

    tokens: Tokens
    log_probs: Float[Array, "*batch answer"]


def log_prob_of(
    logits: Float[Array, "*batch vocabulary"], ids: Int[Array, "*batch"], temperature: Float[Array, ""]
) -> Float[Array, "*batch"]:
    """log softmax(logits / temperature) at `ids`: the one log-probability of sampling and of training."""
    logits = logits / temperature
    return jnp.take_along_axis(logits, ids[..., None], axis=-1)[..., 0] - jax.nn.logsumexp(logits, axis=-1)


def drawn(
    logits: Float[Array, "batch vocabulary"], uniform: Float[Array, " batch"], sampling: Sampling
) -> Int[Array, " batch"]:
    """One id per row, where `uniform` in [0, 1) falls on the cumulative distribution (the likeliest one if greedy)."""
    if sampling.greedy:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    weight = jax.nn.softmax(logits / sampling.temperature, axis=-1)
    cuts = (sampling.top_k < logits.shape[-1]) | (sampling.top_p < 1.0)
    weight = jax.lax.cond(cuts, _cut, lambda weight, _: weight, weight, sampling)
    total = jnp.cumsum(weight, axis=-1)
    # The first id whose cumulative weight exceeds the draw: one whose own weight is zero never does.
    below = jnp.sum(total <= uniform[:, None] * total[:, -1:], axis=-1)
    return jnp.minimum(below, logits.shape[-1] - 1).astype(jnp.int32)


def _cut(weight: Float[Array, "batch vocabulary"], sampling: Sampling) -> Float[Array, "batch vocabulary"]:
    """The weights without the tail: first all but the k likeliest, then what lies beyond `top_p` of the rest. Ties are kept."""
    weight = _keep(weight, jnp.ones_like(weight), sampling.top_k.astype(jnp.float32))
    return _keep(weight, weight, sampling.top_p * jnp.sum(weight, axis=-1))


def _keep(weight: Array, amount: Array, wanted: Array) -> Array:
    """Zero below the largest threshold at which `amount` of what is kept reaches `wanted`: found by bisection over the bits of positive
    floats, which are ordered as the floats are. Exact, and cheaper than to sort a vocabulary."""
    bits = jax.lax.bitcast_convert_type(weight, jnp.int32)
    low = jnp.zeros(weight.shape[:1], jnp.int32)

    def halve(i: Array, low: Array) -> Array:
        middle = low + jnp.left_shift(1, 30 - i)
        enough = jnp.sum(jnp.where(bits >= middle[:, None], amount, 0.0), axis=-1) >= wanted
        return jnp.where(enough, middle, low)

    low = jax.lax.fori_loop(0, 31, halve, low)
    return jnp.where(bits >= low[:, None], weight, 0.0)


def draws(keys: Key[Array, " row"], length: int) -> Float[Array, "length row"]:
    """The uniform numbers of every token of every row."""
    return jax.vmap(lambda key: jax.random.uniform(key, (length,)))(keys).T


def chosen(
    sampling: Sampling,
    stops: Stops | None,
    logits: Float[Array, "row vocabulary"],
    uniform: Float[Array, " row"],
    done: Bool[Array, " row"],
    state: Int[Array, " row"],
    *,
    end: tuple[int, ...],
    pad: int,
) -> tuple[Array, Array, Array, Array, Array]:
    """The next token of every row: its id, kind and log-probability, whether the answer is over, and the state of the stops."""
    ids = drawn(logits, uniform, sampling)
    log_prob = jnp.where(done, 0.0, log_prob_of(logits, ids, sampling.temperature))
    state = state if stops is None else stops.table[state, ids]
    over = done | jnp.any(ids[:, None] == jnp.asarray(end, jnp.int32), axis=-1)
    over = over if stops is None else over | (state == stops.table.shape[0] - 1)
    return jnp.where(done, pad, ids), jnp.where(done, 0, 2), log_prob, over, state


def _loop(
    network: Decoder,
    sampling: Sampling,
    stops: Stops | None,
    prompt: Tokens,
    keys: Key[Array, " row"],
    *,
    length: int,
    repeats: int,
    end: tuple[int, ...],
    pad: int,
) -> Written:
    """Answers [batch * repeats, length] to prompts [batch, time]; each prompt is read once, however often it is answered."""
    start = prompt.ids.shape[1]
    cache, logits = prefill(network, prompt.ids, prompt.kind > 0, length)
    if repeats > 1:
        cache, logits = cache.repeated(repeats), jnp.repeat(logits, repeats, axis=0)
    rows = logits.shape[0]
    layers = sliced(network)
    uniform = draws(keys, length)
    choose = partial(chosen, sampling, stops, end=end, pad=pad)

    def body(carry: tuple) -> tuple:
        t, cache, done, state, last, ids, kinds, log_probs = carry
        cache, logits = extend(network, layers, cache, last, start + t - 1)
        token, kind, log_prob, done, state = choose(logits, uniform[t], done, state)
        put = lambda rows, row: jax.lax.dynamic_update_index_in_dim(rows, row, t, axis=0)
        return t + 1, cache, done, state, token, put(ids, token), put(kinds, kind), put(log_probs, log_prob)

    nothing, no_state = jnp.zeros(rows, bool), jnp.zeros(rows, jnp.int32)
    token, kind, log_prob, done, state = choose(logits, uniform[0], nothing, no_state)
    ids, kinds = jnp.full((length, rows), pad, jnp.int32).at[0].set(token), jnp.zeros((length, rows), jnp.int32).at[0].set(kind)
    carry = (jnp.asarray(1), cache, done, state, token, ids, kinds, jnp.zeros((length, rows)).at[0].set(log_prob))
    *_, ids, kinds, log_probs = jax.lax.while_loop(lambda c: (c[0] < length) & ~jnp.all(c[2]), body, carry)
    return Written(Tokens(ids.T, kinds.T), log_probs.T)


@lru_cache(maxsize=64)
def _native(length: int, repeats: int, end: tuple[int, ...], pad: int) -> Any:
    """The loop as a function that stays batch-native under `vmap`, however many times, and is compiled wherever it is called."""
    loop = jax.jit(partial(_loop, length=length, repeats=repeats, end=end, pad=pad))

    @custom_vmap
    def many(network: Decoder, sampling: Sampling, stops: Stops | None, prompt: Tokens, keys: Key[Array, " row"]) -> Written:
        return loop(network, sampling, stops, prompt, keys)

    @many.def_vmap
    def rule(axis_size: int, batched: Any, *arguments: Any) -> tuple[Written, Any]:
        spread = lambda leaf, is_batched: leaf if is_batched else jnp.broadcast_to(leaf, (axis_size, *leaf.shape))
        data = jax.tree.map(spread, arguments[3:], tuple(batched[3:]))
        if any(jax.tree.leaves(batched[:3])):  # other weights in every row: several policies, one after the other
            policies = jax.tree.map(spread, arguments[:3], tuple(batched[:3]))
            written = jax.lax.map(lambda each: many(*each[0], *each[1]), (policies, data))
        else:
            written = many(*arguments[:3], *jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), data))
            written = jax.tree.map(lambda leaf: leaf.reshape(axis_size, -1, *leaf.shape[1:]), written)
        return written, jax.tree.map(lambda _: True, written)

    return many


def write(
    network: Decoder,
    sampling: Sampling,
    stops: Stops | None,
    prompt: Tokens,
    keys: Key[Array, " row"],
    *,
    length: int,
    end: tuple[int, ...],
    pad: int,
    repeats: int = 1,
) -> Written:
    """Answers of at most `length` tokens to a batch of prompts, `repeats` to each, one key per answer; [prompt * repeats, length].

    An answer ends after a token of `end` or after the token that completes a stop string; that token belongs to it.
    """
    fixed = jax.lax.stop_gradient((network, sampling))
    return _native(length, repeats, end, pad)(*fixed, stops, prompt, keys)


def joined(prompt: Tokens, answer: Tokens) -> Tokens:
    """Prompt and answer without padding between them, [*batch, prompt + answer]; each keeps its kinds."""
    first, length = prompt.ids.shape[-1], prompt.ids.shape[-1] + answer.ids.shape[-1]
    count = jnp.sum(prompt.kind > 0, axis=-1, keepdims=True)
    place = jnp.arange(length)
    source = jnp.where(place < count, place, first + place - count)
    take = lambda a, b: jnp.take_along_axis(jnp.concatenate([a, b], axis=-1), jnp.minimum(source, length - 1), axis=-1)
    ids, kind = take(prompt.ids, answer.ids), take(prompt.kind, answer.kind)
    return Tokens(ids, jnp.where(source < length, kind, 0))


def answered(log_probs: Float[Array, "*batch length"], prompt: Tokens, answer: Tokens) -> Float[Array, "*batch answer"]:
    """What stands at the answer's places of a `joined` text, back in the answer's own shape; 0 where it was not written."""
    count = jnp.sum(prompt.kind > 0, axis=-1, keepdims=True)
    found = jnp.take_along_axis(log_probs, count + jnp.arange(answer.ids.shape[-1]), axis=-1)
    return jnp.where(answer.kind == 2, found, 0.0)


def finished(tokens: Tokens, end: tuple[int, ...]) -> Bool[Array, "*batch"]:
    """Whether an answer came to its end token (it was cut off, or stopped by a string, otherwise)."""
    return jnp.any((tokens.kind == 2) & jnp.isin(tokens.ids, jnp.asarray(end, jnp.int32)), axis=-1)
