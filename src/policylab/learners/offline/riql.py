"""RIQL: robust implicit Q-learning for corrupted data (Yang et al. 2024, arXiv 2310.12955)."""

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
from policylab.learners.offline.iql import expectile_loss
from policylab.networks.optimisation import Trained, descend, follow, trained
from policylab.policies.deterministic import Deterministic
from policylab.policy import Form, imitation_loss
from policylab.scorers.critic import ActionValue, StateValue


def huber_loss(difference: Float[Array, "*batch"], sigma: Float[Array, ""] | float) -> Float[Array, "*batch"]:
    """With b = 1 / sigma^2: u^2 / (2 b) where |u| < b, else |u| - b / 2; a slope of at most 1 (equation 7, as the authors' code
    has it)."""
    bound, size = 1.0 / jnp.square(sigma), jnp.abs(difference)
    return jnp.where(size < bound, 0.5 * difference**2 / bound, size - 0.5 * bound)


@settings
class RIQL(Learner):
    r"""IQL for data in which some observations, actions, rewards or successors are wrong.

    q(s, a) = the `quantile` over K target critics Qbar_i(s, a), where IQL takes the minimum of two
    V:      min E[ L2^tau( q(s, a) - V(s) ) ]
    Q_i:    min E[ Huber( clip(r + gamma (1 - terminal) V(s'), lowest_goal, highest_goal) - Q_i(s, a) ) ], V before its update
    policy: min E[ min(exp(beta (q(s, a) - V(s))), 100) * imitation_loss(s, a) ], V before its update

    Observations are normalised by the statistics of the (corrupted) data. Defaults are the authors' code's; the paper tunes `members`
    in {3, 5}, `quantile` in {0.1, 0.25, 0.5} and `sigma` in {0.1, 0.5, 1, 3} for every environment and kind of corruption. Values
    are clipped for returns of the size of MuJoCo's: scale rewards, or widen the bounds, where returns are below -100.
    """

    expectile: float = setting(0.7, "tau of the value regression", above=0.0, below=1.0)
    quantile: float = setting(0.25, "over the target critics; 0 is their minimum, 0.5 their median", low=0.0, high=1.0)
    sigma: float = setting(1.0, "the Huber loss is quadratic for errors below 1 / sigma^2", above=0.0)
    temperature: float = setting(3.0, "beta, the inverse temperature of the advantage weights", low=0.0)
    largest_weight: float = setting(100.0, "the advantage weights are clipped here", above=0.0)
    lowest_goal: float = setting(-100.0, "targets of the critics are clipped from below here, in units of the return")
    highest_goal: float = setting(1000.0, "targets of the critics are clipped from above here, in units of the return")
    discount: float = setting(0.99, "gamma per step", low=0.0, high=1.0)
    target_rate: float = setting(0.005, "share by which target critics follow, per update", above=0.0, high=1.0)
    learning_rate: float = setting(3e-4, "of Adam, for all three networks", above=0.0)
    members: int = setting(5, "critics in the ensemble, K", low=1)
    batch_size: int = setting(256, "transitions per update", low=1)
    width: int = setting(256, "hidden units of the critics", low=1)
    depth: int = setting(2, "hidden layers of the critics", low=1)
    policy: Form = setting(Deterministic(), "the form of the policy")

    title: ClassVar[str] = "Robust implicit Q-learning"
    actions: ClassVar[str] = "continuous"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Transitions."""
        return {"transitions": Steps(self.batch_size)}

    def _optimiser(self, scale: Array | float = 1.0) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate * scale)

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Networks with fresh parameters; the target critics equal the critics."""
        policy_key, critic_key, value_key = jax.random.split(key, 3)
        critic = ActionValue(spec, members=self.members, width=self.width, depth=self.depth, key=critic_key)
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
        """V, then the critics and their targets, then the policy; goals and advantages are those of V before this update."""
        targets = jax.vmap(state["target"].values)(batch.observation, batch.action)
        q = jnp.quantile(targets, self.quantile, axis=-1)
        next_value = jax.vmap(state["value"].model)(batch.next_observation)

        def value_loss(value: StateValue) -> tuple[Array, Array]:
            advantage = q - jax.vmap(value)(batch.observation)
            return jnp.mean(expectile_loss(advantage, self.expectile)), advantage

        value, value_error, advantage = descend(state["value"], value_loss, self._optimiser())

        goal = batch.reward + self.discount**batch.duration * batch.continues * next_value
        goal = jnp.clip(goal, self.lowest_goal, self.highest_goal)

        def critic_loss(critic: ActionValue) -> tuple[Array, Array]:
            values = jax.vmap(critic.values)(batch.observation, batch.action)
            return jnp.mean(huber_loss(goal[:, None] - values, self.sigma)), values

        critic, critic_error, values = descend(state["critic"], critic_loss, self._optimiser())

        weight = jnp.minimum(jnp.exp(self.temperature * advantage), self.largest_weight)

        def policy_loss(policy: Any) -> tuple[Array, None]:
            return jnp.mean(weight * imitation_loss(policy, batch, key=key)), None

        cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * clock.progress))
        policy, policy_error, _ = descend(state["policy"], policy_loss, self._optimiser(cosine))
        metrics = {
            "value_loss": value_error,
            "policy_loss": policy_error,
            "critic_loss": critic_error,
            "q": jnp.mean(values),
            "spread": jnp.mean(jnp.std(targets, axis=-1)),
            "advantage": jnp.mean(advantage),
            "weight": jnp.mean(weight),
        }
        target = follow(state["target"], critic.model, self.target_rate)
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
