"""Claims about learning from verified answers, and the small problem that they share: a character model that learns to sort digits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from policylab.experience import Spec, Tokens
from policylab.learner import Clock, Learner
from policylab.networks.optimisation import descend, trained
from policylab.policies.answering import answer_log_probs
from policylab.policies.language import Language, LanguagePolicy, text_spec
from policylab.scorer import Scorer
from policylab.source import Source
from policylab.tokenizer import Tokenizer, characters

FORM = Language(width=64, layers=2, heads=4, hidden=128)
PROMPT, ANSWER = 8, 8  # room in tokens
_DIGIT, _EQUALS, _END = 4, 14, 1  # ids of 0, of = and of the end
_FAR = 99  # sorts behind every id


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    """Digits and =."""
    return characters("0123456789=")


def sorting_spec() -> Spec:
    """`3142=` is answered by `1234`."""
    return text_spec(tokenizer(), prompt=PROMPT, answer=ANSWER)


def questions(random: np.random.Generator, lengths: Sequence[int], rows: int) -> Tokens:
    """`rows` prompts, as many of each length (in turn)."""
    length = np.resize(np.asarray(lengths), rows)[:, None]
    place = np.arange(PROMPT)
    ids = np.where(place < length, random.integers(0, 10, (rows, PROMPT)) + _DIGIT, np.where(place == length, _EQUALS, 0))
    return Tokens(jnp.asarray(ids, jnp.int32), jnp.asarray(place <= length, jnp.int32))


def solution(prompt: Tokens) -> Tokens:
    """The digits of prompts [*batch, prompt] in ascending order and the end, [*batch, answer]."""
    given = (prompt.kind == 1) & (prompt.ids >= _DIGIT) & (prompt.ids < _EQUALS)
    ids = jnp.sort(jnp.where(given, prompt.ids, _FAR), axis=-1)[..., :ANSWER]
    count, place = jnp.sum(given, axis=-1, keepdims=True), jnp.arange(ANSWER)
    ids = jnp.where(place < count, ids, jnp.where(place == count, _END, 0))
    return Tokens(ids, jnp.where(place <= count, 2, 0))


class Sorted(Scorer):
    """1 on the last written token of an answer that is the solution, else 0. Computed in the compiled program."""

    def scores(self, observation: Tokens, action: Tokens) -> Float[Array, " part"]:
        """One number per token of the answer."""
        wanted = solution(observation)
        right = jnp.all((action.kind == wanted.kind) & ((action.ids == wanted.ids) | (wanted.kind == 0)))
        last = jnp.arange(ANSWER) == jnp.sum(action.kind == 2) - 1
        return jnp.where(last & right, 1.0, 0.0)


@partial(jax.jit, static_argnames=("updates", "batch"))
def taught(prompts: Tokens, seeds: Int[Array, " seed"], updates: int, batch: int = 64, rate: float = 3e-3) -> LanguagePolicy:
    """Policies taught by solutions to prompts [row, prompt], one for each seed: what reinforcement starts from."""
    optimiser = optax.adam(rate)

    def one(seed: Array) -> LanguagePolicy:
        key = jax.random.fold_in(jax.random.key(seed), 1)

        def step(state: Any, number: Array) -> tuple[Any, None]:
            rows = jax.random.randint(jax.random.fold_in(key, number), (batch,), 0, prompts.ids.shape[0])
            prompt = jax.tree.map(lambda leaf: leaf[rows], prompts)
            loss = lambda policy: (-jnp.mean(answer_log_probs(policy, prompt, solution(prompt)).sum(-1)), None)
            return descend(state, loss, optimiser)[0], None

        start = trained(FORM.build(sorting_spec(), key=key), optimiser)
        return jax.lax.scan(step, start, jnp.arange(updates))[0].model

    return jax.vmap(one)(seeds)


@partial(jax.jit, static_argnames="updates")
def reinforced(
    learner: Learner, source: Source, start: LanguagePolicy, seeds: Int[Array, " seed"], updates: int
) -> tuple[Any, Any, Mapping[str, Float[Array, "seed update"]]]:
    """The states of the learner and the source after `updates` from `start` (leaves [seed, ...]), and the metrics of every update."""

    def one(start: LanguagePolicy, seed: Array) -> tuple[Any, Any, Any]:
        key = jax.random.fold_in(jax.random.key(seed), 2)

        def step(carry: tuple, number: Array) -> tuple[tuple, Any]:
            state, drawn = carry
            clock, at = Clock(number, jnp.asarray(updates)), jax.random.fold_in(key, number)
            drawn, batch = source.next(drawn, learner.products(state), clock=clock, key=at)
            state, metrics = learner.update(state, batch, clock=clock, key=at)
            return (state, drawn), metrics

        state = learner.init(source.spec, key=key, given={"start": start})
        begun = state, source.init(learner.products(state), key=key)
        (state, drawn), metrics = jax.lax.scan(step, begun, jnp.arange(updates))
        return state, drawn, metrics

    return jax.vmap(one)(start, seeds)


@partial(jax.jit, static_argnames="n")
def right(policy: LanguagePolicy, prompts: Tokens, n: int = 1) -> Float[Array, "seed row n"]:
    """Whether each of `n` sampled answers to each prompt is right, for policies with leaves [seed, ...]."""
    keys = jax.random.split(jax.random.key(7), prompts.ids.shape[0])

    def one(policy: LanguagePolicy) -> Array:
        answers = jax.vmap(lambda prompt, key: policy.act_many(prompt, n, key=key).tokens)(prompts, keys)
        return jax.vmap(lambda prompt, group: jax.vmap(lambda a: Sorted().score(prompt, a))(group))(prompts, answers)

    return jax.lax.map(one, policy)
