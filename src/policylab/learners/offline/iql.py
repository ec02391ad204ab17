"""IQL: implicit Q-learning (Kostrikov, Nair and Levine 2022, arXiv 2110.06169)."""

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
from policylab.networks.optimisation import Trained, descend, follow, trained
from policylab.policies.gaussian import Gaussian
from policylab.policy import Form, imitation_loss
from policylab.scorers.critic import ActionValue, StateValue


def expectile_loss(difference: Float[Array, "*batch"], expectile: Float[Array, ""] | float) -> Float[Array, "*batch"]:
    """L2^tau(u) = |tau - 1(u < 0)| u^2 (equation 1)."""
    return jnp.where(difference < 0, 1.0 - expectile, expectile) * difference**2


@settings
class IQL(Learner):
    r"""Learns values and a policy without ever asking the critic about an action that is not in the data.

    V:      min E[ L2^tau( min_i Qbar_i(s, a) - V(s) ) ]                         (equation 5)
    Q_i:    min E[ ( r + gamma (1 - terminal) V(s') - Q_i(s, a) )^2 ]            (equation 6)
    policy: min E[ min(exp(beta (min_i Qbar_i(s, a) - V(s))), 100) * imitation_loss(s, a) ]   (equation 7)

    Defaults are the paper's for MuJoCo locomotion; AntMaze uses expectile 0.9 and temperature 10. The learning rate of the policy
    follows half a cosine to 0 (section 5). Order of the updates and the advantage under the updated V follow the authors' code.
    """

    expectile: float = setting(0.7, "tau of the value regression", above=0.0, below=1.0)
    temperature: float = setting(3.0, "beta, the inverse temperature of the advantage weights", low=0.0)
    largest_weight: float = setting(100.0, "the advantage weights are clipped here", above=0.0)
    discount: float = setting(0.99, "gamma per step", low=0.0, high=1.0)
    target_rate: float = setting(0.005, "share by which target critics follow, per update", above=0.0, high=1.0)
    learning_rate: float = setting(3e-4, "of Adam, for all three networks", above=0.0)
    batch_size: int = setting(256, "transitions per update", low=1)
    width: int = setting(256, "hidden units of the critics", low=1)
    depth: int = setting(2, "hidden layers of the critics", low=1)
    policy: Form = setting(Gaussian(), "the form of the policy")

    title: ClassVar[str] = "Implicit Q-learning"
    actions: ClassVar[str] = "continuous"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Transitions."""
        return {"transitions": Steps(self.batch_size)}

    def _optimiser(self, scale: Array | float = 1.0) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate * scale)

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Networks with fresh parameters; the target critic equals the critic."""
        policy_key, critic_key, value_key = jax.random.split(key, 3)
        critic = ActionValue(spec, width=self.width, depth=self.depth, key=critic_key)
        value = StateValue(spec, width=self.width, depth=self.depth, key=value_key)
        return {
            "policy": trained(self.policy.build(spec, key=policy_key), self._optimiser()),
            "critic": trained(critic, self._optimiser()),
            "value": trained(value, self._optimiser()),
            "target": critic,
        }

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict, dict[str, Array]]:
        """V, then the policy, then Q, then the targets."""
        q = jnp.min(jax.vmap(state["target"].values)(batch.observation, batch.action), axis=-1)

        def value_loss(value: StateValue) -> tuple[Array, Array]:
            v = jax.vmap(value)(batch.observation)
            return jnp.mean(expectile_loss(q - v, self.expectile)), v

        value, value_error, _ = descend(state["value"], value_loss, self._optimiser())

        advantage = q - jax.vmap(value.model)(batch.observation)
        weight = jnp.minimum(jnp.exp(self.temperature * advantage), self.largest_weight)

        def policy_loss(policy: Any) -> tuple[Array, None]:
            return jnp.mean(weight * imitation_loss(policy, batch, key=key)), None

        cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * clock.progress))
        policy, policy_error, _ = descend(state["policy"], policy_loss, self._optimiser(cosine))

        next_value = jax.vmap(value.model)(batch.next_observation)
        goal = batch.reward + self.discount**batch.duration * batch.continues * next_value

        def critic_loss(critic: ActionValue) -> tuple[Array, Array]:
            values = jax.vmap(critic.values)(batch.observation, batch.action)
            return jnp.mean(jnp.sum((values - goal[:, None]) ** 2, axis=-1)), values

        critic, critic_error, values = descend(state["critic"], critic_loss, self._optimiser())
        target = follow(state["target"], critic.model, self.target_rate)
        metrics = {
            "value_loss": value_error,
            "policy_loss": policy_error,
            "critic_loss": critic_error,
            "q": jnp.mean(values),
            "advantage": jnp.mean(advantage),
            "weight": jnp.mean(weight),
        }
        return {"policy": policy, "critic": critic, "value": value, "target": target}, metrics

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy`, `explorer` (the policy sampling), `critic`, `value`."""
        policy: Trained = state["policy"]
        return {
            "policy": policy.model,
            "explorer": policy.model,
            "critic": state["critic"].model,
            "value": state["value"].model,
        }
