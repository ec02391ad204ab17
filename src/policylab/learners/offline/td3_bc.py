"""TD3+BC: a minimalist approach to offline learning (Fujimoto and Gu 2021, arXiv 2106.06860)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Sometimes, Steps
from policylab.networks.optimisation import descend, follow, trained
from policylab.policies.deterministic import Deterministic, smoothed_actions
from policylab.policy import Form, actions, imitation_loss
from policylab.scorers.critic import ActionValue


@settings
class TD3BC(Learner):
    r"""TD3 whose actor is also pulled towards the actions of the data.

    Q_i:    min E[ ( r + gamma (1 - terminal) min_j Qbar_j(s', clip(pibar(s') + noise)) - Q_i(s, a) )^2 ]
    policy: max E[ lambda Q_1(s, pi(s)) - |pi(s) - a|^2 ],  lambda = alpha / mean |Q_1(s, pi(s))|      (equations 5 and 6)

    The policy and all targets move every `policy_period` updates. Squared errors are means over action dimensions in units of
    half the action range, as the authors' code has them for actions in [-1, 1]; observations are normalised.
    """

    alpha: float = setting(2.5, "weight of the normalised value against imitation", low=0.0)
    discount: float = setting(0.99, "gamma per step", low=0.0, high=1.0)
    noise: float = setting(0.2, "standard deviation of the target action's noise, in half action ranges", low=0.0)
    noise_clip: float = setting(0.5, "the noise is clipped here, in half action ranges", low=0.0)
    target_rate: float = setting(0.005, "share by which targets follow, per policy update", above=0.0, high=1.0)
    learning_rate: float = setting(3e-4, "of Adam, for policy and critics", above=0.0)
    policy_period: int = setting(2, "updates of the critics per update of the policy", low=1)
    batch_size: int = setting(256, "transitions per update", low=1)
    width: int = setting(256, "hidden units of the critics", low=1)
    depth: int = setting(2, "hidden layers of the critics", low=1)
    policy: Form = setting(Deterministic(), "the form of the policy")

    title: ClassVar[str] = "TD3 with behaviour cloning"
    actions: ClassVar[str] = "continuous"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Transitions."""
        return {"transitions": Steps(self.batch_size)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Fresh networks; targets equal them."""
        policy_key, critic_key = jax.random.split(key)
        policy = self.policy.build(spec, key=policy_key)
        critic = ActionValue(spec, width=self.width, depth=self.depth, key=critic_key)
        optimiser = optax.adam(self.learning_rate)
        return {
            "policy": trained(policy, optimiser), "critic": trained(critic, optimiser),
            "target_policy": policy, "target_critic": critic,
        }  # fmt: skip

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict, dict[str, Any]]:
        """The critics; at every `policy_period`-th step also the policy and the targets."""
        noise_key, policy_key = jax.random.split(key)
        next_action = smoothed_actions(
            state["target_policy"], batch.next_observation, noise=self.noise, clip=self.noise_clip, key=noise_key
        )
        next_value = jnp.min(jax.vmap(state["target_critic"].values)(batch.next_observation, next_action), axis=-1)
        goal = batch.reward + self.discount**batch.duration * batch.continues * next_value

        def critic_loss(critic: ActionValue) -> tuple[Array, Array]:
            values = jax.vmap(critic.values)(batch.observation, batch.action)
            return jnp.mean(jnp.sum((values - goal[:, None]) ** 2, axis=-1)), values

        critic, critic_error, values = descend(state["critic"], critic_loss, optax.adam(self.learning_rate))
        state = {**state, "critic": critic}

        def policy_loss(policy: Any) -> tuple[Array, None]:
            own = actions(policy, batch.observation, key=policy_key)
            q = jax.vmap(critic.model.first_value)(batch.observation, own)
            scale = self.alpha / jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
            return jnp.mean(imitation_loss(policy, batch, key=policy_key)) - scale * jnp.mean(q), None

        def improve(state: dict[str, PyTree]) -> tuple[dict[str, PyTree], Array]:
            policy, error, _ = descend(state["policy"], policy_loss, optax.adam(self.learning_rate))
            return {
                **state, "policy": policy,
                "target_policy": follow(state["target_policy"], policy.model, self.target_rate),
                "target_critic": follow(state["target_critic"], critic.model, self.target_rate),
            }, error  # fmt: skip

        due = clock.step % self.policy_period == 0
        state, policy_error = jax.lax.cond(due, improve, lambda state: (state, jnp.zeros(())), state)
        return state, {"critic_loss": critic_error, "q": jnp.mean(values), "policy_loss": Sometimes(policy_error, due)}

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy`, `explorer`, `critic`."""
        policy = state["policy"].model
        return {"policy": policy, "explorer": policy, "critic": state["critic"].model}
