"""Answers: one action to one observation, as preferences and ratings are about; their log-probabilities, and requests for rated ones."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from policylab.experience import Tokens, Window
from policylab.learner import Request
from policylab.policy import Policy


@dataclass(frozen=True)
class Answers(Request):
    """Rated answers (`Rated`) to `count` prompts; with `group` > 1 so many to each prompt, in leaves [count, group, ...] beside one
    prompt [count, ...]."""

    group: int = 1


def answer_window(observation: PyTree, answer: PyTree) -> Window:
    """One answer to one observation as a window of one step, which ends there."""
    one = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tree)
    return Window(
        observation=one(observation),
        action=one(answer),
        reward=jnp.zeros(1),
        next_observation=one(observation),
        terminal=jnp.ones(1, bool),
        truncated=jnp.zeros(1, bool),
        valid=jnp.ones(1, bool),
        duration=jnp.ones(1, jnp.int32),
    )


def answer_log_probs(policy: Policy, observation: PyTree, answer: PyTree) -> Float[Array, "batch part"]:
    """log pi(answer | observation) of every row of a batch, one term per part (token, torque dimension), 0 where padded."""
    if isinstance(answer, Tokens):  # a language model takes many texts at once, faster than under `vmap`
        window = jax.vmap(answer_window)(observation, answer)
        return policy.log_probs(jax.tree.map(lambda leaf: leaf[:, 0], window))
    return jax.vmap(lambda o, a: policy.log_probs(answer_window(o, a))[0])(observation, answer)


def group_log_probs(policy: Policy, observation: PyTree, answers: PyTree) -> Float[Array, "batch group part"]:
    """The same for several answers to each observation: leaves of `answers` are [batch, group, ...]."""
    shape = jax.tree.leaves(answers)[0].shape[:2]
    every = jax.tree.map(lambda leaf: jnp.repeat(leaf, shape[1], axis=0), observation)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), answers)
    return answer_log_probs(policy, every, flat).reshape(*shape, -1)


def pair_log_prob(
    policy: Policy, observation: PyTree, a: PyTree, b: PyTree
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """log pi(a | observation) and log pi(b | observation) in one pass, the sums over parts."""
    both = jax.tree.map(lambda x, y: jnp.stack([x, y], axis=1), a, b)
    terms = jnp.sum(group_log_probs(policy, observation, both), axis=-1)
    return terms[:, 0], terms[:, 1]


def rows_at_once(*texts: PyTree) -> int:
    """How many rows of a batch to take through a language model at a time, where a row is all of `texts` [row, ..., length]. What a decoder
    keeps of 512 tokens for its gradient stays in a processor's cache; an accelerator takes 32,768. Of other things a batch is taken whole."""
    rows = jax.tree.leaves(texts)[0].shape[0]
    tokens = sum(text.ids.size // rows for text in texts if isinstance(text, Tokens))
    return max(1, (512 if jax.default_backend() == "cpu" else 32_768) // tokens) if tokens else rows
