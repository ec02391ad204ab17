"""Preferences that are known for every pair of listed answers."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab.errors import Unsupported
from policylab.scorer import Scorer


class PreferenceTable(Scorer):
    """P(i beats j | state) = wins[state, i, j]; wins[state, j, i] is 1 minus that. Nothing says that it is transitive."""

    wins: Float[Array, "state choice choice"]

    def scores(self, observation: Int[Array, ""], action: Int[Array, ""]) -> Float[Array, " part"]:
        """There is none: an answer is better or worse than another."""
        raise Unsupported("a table of preferences compares answers: use prefer")

    def prefer(self, observation: PyTree, a: PyTree, b: PyTree, *, key: PRNGKeyArray) -> Float[Array, "4"]:
        """Probabilities of (a wins, tie, a loses, abstains); there are no ties."""
        win = self.wins[observation, a, b]
        return jnp.stack([win, jnp.zeros(()), 1.0 - win, jnp.zeros(())])
