"""Mistakes and their correction: texts in which wrong tokens are written and taken back."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from policylab.experience import Tokens


class Corrected(NamedTuple):
    """Traces [batch, part], and where an action is to be learned: everywhere but at the mistakes."""

    trace: Tokens
    learned: Bool[Array, "batch part"]


def with_mistakes(
    answer: Tokens,
    *,
    chance: Float[Array, ""] | float,
    most: int,
    ordinary: Int[Array, " ordinary"],
    backspace: int,
    pad: int,
    key: PRNGKeyArray,
) -> Corrected:
    """Answers [batch, answer] as traces [batch, answer + 2 * most]: before each ordinary token, with probability `chance` while there were
    fewer than `most`, stands another one, uniform among the others, and a backspace."""
    batch, length = answer.ids.shape
    when_key, which_key = jax.random.split(key)
    written = answer.kind == 2
    same = answer.ids[..., None] == ordinary
    mistaken = (jax.random.uniform(when_key, (batch, length)) < chance) & written & jnp.any(same, axis=-1)
    before = jnp.cumsum(mistaken, axis=1) - mistaken
    mistaken = mistaken & (before < most)
    offset = jax.random.randint(which_key, (batch, length), 1, ordinary.shape[0])
    wrong = ordinary[(jnp.argmax(same, axis=-1) + offset) % ordinary.shape[0]]
    at = jnp.arange(length) + 2 * jnp.cumsum(mistaken, axis=1)  # of each token; a mistake stands 2 places before its token

    rows = jnp.arange(batch)[:, None]
    beyond = length + 2 * most  # where nothing is written
    ids = jnp.full((batch, beyond), pad, jnp.int32).at[rows, jnp.where(written, at, beyond)].set(answer.ids, mode="drop")
    ids = ids.at[rows, jnp.where(mistaken, at - 2, beyond)].set(wrong, mode="drop")
    ids = ids.at[rows, jnp.where(mistaken, at - 1, beyond)].set(backspace, mode="drop")
    count = jnp.sum(written, axis=1) + 2 * jnp.sum(mistaken, axis=1)
    kind = jnp.where(jnp.arange(beyond) < count[:, None], 2, 0)
    learned = (kind == 2).at[rows, jnp.where(mistaken, at - 2, beyond)].set(False, mode="drop")
    return Corrected(Tokens(ids, kind), learned)
