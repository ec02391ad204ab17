"""Re-ranking: of several samples of a policy, the one that a scorer likes best."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.policy import Policy
from policylab.scorer import Scorer


class Rerank(Policy):
    r"""Draws `samples` actions a_i from `policy` and takes one with probability softmax(score(s, a_i) / temperature).

    A temperature of 0 takes the best, as BCQ (Fujimoto et al. 2019) and IDQL (Hansen-Estruch et al. 2023) evaluate; `mode()` is
    that. The samples share the policy's memory; the chosen one's next memory goes on.
    """

    policy: Policy
    scorer: Scorer
    temperature: Float[Array, ""] = eqx.field(converter=lambda t: jnp.asarray(t, jnp.float32), default=0.0)
    samples: int = eqx.field(static=True, default=32)
    fixed: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if self.samples < 1:
            raise BadInput("Rerank needs at least one sample to choose from")

    def initial_memory(self, *, key: PRNGKeyArray) -> PyTree:
        """The policy's."""
        return self.policy.initial_memory(key=key)

    def mode(self) -> Policy:
        """The best of samples drawn with the same random numbers at every step."""
        return dataclasses.replace(self, temperature=jnp.zeros(()), fixed=True)

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """The chosen sample and its memory."""
        draw, choose = jax.random.split(jax.random.key(0) if self.fixed else key)
        keys = jax.random.split(draw, self.samples)
        actions, memories = jax.vmap(lambda k: self.policy.act(observation, memory, key=k))(keys)
        scores = self.scorer.table(observation, actions)
        # Gumbel noise of scale `temperature` makes the largest a sample of the softmax, and a temperature of 0 no special case.
        chosen = jnp.argmax(scores + self.temperature * jax.random.gumbel(choose, scores.shape))
        return jax.tree.map(lambda leaf: leaf[chosen], (actions, memories))
