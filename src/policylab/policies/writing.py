"""Answers as strings, on the host: whole batches in few compiled programs, or one answer token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from policylab.errors import BadInput
from policylab.experience import Tokens
from policylab.networks.cache import Cache, extend, prefill, sliced
from policylab.networks.decoder import Decoder, Layer
from policylab.policies.generation import Sampling, Written, chosen, draws
from policylab.policies.language import LanguagePolicy
from policylab.policies.lora import LoRAPolicy
from policylab.policies.stops import Stops
from policylab.tokenizer import Tokenizer, bucket


class Reply(NamedTuple):
    """One answer: its text without special tokens, its log-probability in nats, its number of tokens, and whether it came to its end
    (an end token or a stop string) or was cut off at the longest answer."""

    text: str
    log_prob: float
    tokens: int
    ended: bool


def generate(
    policy: LanguagePolicy | LoRAPolicy, texts: Sequence[str], *, n: int = 1, seed: int = 0, batch: int = 64
) -> list[list[Reply]]:
    """`n` answers to each text, at most `batch` prompts at once. Texts of a bucket of lengths share one compiled program, and an answer
    depends on `seed` and the text's number alone. Raises `BadInput` for a text that leaves no room in the model's context."""
    language = whole(policy)
    tokenizer = Tokenizer.of(language.tokenizer)
    rows = [tokenizer.prompt(text) for text in texts]
    for row in rows:
        require_room(language, len(row))
    found: list[list[Reply]] = [[] for _ in rows]
    lengths = [bucket(len(row)) for row in rows]
    for length in sorted(set(lengths)):
        members = [i for i, own in enumerate(lengths) if own == length]
        for first in range(0, len(members), batch):
            some = members[first : first + batch]
            full = some + some[:1] * (bucket(len(some), 1) - len(some))  # to a power of two, as the lengths
            prompts = _padded([rows[i] for i in full], length, tokenizer.pad)
            keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.asarray(full))
            written = jax.device_get(_many(language, prompts, keys, n))
            for place, i in enumerate(some):
                found[i] = [_reply(language, tokenizer, written, place, j) for j in range(n)]
    return found


@partial(jax.jit, static_argnames="n")
def _many(policy: LanguagePolicy, prompts: Tokens, keys: Array, n: int) -> Written:
    return jax.vmap(lambda prompt, key: policy.act_many(prompt, n, key=key))(prompts, keys)


def _reply(policy: LanguagePolicy, tokenizer: Tokenizer, written: Written, row: int, column: int) -> Reply:
    ids = np.asarray(written.tokens.ids[row, column])[np.asarray(written.tokens.kind[row, column]) == 2]
    ended = bool(len(ids)) and (int(ids[-1]) in policy.end or len(ids) < policy.answer)
    return Reply(tokenizer.decode(ids), float(written.log_probs[row, column].sum()), len(ids), ended)


def _padded(rows: Sequence[Sequence[int]], length: int, pad: int) -> Tokens:
    ids, kind = np.full((len(rows), length), pad, np.int32), np.zeros((len(rows), length), np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row)], kind[i, : len(row)] = row, 1
    return Tokens(jnp.asarray(ids), jnp.asarray(kind))


def whole(policy: LanguagePolicy | LoRAPolicy) -> LanguagePolicy:
    """The language policy itself, adapters in their places."""
    return policy.whole if isinstance(policy, LoRAPolicy) else policy


def require_room(policy: LanguagePolicy, length: int) -> None:
    """Raise `BadInput` unless a prompt of `length` tokens and the longest answer fit into the context of the model."""
    context = policy.network.architecture.context
    if length < 1:
        raise BadInput("a prompt is empty: give at least one token, such as the tokenizer's begin token")
    if length + policy.answer > context:
        raise BadInput(
            f"a prompt of {length} tokens and an answer of {policy.answer} are longer than the model's context of {context}: "
            "shorten the prompt, or ask for a shorter answer"
        )


def stream(policy: LanguagePolicy | LoRAPolicy, prompt: Sequence[int], *, seed: int = 0) -> Iterator[str]:
    """The pieces of one answer to a prompt of token ids as they are written, the same text as `policy.act` with `jax.random.key(seed)`
    gives. A character of several tokens comes when it is complete."""
    policy = whole(policy)
    require_room(policy, len(prompt))
    tokenizer = Tokenizer.of(policy.tokenizer)
    tokens = _padded([prompt], bucket(len(prompt)), tokenizer.pad)
    room = bucket(policy.answer)
    layers = _layers(policy.network)
    cache, logits = _prefill(policy.network, tokens, room)
    uniform = draws(jax.random.key(seed)[None], policy.answer)
    done, state = jnp.zeros(1, bool), jnp.zeros(1, jnp.int32)
    written, shown = [], ""
    for t in range(policy.answer):
        token, done, state = _choose(policy.sampling, policy.stops, logits, uniform[t], done, state, policy.end, policy.pad)
        written.append(int(token[0]))
        over = bool(done[0]) or t + 1 == policy.answer
        text = tokenizer.decode(written)
        if text[len(shown) :] and (over or not text.endswith("\ufffd")):
            yield text[len(shown) :]
            shown = text
        if over:
            return
        cache, logits = _extend(policy.network, layers, cache, token, jnp.asarray(tokens.ids.shape[1] + t))


@jax.jit
def _layers(network: Decoder) -> tuple[Layer, ...]:
    return sliced(network)


@partial(jax.jit, static_argnames="room")
def _prefill(network: Decoder, prompt: Tokens, room: int) -> tuple[Cache, Array]:
    return prefill(network, prompt.ids, prompt.kind > 0, room)


@partial(jax.jit, donate_argnames="cache")
def _extend(network: Decoder, layers: tuple[Layer, ...], cache: Cache, ids: Array, place: Array) -> tuple[Cache, Array]:
    return extend(network, layers, cache, ids, place)


@partial(jax.jit, static_argnames=("end", "pad"))
def _choose(
    sampling: Sampling, stops: Stops | None, logits: Array, uniform: Array, done: Array, state: Array, end: tuple, pad: int
) -> tuple[Array, Array, Array]:
    token, _, _, over, state = chosen(sampling, stops, logits, uniform, done, state, end=end, pad=pad)
    return token, over, state
