"""Scorer: how good an action (or a whole trajectory) is. Reward models, critics, verifiers, judges."""

from __future__ import annotations

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.errors import Unsupported


class Scorer(eqx.Module):
    """Scores one action given one observation; callers `vmap`."""

    @abstractmethod
    def scores(self, observation: PyTree, action: PyTree) -> Float[Array, " part"]:
        """The gain of each part of the action (a process scorer is non-zero at step ends)."""

    def score(self, observation: PyTree, action: PyTree) -> Float[Array, ""]:
        """The sum of the gains of all parts."""
        return jnp.sum(self.scores(observation, action))

    def table(self, observation: PyTree, actions: PyTree) -> Float[Array, " action"]:
        """The score of each of several actions."""
        return jax.vmap(lambda action: self.score(observation, action))(actions)

    def prefer(self, observation: PyTree, a: PyTree, b: PyTree, *, key: PRNGKeyArray) -> Float[Array, "4"]:
        """Probabilities of (a wins, tie, a loses, abstains)."""
        raise Unsupported(f"{type(self).__name__} scores answers one by one: compare the two scores instead")
