"""CoPG: contrastive policy gradient on scored answers from anywhere (Flet-Berliac et al. 2024, arXiv 2406.19185)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from policylab.experience import Rated
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Request
from policylab.learners.preference.anchored import Anchored
from policylab.networks.optimisation import descend
from policylab.policies.anchoring import reference_of
from policylab.policies.answering import Answers, group_log_probs
from policylab.policy import Policy


@settings
class CoPG(Anchored):
    r"""R_b(y) = R(x, y) - beta log [pi(y|x) / ref(y|x)];   max along  E[ sum_i (R_b(y_i) - baseline_i) grad log pi(y_i) ]

    With `baseline` "others", the mean of R_b over the other answers to the prompt, this is the gradient of the supervised-friendly loss

        1 / (2 beta) E[ (R(y) - R(y') - beta (log [pi(y)/ref(y)] - log [pi(y')/ref(y')]))^2 ]                     (equation 5)

    for two answers, and has the optimum of E[R] - beta KL(pi || ref), pi ~ ref exp(R / beta), wherever the answers come from. A gap of 1/2
    between a preferred and a rejected answer is IPO; answers of the policy itself give RLOO. "none" and "batch" (the mean reward
    of the whole batch) are what it is compared with: off policy their fixed points are others.
    """

    beta: float = setting(0.1, "how strongly the policy is held to the reference, in units of reward per nat", above=0.0)
    baseline: Literal["others", "none", "batch"] = setting("others", "others, none or batch")
    group: int = setting(2, "answers to each prompt", low=2)
    batch_size: int = setting(64, "prompts per update", low=1)

    title: ClassVar[str] = "Contrastive policy gradient"

    @property
    def needs(self) -> Mapping[str, Request]:
        """Groups of scored answers."""
        return {"answers": Answers(self.batch_size, group=self.group)}

    def advantages(
        self, reward: Float[Array, "batch group"], ratio: Float[Array, "batch group"]
    ) -> Float[Array, "batch group"]:
        """R_b minus its baseline, from rewards and log-ratios."""
        gain = reward - self.beta * ratio
        if self.baseline == "none":
            return gain
        if self.baseline == "batch":
            return gain - jnp.mean(reward)
        return (gain - jnp.mean(gain, axis=1, keepdims=True)) * self.group / (self.group - 1)

    def update(
        self, state: dict[str, Any], batch: Rated, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """One step along the direction; `error` is the mean square of R_b's difference to the other answers', 0 at the optimum."""
        likelihood = lambda policy: jnp.sum(group_log_probs(policy, batch.prompt, batch.sample), axis=-1)
        frozen, reward = likelihood(reference_of(state)), jnp.sum(batch.reward, axis=-1)
        share = batch.weight / jnp.maximum(jnp.sum(batch.weight), 1e-6)

        def loss(policy: Policy) -> tuple[Array, Array]:
            log_prob = likelihood(policy)
            gain = jax.lax.stop_gradient(self.advantages(reward, log_prob - frozen))
            return -jnp.sum(share * gain * log_prob) * self.group, log_prob - frozen

        policy, value, ratio = descend(state["policy"], loss, optax.adam(self.learning_rate))
        gain = reward - self.beta * ratio
        error = jnp.mean(((gain - jnp.mean(gain, axis=1, keepdims=True)) * self.group / (self.group - 1)) ** 2)
        metrics = {"surrogate": value, "error": error, "reward": jnp.sum(share * reward), "kl": jnp.sum(share * ratio)}
        return {**state, "policy": policy}, metrics
