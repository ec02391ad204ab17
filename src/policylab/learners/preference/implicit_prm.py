"""Implicit process rewards: an outcome model whose reward is a log-ratio rates every step (Yuan et al. 2024, arXiv 2412.01981)."""

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
from policylab.scorers.comparing import cross_entropy


@settings
class ImplicitPRM(Labelled):
    r"""r(x, y) = beta sum_t log [ pi(y_t | x, y_<t) / ref(y_t | x, y_<t) ];   min E[ -l log sigma(r) - (1 - l) log sigma(-r) ]   (equation 5)

    l is whether the answer is right: whether its reward is above `threshold`. Nothing labels steps, and yet the log-ratio up to step t is
    beta log E_ref[ exp(r / beta) | y_<=t ], a soft value of what has been written (proposition 3.1), so that the product `reward`, a
    `LogRatio`, gives each part its share: `reward.scores(prompt, answer)`. The other loss of the paper, on pairs, is `DPO`'s, whose product
    `reward` is of the same kind. `start` should be the policy that wrote the answers, which is the reference as well.

    Defaults are the paper's beta of 0.05 and rate of 5e-7; batches of 64.
    """

    beta: float = setting(0.05, "units of reward per nat of log-ratio", above=0.0)
    learning_rate: float = setting(5e-7, "of Adam", above=0.0)

    title: ClassVar[str] = "Process rewards from outcomes, implied by a log-ratio"

    def losses(self, ratio: Float[Array, " batch"], right: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """The cross-entropy of every answer from its log-ratio and whether it is right."""
        return cross_entropy(self.beta * ratio, right)

    def update(
        self, state: dict[str, Any], batch: Rated, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """One step on the weighted mean; `accuracy` is the share of answers whose reward has the right sign (0 counts half)."""
        right = self.good(batch)
        likelihood = lambda policy: jnp.sum(answer_log_probs(policy, batch.prompt, batch.sample), axis=-1)
        frozen = jax.lax.stop_gradient(likelihood(reference_of(state)))
        share = batch.weight / jnp.maximum(jnp.sum(batch.weight), 1e-6)

        def loss(policy: Policy) -> tuple[Array, Array]:
            ratio = likelihood(policy) - frozen
            return jnp.sum(share * self.losses(ratio, right)), ratio

        policy, value, ratio = descend(state["policy"], loss, optax.adam(self.learning_rate))
        accuracy = jnp.sum(share * (0.5 + 0.5 * jnp.sign(ratio) * (2.0 * right - 1.0)))
        return {**state, "policy": policy}, {"loss": value, "accuracy": accuracy}
