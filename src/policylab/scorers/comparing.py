"""Scorers that compare two answers by log-odds: the probability that one wins, and the cross-entropy of judged pairs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.experience import Preference
from policylab.scorers.fitted import FittedScorer


def cross_entropy(log_odds: Float[Array, " batch"], p: Float[Array, " batch"]) -> Float[Array, " batch"]:
    """-p log sigma(z) - (1 - p) log sigma(-z), in nats."""
    return -p * jax.nn.log_sigmoid(log_odds) - (1.0 - p) * jax.nn.log_sigmoid(-log_odds)


class Comparing(FittedScorer):
    r"""P(a wins | x) = sigma(compare(x, a, b)), which is Bradley and Terry's model where answers are scored one by one. There are no ties."""

    def compare(self, observation: PyTree, a: PyTree, b: PyTree) -> Float[Array, ""]:
        """The log-odds that a wins: the difference of the two scores, unless a model reads both answers."""
        return self.score(observation, a) - self.score(observation, b)

    def prefer(self, observation: PyTree, a: PyTree, b: PyTree, *, key: PRNGKeyArray) -> Float[Array, "4"]:
        """Probabilities of (a wins, tie, a loses, abstains)."""
        win = jax.nn.sigmoid(self.compare(observation, a, b))
        return jnp.stack([win, jnp.zeros(()), 1.0 - win, jnp.zeros(())])

    def losses(self, batch: Preference, *, key: PRNGKeyArray) -> Float[Array, " batch"]:
        """The cross-entropy of every pair's label, in nats."""
        return cross_entropy(jax.vmap(self.compare)(batch.observation, batch.a, batch.b), batch.p)
