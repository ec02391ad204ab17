"""EpsMix: the simpler of the two conservative explorers of Li, Yang and Liang 2023 (arXiv 2306.06265)."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from policylab.hyperparameters import settings
from policylab.learners.theory.stepmix import Policies, StepMix


@settings
class EpsMix(StepMix):
    """StepMix with two candidates only: an episode is the optimist's or the baseline's from beginning to end, the baseline's with the
    smallest probability for which the lower value of the mixture is the threshold."""

    title: ClassVar[str] = "Conservative exploration, episode by episode"

    def candidates(self, optimist: Float[Array, "time state choice"], baseline: Float[Array, "time state choice"]) -> Policies:
        """The optimist and the baseline."""
        return jnp.stack([optimist, baseline])
