"""Rewards as log-probabilities of being good, and their sums as AND (Wang et al. 2024, arXiv 2402.00742)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from policylab.scorer import Scorer


def log_sigmoid_above(score: Float[Array, "*shape"], level: Float[Array, "*level"] | float) -> Float[Array, "*shape"]:
    """u = log sigma(r - level): the log-probability, by Bradley and Terry, that the answer beats one of that level (equation 5)."""
    return jax.nn.log_sigmoid(score - level)


def reference_level(scorer: Scorer, observation: PyTree, answers: PyTree, quantile: float = 0.85) -> Float[Array, ""]:
    """The score of an acceptable answer: a quantile of those of answers by the reference policy to this very observation, since scores
    of different observations are not comparable."""
    return jnp.quantile(scorer.table(observation, answers), quantile)


class LogSigmoid(Scorer):
    """`log_sigmoid_above` of another scorer's score; `level` is that of an acceptable answer."""

    scorer: Scorer
    level: Float[Array, ""]

    def scores(self, observation: PyTree, action: PyTree) -> Float[Array, " part"]:
        """u, as one part."""
        return log_sigmoid_above(self.scorer.score(observation, action), self.level)[None]


class All(Scorer):
    """The sum of several scores: where each is a log-probability of being good, that of being good in every respect if these are
    independent."""

    scorers: tuple[Scorer, ...]

    def scores(self, observation: PyTree, action: PyTree) -> Float[Array, " part"]:
        """The sum, as one part."""
        return jnp.sum(jnp.stack([scorer.score(observation, action) for scorer in self.scorers]), keepdims=True)
