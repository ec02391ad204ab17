"""KTO: alignment from answers that are labelled good or bad, one by one (Ethayarajh et al. 2024, arXiv 2402.01306)."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from policylab.experience import Rated
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock
from policylab.learners.preference.anchored import Labelled
from policylab.networks.optimisation import descend
from policylab.policies.anchoring import reference_of
from policylab.policies.answering import answer_log_probs
from policylab.policy import Policy


@settings
class KTO(Labelled):
    r"""r = log [pi(y|x) / ref(y|x)];   min E[ lambda_y - v(x, y) ]                                        (equation 8)

        v = desirable   sigma(beta (r - z))  where y is good,   undesirable sigma(beta (z - r))  where y is bad
        z = max(0, mean of log [pi(y'|x) / ref(y'|x)] over the batch, y' the answer to the next row's prompt), not differentiated

    z estimates KL(pi || ref). An answer is good where its reward is above `threshold`: 1 and 0 are labels, and ratings are cut there.
    Published: with n_good and n_bad answers choose the lambdas so that desirable n_good / (undesirable n_bad) lies in [1, 4/3].
    Defaults are the paper's beta of 0.1 and DPO's rate and optimiser as in `DPO`.
    """

    desirable: float = setting(1.0, "lambda of good answers", low=0.0)
    undesirable: float = setting(1.0, "lambda of bad answers", low=0.0)
    batch_size: int = setting(64, "answers per update, at least 2: z comes from mismatched ones", low=2)

    title: ClassVar[str] = "Alignment from good and bad answers"

    def losses(
        self, ratio: Float[Array, " batch"], mismatched: Float[Array, " batch"], good: Float[Array, " batch"]
    ) -> Float[Array, " batch"]:
        """The loss of every answer from its log-ratio, those of mismatched answers, and whether it is good (1) or bad (0)."""
        z = jax.lax.stop_gradient(jnp.maximum(jnp.mean(mismatched), 0.0))
        liked = self.desirable * (1.0 - jax.nn.sigmoid(self.beta * (ratio - z)))
        disliked = self.undesirable * (1.0 - jax.nn.sigmoid(self.beta * (z - ratio)))
        return good * liked + (1.0 - good) * disliked

    def update(
        self, state: dict[str, Any], batch: Rated, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """One step on the weighted mean of the loss."""
        good = self.good(batch)
        other = jax.tree.map(lambda leaf: jnp.roll(leaf, -1, axis=0), batch.sample)
        ratio_to = lambda policy, answers: jnp.sum(answer_log_probs(policy, batch.prompt, answers), axis=-1)
        frozen, frozen_other = ratio_to(reference_of(state), batch.sample), ratio_to(reference_of(state), other)
        share = batch.weight / jnp.maximum(jnp.sum(batch.weight), 1e-6)
        mismatched = ratio_to(state["policy"].model, other) - frozen_other

        def loss(policy: Policy) -> tuple[Array, Array]:
            ratio = ratio_to(policy, batch.sample) - jax.lax.stop_gradient(frozen)
            return jnp.sum(share * self.losses(ratio, mismatched, good)), ratio

        policy, value, ratio = descend(state["policy"], loss, optax.adam(self.learning_rate))
        metrics = {
            "loss": value,
            "kl": jnp.maximum(jnp.mean(mismatched), 0.0),
            "margin": self.beta * jnp.mean((2 * good - 1) * ratio),
        }
        return {**state, "policy": policy}, metrics
