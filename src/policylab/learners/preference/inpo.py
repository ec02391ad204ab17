"""INPO: iterative Nash policy optimisation with general preferences (Zhang et al. 2024, arXiv 2407.00617)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from policylab.experience import Preference, Spec
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Pairs, Request
from policylab.networks.optimisation import descend, select
from policylab.policies.anchoring import anchored, as_kept, kept, reference_of
from policylab.policies.answering import pair_log_prob
from policylab.policy import Form, Policy


@settings
class INPO(Learner):
    r"""Self-play by mirror descent, one regression on compared pairs per iteration. With a, b drawn from pi_t independently, p = P(a > b):

        h = log [pi(a) / pi(b)] - (tau / eta) log [ref(a) / ref(b)] - ((eta - tau) / eta) log [pi_t(a) / pi_t(b)]      (equation 9)
        pi_(t+1) = argmin E[ p (h - 1 / (2 eta))^2 + (1 - p) (h + 1 / (2 eta))^2 ]                                      (equation 12)

    whose minimiser is the step of mirror descent, pi_(t+1)(y) ~ exp(P(y > pi_t) / eta) ref(y)^(tau / eta) pi_t(y)^(1 - tau / eta),
    towards the Nash policy of P(pi > pi') - tau KL(pi || ref) + tau KL(pi' || ref). The explorer is pi_t, renewed every `every` updates;
    a source such as `Comparisons` draws pairs from it. tau = eta on pairs of pi_t is IPO, tau = 0 pure self-play. In the paper's
    practice pairs are the best and the worst of eight answers; the identity above needs independent draws, which is what we ask for.

    The authors' code could not be had. A public implementation that says it is derived from it takes tau = eta / 3 with eta 0.005; the
    defaults keep that ratio at steps a third as long.
    """

    tau: float = setting(0.005, "strength of the regularisation towards the reference, in units of win probability", low=0.0)
    eta: float = setting(0.015, "one over the step of mirror descent, at least tau", above=0.0)
    every: int = setting(200, "updates of one iteration", low=1)
    learning_rate: float = setting(1e-6, "of Adam", above=0.0)
    batch_size: int = setting(64, "pairs per update", low=1)
    policy: Form | None = setting(None, "the form of the policy without a start; None chooses by the action space")

    title: ClassVar[str] = "Iterative Nash policy optimisation"
    takes: ClassVar[tuple[str, ...]] = ("start", "reference")

    @property
    def needs(self) -> Mapping[str, Request]:
        """Preference pairs of the explorer."""
        return {"pairs": Pairs(self.batch_size)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, Any]:
        """The policy; the reference and the first iterate equal it unless a reference is given."""
        begun = anchored(self.policy, self.learning_rate, spec, key=key, given=given)
        return {**begun, "iterate": kept(begun["policy"].model)}

    def losses(self, h: Float[Array, " batch"], p: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """The regression of every pair."""
        half = 0.5 / self.eta
        return p * (h - half) ** 2 + (1.0 - p) * (h + half) ** 2

    def update(
        self, state: dict[str, Any], batch: Preference, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """One step of the regression; then, at the end of an iteration, the policy becomes the iterate."""
        pairs = (batch.observation, batch.a, batch.b)
        ratio = lambda policy: (lambda ab: ab[0] - ab[1])(pair_log_prob(policy, *pairs))
        pull, iterate = self.tau / self.eta, as_kept(state["iterate"], state["policy"].model)
        target = pull * ratio(reference_of(state)) + (1.0 - pull) * ratio(iterate)
        target = jax.lax.stop_gradient(target)
        share = batch.weight / jnp.maximum(jnp.sum(batch.weight), 1e-6)

        def loss(policy: Policy) -> tuple[Array, None]:
            return jnp.sum(share * self.losses(ratio(policy) - target, batch.p)), None

        policy, value, _ = descend(state["policy"], loss, optax.adam(self.learning_rate))
        iterate = select((clock.step + 1) % self.every == 0, kept(policy.model), state["iterate"])
        return {**state, "policy": policy, "iterate": iterate}, {"loss": value}

    def products(self, state: dict[str, Any]) -> dict[str, Any]:
        """`policy` (the last one), `explorer` (the iterate pi_t, sampling) and `reference`."""
        policy = state["policy"].model
        return {"policy": policy, "explorer": as_kept(state["iterate"], policy), "reference": reference_of(state)}
