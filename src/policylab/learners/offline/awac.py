"""AWAC: advantage-weighted actor-critic (Nair et al. 2020, arXiv 2006.09359)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Steps
from policylab.networks.optimisation import descend, follow, trained
from policylab.policies.gaussian import Gaussian
from policylab.policy import Form, actions, imitation_loss
from policylab.scorers.critic import ActionValue


@settings
class AWAC(Learner):
    r"""Evaluates the current policy on the data and clones the data's actions by how much better they are.

    Q_i:    min E[ ( r + gamma (1 - terminal) min_j Qbar_j(s', a') - Q_i(s, a) )^2 ],  a' ~ pi(s')
    policy: min E[ min(exp(A(s, a) / temperature), 100) * imitation_loss(s, a) ],  A = min Q(s, a) - min Q(s, a~),  a~ ~ pi(s)   (equation 13)

    Weights are clipped and not normalised over the batch, as the usual re-implementations do (the authors' code uses a softmax
    over the batch). The learning rate, batch size and target rate are the paper's.
    """

    temperature: float = setting(1.0, "lambda: smaller trusts the advantage more", above=0.0)
    largest_weight: float = setting(100.0, "the advantage weights are clipped here", above=0.0)
    discount: float = setting(0.99, "gamma per step", low=0.0, high=1.0)
    target_rate: float = setting(0.005, "share by which target critics follow, per update", above=0.0, high=1.0)
    learning_rate: float = setting(3e-4, "of Adam, for policy and critics", above=0.0)
    batch_size: int = setting(1024, "transitions per update", low=1)
    width: int = setting(256, "hidden units of the critics", low=1)
    depth: int = setting(2, "hidden layers of the critics", low=1)
    policy: Form = setting(Gaussian(), "the form of the policy")

    title: ClassVar[str] = "Advantage-weighted actor-critic"
    actions: ClassVar[str] = "continuous"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Transitions."""
        return {"transitions": Steps(self.batch_size)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Fresh networks; the target critic equals the critic."""
        policy_key, critic_key = jax.random.split(key)
        critic = ActionValue(spec, width=self.width, depth=self.depth, key=critic_key)
        optimiser = optax.adam(self.learning_rate)
        return {
            "policy": trained(self.policy.build(spec, key=policy_key), optimiser),
            "critic": trained(critic, optimiser),
            "target": critic,
        }

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict, dict[str, Array]]:
        """Q, then the policy, then the target."""
        next_key, own_key, loss_key = jax.random.split(key, 3)
        policy = state["policy"].model
        next_action = actions(policy, batch.next_observation, key=next_key)
        next_value = jnp.min(jax.vmap(state["target"].values)(batch.next_observation, next_action), axis=-1)
        goal = batch.reward + self.discount**batch.duration * batch.continues * next_value

        def critic_loss(critic: ActionValue) -> tuple[Array, Array]:
            values = jax.vmap(critic.values)(batch.observation, batch.action)
            return jnp.mean(jnp.sum((values - goal[:, None]) ** 2, axis=-1)), values

        critic, critic_error, values = descend(state["critic"], critic_loss, optax.adam(self.learning_rate))

        q = jax.vmap(critic.model.values)
        own = jnp.min(q(batch.observation, actions(policy, batch.observation, key=own_key)), axis=-1)
        advantage = jnp.min(q(batch.observation, batch.action), axis=-1) - own
        weight = jnp.minimum(jnp.exp(advantage / self.temperature), self.largest_weight)

        def policy_loss(policy: Any) -> tuple[Array, None]:
            return jnp.mean(weight * imitation_loss(policy, batch, key=loss_key)), None

        learned, policy_error, _ = descend(state["policy"], policy_loss, optax.adam(self.learning_rate))
        metrics = {
            "critic_loss": critic_error, "policy_loss": policy_error, "q": jnp.mean(values),
            "advantage": jnp.mean(advantage), "weight": jnp.mean(weight),
        }  # fmt: skip
        target = follow(state["target"], critic.model, self.target_rate)
        return {"policy": learned, "critic": critic, "target": target}, metrics

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy`, `explorer`, `critic`."""
        policy = state["policy"].model
        return {"policy": policy, "explorer": policy, "critic": state["critic"].model}
