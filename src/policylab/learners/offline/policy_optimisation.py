"""Policies learned from logged choices with propensities: importance weights, alone or with a model of the reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Steps
from policylab.networks.optimisation import descend, trained
from policylab.policies.categorical import Categorical, CategoricalPolicy
from policylab.policy import Form
from policylab.scorers.choice import ChoiceValue


def doubly_robust_values(
    model: Float[Array, "batch choice"],
    action: Array,
    reward: Float[Array, " batch"],
    propensity: Float[Array, " batch"],
    clip: Array | float,
) -> Float[Array, "batch choice"]:
    """q(x, .) + 1(. = a) min(1 / p, clip) (r - q(x, a)): what each choice is worth by one row (Dudik et al. 2011, equation 2)."""
    taken = jnp.take_along_axis(model, action[:, None], axis=-1)[:, 0]
    correction = jnp.minimum(1.0 / propensity, clip) * (reward - taken)
    return model + jax.nn.one_hot(action, model.shape[-1]) * correction[:, None]


@settings
class IPW(Learner):
    r"""max E[ sum_a pi(a | x) 1(a = a_log) min(1/p, clip) (r - b) ] + entropy * H(pi(. | x)), with b the mean reward so far

    Inverse-propensity-weighted policy learning (Strehl et al. 2010; the constant b is the translation of Joachims et al. 2018 that
    removes propensity overfitting: without it a policy learns to avoid whatever was logged).
    """

    clip: float = setting(100.0, "importance weights of the log are clipped here", above=0.0)
    entropy: float = setting(1e-3, "weight of the policy's entropy, in units of the reward", low=0.0)
    learning_rate: float = setting(1e-3, "of Adam", above=0.0)
    decay: float = setting(1e-2, "decoupled weight decay", low=0.0)
    batch_size: int = setting(256, "decisions per update", low=1)
    policy: Form = setting(Categorical(width=64, depth=1), "the form of the policy")

    title: ClassVar[str] = "Inverse-propensity-weighted policy learning"
    actions: ClassVar[str] = "discrete"
    uses: ClassVar[tuple[str, ...]] = ("reward", "propensity")

    @property
    def needs(self) -> Mapping[str, Request]:
        """Decisions with their propensities."""
        return {"decisions": Steps(self.batch_size, fields=("propensity",))}

    def _optimiser(self) -> optax.GradientTransformation:
        return optax.adamw(self.learning_rate, weight_decay=self.decay)

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """A fresh policy and a mean reward of 0 over no rows."""
        policy = self.policy.build(spec, key=key)
        return {"policy": trained(policy, self._optimiser()), "reward": jnp.zeros(()), "rows": jnp.zeros(())}

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict, dict[str, Array]]:
        """The mean reward, then the policy."""
        rows = state["rows"] + batch.reward.shape[0]
        mean = state["reward"] + jnp.sum(batch.reward - state["reward"]) / rows
        choices = jax.vmap(state["policy"].model.action_logits)(batch.observation).shape[-1]
        nothing = jnp.zeros((batch.reward.shape[0], choices))
        values = doubly_robust_values(nothing, batch.action, batch.reward - mean, batch.extra["propensity"], self.clip)
        policy, metrics = improve(state["policy"], values, batch, self.entropy, self._optimiser())
        return {"policy": policy, "reward": mean, "rows": rows}, {**metrics, "mean_reward": mean}

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy` and `explorer`."""
        policy = state["policy"].model
        return {"policy": policy, "explorer": policy}


@settings
class DoublyRobust(IPW):
    r"""max E[ sum_a pi(a | x) ( q(x, a) + 1(a = a_log) min(1/p, clip) (r - q(x, a_log)) ) ] + entropy * H(pi(. | x))

    Doubly robust policy learning (Dudik et al. 2011, arXiv 1103.4601). The model q is fitted by least squares beside the policy, on
    other batches of the same rows: there is no cross-fitting, so q's fit to a row leaks a little into its correction.
    """

    width: int = setting(64, "hidden units of the reward's model", low=1)
    depth: int = setting(1, "hidden layers of the reward's model; 0 is linear", low=0)

    title: ClassVar[str] = "Doubly robust policy learning"

    @property
    def needs(self) -> Mapping[str, Request]:
        """Decisions for the policy, others for the model of the reward."""
        return {"decisions": Steps(self.batch_size, fields=("propensity",)), "regression": Steps(self.batch_size)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """A fresh policy and a fresh model of the reward."""
        policy_key, model_key = jax.random.split(key)
        policy = self.policy.build(spec, key=policy_key)
        model = ChoiceValue(spec, width=self.width, depth=self.depth, key=model_key)
        return {"policy": trained(policy, self._optimiser()), "model": trained(model, self._optimiser())}

    def update(self, state: dict[str, PyTree], batch: Any, *, clock: Clock, key: PRNGKeyArray) -> tuple[dict, dict[str, Array]]:
        """The model of the reward, then the policy."""
        decisions, regression = batch["decisions"], batch["regression"]

        def loss(model: ChoiceValue) -> tuple[Array, None]:
            values = jax.vmap(model.values)(regression.observation)
            taken = jnp.take_along_axis(values, regression.action[:, None], axis=-1)[:, 0]
            return jnp.mean((taken - regression.reward) ** 2), None

        model, error, _ = descend(state["model"], loss, self._optimiser())
        values = doubly_robust_values(
            jax.vmap(model.model.values)(decisions.observation), decisions.action, decisions.reward,
            decisions.extra["propensity"], self.clip,
        )  # fmt: skip
        policy, metrics = improve(state["policy"], values, decisions, self.entropy, self._optimiser())
        return {"policy": policy, "model": model}, {**metrics, "reward_loss": error}

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy`, `explorer`, `critic` (the model of the reward)."""
        return {**IPW.products(self, state), "critic": state["model"].model}


def improve(
    state: Any,
    values: Float[Array, "batch choice"],
    batch: Window,
    entropy: Array | float,
    optimiser: optax.GradientTransformation,
) -> tuple[Any, dict[str, Array]]:
    """One step up E[ sum_a pi(a | x) values(x, a) + entropy * H(pi(. | x)) ]."""

    def loss(policy: CategoricalPolicy) -> tuple[Array, Array]:
        logits = jax.nn.log_softmax(jax.vmap(policy.action_logits)(batch.observation))
        spread = -jnp.sum(jnp.exp(logits) * logits, axis=-1)
        gain = jnp.sum(jnp.exp(logits) * jax.lax.stop_gradient(values), axis=-1)
        return -jnp.mean(gain + entropy * spread), jnp.mean(spread)

    state, error, spread = descend(state, loss, optimiser)
    return state, {"policy_loss": error, "entropy": spread}
