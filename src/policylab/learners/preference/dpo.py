"""Direct preference optimisation and its family, on log-probabilities alone (Rafailov et al. 2023, arXiv 2305.18290)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from policylab.experience import Preference
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Everything, Pairs, Request
from policylab.learners.preference.anchored import Anchored
from policylab.networks.optimisation import descend_by_parts
from policylab.policies.anchoring import reference_of
from policylab.policies.answering import pair_log_prob, rows_at_once
from policylab.policy import Policy

LOSSES = ("sigmoid", "ipo", "hinge")
LABELS = ("as_given", "conservative", "robust")


@settings
class DPO(Anchored):
    r"""h = log [pi(a|x) / ref(a|x)] - log [pi(b|x) / ref(b|x)];   min E[ w_a L(h) + w_b L(-h) ],  p the probability that a wins

        sigmoid  L(h) = -log sigma(beta h)                          (DPO, equation 7)
        ipo      L(h) = (h - 1 / (2 beta))^2                        (Azar et al. 2023, arXiv 2310.12036, equation 17)
        hinge    L(h) = max(0, 1 - beta h)                          (SLiC; Zhao et al. 2023, arXiv 2305.10425, as in DPO's setting)

    How labels are read, with `flips` = epsilon the share of them that is wrong:

        as_given      w_a = p,  w_b = 1 - p
        conservative  w_a = (1 - e) p + e (1 - p), w_b = 1 - w_a    (label smoothing, cDPO; Mitchell 2023)
        robust        w_a = ((1 - e) p - e (1 - p)) / (1 - 2 e), w_b = 1 - w_a
                      (rDPO; Chowdhury et al. 2024, arXiv 2403.00409, equation 12: unbiased for the loss on true labels)

    The log-probability of an answer is the sum over its parts, also for ipo, where some implementations take the mean over tokens. The same
    file aligns whatever has log-probabilities: torques, choices, text. `start` is the policy that is trained, `reference` the frozen one
    (by default `start` as it was, and of a LoRA policy its base); without `start` a fresh policy of the form is trained. The robust loss
    has no lower bound on a pair that is always labelled the same way: with a flexible policy stop early.

    Defaults are DPO's for language models (beta 0.1, batches of 64, rate 1e-6; Adam where they use RMSprop); a small policy that
    starts from scratch wants a rate of 1e-3. A `batch_size` of 0 takes all pairs at every update.
    """

    loss: Literal["sigmoid", "ipo", "hinge"] = setting("sigmoid", "sigmoid, ipo or hinge")
    labels: Literal["as_given", "conservative", "robust"] = setting("as_given", "as_given, conservative or robust")
    flips: float = setting(0.0, "assumed share of wrong labels, for conservative and robust", low=0.0, below=0.5)
    batch_size: int = setting(64, "pairs per update; 0: all of them", low=0)

    title: ClassVar[str] = "Direct preference optimisation"

    @property
    def needs(self) -> Mapping[str, Request]:
        """Preference pairs."""
        return {"pairs": Pairs(self.batch_size) if self.batch_size else Everything()}

    def weights(self, p: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """w_a of the labels p."""
        if self.labels == "as_given":
            return p
        kept, flipped = (1.0 - self.flips) * p, self.flips * (1.0 - p)
        return kept + flipped if self.labels == "conservative" else (kept - flipped) / (1.0 - 2.0 * self.flips)

    def one_sided(self, h: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """L(h): the loss where a is labelled the better one."""
        if self.loss == "ipo":
            return (h - 0.5 / self.beta) ** 2
        return jax.nn.relu(1.0 - self.beta * h) if self.loss == "hinge" else -jax.nn.log_sigmoid(self.beta * h)

    def losses(self, h: Float[Array, " batch"], p: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """The loss of every pair from its difference of log-ratios and its label."""
        weight = self.weights(p)
        return weight * self.one_sided(h) + (1.0 - weight) * self.one_sided(-h)

    def update(
        self, state: dict[str, Any], batch: Preference, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """One step on the weighted mean of the loss; `accuracy` is the share of pairs whose likelier answer is the labelled one (ties
        half), `margin` the mean of beta h towards it."""
        share = batch.weight * batch.weight.shape[0] / jnp.maximum(jnp.sum(batch.weight), 1e-6)

        def loss(policy: Policy, part: tuple[Preference, Array]) -> tuple[Array, dict[str, Array]]:
            pairs, share = part
            frozen = jax.lax.stop_gradient(pair_log_prob(reference_of(state), pairs.observation, pairs.a, pairs.b))
            a, b = pair_log_prob(policy, pairs.observation, pairs.a, pairs.b)
            h = (a - frozen[0]) - (b - frozen[1])
            towards = jnp.sign(pairs.p - 0.5) * h
            return jnp.mean(share * self.losses(h, pairs.p)), {
                "accuracy": jnp.mean(share * (0.5 + 0.5 * jnp.sign(towards))),
                "margin": self.beta * jnp.mean(share * towards),
            }

        optimiser, largest = optax.adam(self.learning_rate), rows_at_once(batch.observation, batch.a, batch.b)
        policy, value, metrics = descend_by_parts(state["policy"], loss, (batch, share), optimiser, largest=largest)
        return {**state, "policy": policy}, {"loss": value, **metrics}
