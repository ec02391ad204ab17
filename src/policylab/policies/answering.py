"""Answers: one action to one observation, as preferences and ratings are about; their log-probabilities, and requests for rated ones."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from policylab.experience import Window
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
    return jax.vmap(lambda o, a: policy.log_probs(answer_window(o, a))[0])(observation, answer)


def group_log_probs(policy: Policy, observation: PyTree, answers: PyTree) -> Float[Array, "batch group part"]:
    """The same for several answers to each observation: leaves of `answers` are [batch, group, ...]."""
    each = lambda o, group: jax.vmap(lambda a: policy.log_probs(answer_window(o, a))[0])(group)
    return jax.vmap(each)(observation, answers)


def pair_log_prob(
    policy: Policy, observation: PyTree, a: PyTree, b: PyTree
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """log pi(a | observation) and log pi(b | observation) in one pass, the sums over parts."""
    both = jax.tree.map(lambda x, y: jnp.stack([x, y], axis=1), a, b)
    terms = jnp.sum(group_log_probs(policy, observation, both), axis=-1)
    return terms[:, 0], terms[:, 1]
