"""GPO: general preference optimisation by self-play (Zhang et al. 2024, arXiv 2410.02197, section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from policylab.experience import Rated, Spec
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request
from policylab.networks.optimisation import descend, select, trained
from policylab.policies.anchoring import as_kept, kept, starting_policy
from policylab.policies.answering import Answers, group_log_probs
from policylab.policy import Form, Policy


@settings
class GPO(Learner):
    r"""min E[ mean_i ( log [pi(y_i) / pi_t(y_i)] - (s_i - mean_j s_j) / beta )^2 ],  s_i how y_i does against its group

    so that pi_(t+1) ~ pi_t exp(s / beta). The reward of an answer is s_i; a source such as `Responses(..., by="win_rate")` gives the share of
    comparisons that it wins (SPPO, Wu et al. 2024, arXiv 2405.00675), or the mean log-odds of a general preference model. The explorer is
    pi_t, renewed every `every` updates. The paper's baseline is the log of the partition function, which it sets to about 0; the mean
    over the group estimates it. There is no other pull towards the reference than the number of iterations.
    """

    beta: float = setting(1.0, "one over the step, in units of s per nat", above=0.0)
    every: int = setting(200, "updates of one iteration", low=1)
    group: int = setting(5, "answers to each prompt", low=2)
    learning_rate: float = setting(5e-7, "of Adam", above=0.0)
    batch_size: int = setting(64, "prompts per update", low=1)
    policy: Form | None = setting(None, "the form of the policy without a start; None chooses by the action space")

    title: ClassVar[str] = "General preference optimisation"
    takes: ClassVar[tuple[str, ...]] = ("start",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Groups of rated answers of the explorer."""
        return {"answers": Answers(self.batch_size, group=self.group)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, Any]:
        """The policy and the first iterate, which equals it."""
        start = starting_policy(self.policy, spec, key=key, given=given)
        return {"policy": trained(start, optax.adam(self.learning_rate)), "iterate": kept(start)}

    def losses(self, ratio: Float[Array, "batch group"], gain: Float[Array, "batch group"]) -> Float[Array, "batch group"]:
        """The regression of every answer from its log-ratio to the iterate and how it does against its group."""
        return (ratio - (gain - jnp.mean(gain, axis=1, keepdims=True)) / self.beta) ** 2

    def update(
        self, state: dict[str, Any], batch: Rated, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """One step of the regression; then, at the end of an iteration, the policy becomes the iterate."""
        likelihood = lambda policy: jnp.sum(group_log_probs(policy, batch.prompt, batch.sample), axis=-1)
        before, gain = (
            jax.lax.stop_gradient(likelihood(as_kept(state["iterate"], state["policy"].model))),
            jnp.sum(batch.reward, axis=-1),
        )
        share = batch.weight / jnp.maximum(jnp.sum(batch.weight), 1e-6)

        def loss(policy: Policy) -> tuple[Array, None]:
            return jnp.sum(share * self.losses(likelihood(policy) - before, gain)), None

        policy, value, _ = descend(state["policy"], loss, optax.adam(self.learning_rate))
        iterate = select((clock.step + 1) % self.every == 0, kept(policy.model), state["iterate"])
        return {"policy": policy, "iterate": iterate}, {"loss": value}

    def products(self, state: dict[str, Any]) -> dict[str, Any]:
        """`policy` (the last one) and `explorer` (the iterate pi_t, sampling)."""
        policy = state["policy"].model
        return {"policy": policy, "explorer": as_kept(state["iterate"], policy)}
