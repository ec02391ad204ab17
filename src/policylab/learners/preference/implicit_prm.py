"""Implicit process rewards: an outcome model whose reward is a log-ratio rates every step (Yuan et al. 2024, arXiv 2412.01981)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from policylab import spaces
from policylab.experience import Rated, Spec
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request
from policylab.networks.optimisation import descend, trained
from policylab.policies.answering import Answers, answer_log_probs
from policylab.policies.categorical import Categorical
from policylab.policies.gaussian import Gaussian
from policylab.policy import Form, Policy
from policylab.scorers.log_ratio import LogRatio


@settings
class ImplicitPRM(Learner):
    r"""r(x, y) = beta sum_t log [ pi(y_t | x, y_<t) / ref(y_t | x, y_<t) ];   min E[ -l log sigma(r) - (1 - l) log sigma(-r) ]   (equation 5)

    l is whether the answer is right: whether its reward is above `threshold`. Nothing labels steps, and yet the log-ratio up to step t is
    beta log E_ref[ exp(r / beta) | y_<=t ], a soft value of what has been written (proposition 3.1), so that the product `reward`, a
    `LogRatio`, gives each part its share: `reward.scores(prompt, answer)`. The other loss of the paper, on pairs, is `DPO`'s, whose product
    `reward` is of the same kind. `start` should be the policy that wrote the answers, which is the reference as well.

    Defaults are the paper's beta of 0.05 and rate of 5e-7; batches of 64.
    """

    beta: float = setting(0.05, "units of reward per nat of log-ratio", above=0.0)
    threshold: float = setting(0.5, "answers with a reward above it are right")
    learning_rate: float = setting(5e-7, "of Adam", above=0.0)
    batch_size: int = setting(64, "answers per update", low=1)
    policy: Form | None = setting(None, "the form of the policy without a start; None chooses by the action space")

    title: ClassVar[str] = "Process rewards from outcomes, implied by a log-ratio"
    takes: ClassVar[tuple[str, ...]] = ("start", "reference")

    @property
    def needs(self) -> Mapping[str, Request]:
        """Rated answers."""
        return {"answers": Answers(self.batch_size)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, Any]:
        """The model, and the reference, which it equals unless another one is given."""
        own = Categorical() if isinstance(spec.action, spaces.Discrete) else Gaussian()
        start = given["start"] if "start" in given else (self.policy or own).build(spec, key=key)
        return {"policy": trained(start, optax.adam(self.learning_rate)), "reference": given.get("reference", start)}

    def losses(self, ratio: Float[Array, " batch"], right: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """The cross-entropy of every answer from its log-ratio and whether it is right."""
        reward = self.beta * ratio
        return -right * jax.nn.log_sigmoid(reward) - (1.0 - right) * jax.nn.log_sigmoid(-reward)

    def update(
        self, state: dict[str, Any], batch: Rated, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """One step on the weighted mean; `accuracy` is the share of answers whose reward has the right sign (0 counts half)."""
        right = (jnp.sum(batch.reward, axis=-1) > self.threshold).astype(jnp.float32)
        likelihood = lambda policy: jnp.sum(answer_log_probs(policy, batch.prompt, batch.sample), axis=-1)
        frozen = jax.lax.stop_gradient(likelihood(state["reference"]))
        share = batch.weight / jnp.maximum(jnp.sum(batch.weight), 1e-6)

        def loss(policy: Policy) -> tuple[Array, Array]:
            ratio = likelihood(policy) - frozen
            return jnp.sum(share * self.losses(ratio, right)), ratio

        policy, value, ratio = descend(state["policy"], loss, optax.adam(self.learning_rate))
        accuracy = jnp.sum(share * (0.5 + 0.5 * jnp.sign(ratio) * (2.0 * right - 1.0)))
        return {**state, "policy": policy}, {"loss": value, "accuracy": accuracy}

    def products(self, state: dict[str, Any]) -> dict[str, Any]:
        """`reward` (the log-ratio, one term per part), the `policy` it is made of, and the `reference`."""
        policy, reference = state["policy"].model, state["reference"]
        return {"reward": LogRatio(policy, reference, self.beta), "policy": policy, "explorer": policy, "reference": reference}
