"""SAC: soft actor-critic with a tuned temperature (Haarnoja et al. 2018, arXiv 1812.05905)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Each, Learner, Request, Steps
from policylab.networks.frozen import action_scaler
from policylab.networks.optimisation import descend, follow, trained
from policylab.policies.continuous import box_of
from policylab.policies.gaussian import Gaussian
from policylab.policy import Form, Policy
from policylab.scorers.critic import ActionValue


@settings
class SAC(Learner):
    r"""Maximises reward and entropy at once:

    Q_i:         min E[ ( r + gamma (1 - terminal) ( min_j Qbar_j(s', a') - alpha log pi(a' | s') ) - Q_i(s, a) )^2 ],  a' ~ pi(. | s')
    policy:      min E[ alpha log pi(a | s) - min_j Q_j(s, a) ],  a ~ pi(. | s), reparameterised                       (equations 5 to 9)
    temperature: min E[ -log alpha ( log pi(a | s) + H ) ]                         (equation 18, with log alpha as the authors' code has it)

    H, the entropy to keep, is `entropy_per_action` nats for each action dimension, measured in units of half the action range. Settings are
    those of the paper's table 1. It learns from a Replay; a dataset serves as well, without protection against what data do not hold.
    """

    discount: float = setting(0.99, "gamma per step", low=0.0, high=1.0)
    learning_rate: float = setting(3e-4, "of Adam, for policy, critics and temperature", above=0.0)
    target_rate: float = setting(0.005, "share by which the target critics follow, per update", above=0.0, high=1.0)
    temperature: float = setting(1.0, "alpha, at the start if it is tuned", above=0.0)
    tune: bool = setting(True, "whether the temperature is tuned to keep the entropy")
    entropy_per_action: float = setting(-1.0, "entropy to keep, in nats per action dimension in units of half its range")
    n: int = setting(1, "steps of each return", low=1)
    batch_size: int = setting(256, "transitions per update", low=1)
    width: int = setting(256, "hidden units of the critics", low=1)
    depth: int = setting(2, "hidden layers of the critics", low=1)
    members: int = setting(2, "critics", low=1)
    policy: Form = setting(
        Gaussian(state_dependent_std=True, squash="sample", log_std_range=(-20.0, 2.0)),
        "the form of the policy, with a density",
    )

    title: ClassVar[str] = "Soft actor-critic"
    actions: ClassVar[str] = "continuous"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Transitions, or n-step returns."""
        return {"transitions": Steps(self.batch_size, n=self.n, discount=float(self.discount) if self.n > 1 else 1.0)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Fresh networks; the target critics equal the critics."""
        policy_key, critic_key = jax.random.split(key)
        critic = self.critics(spec, key=critic_key)
        optimiser = optax.adam(self.learning_rate)
        # Densities are per environment unit: the entropy there is that in units of half the range plus the log of each half range.
        space = box_of(spec, "SAC")
        scale = jnp.sum(jnp.log(action_scaler(space, spec.statistics.get("action")).half_range))
        return {
            "policy": trained(self.policy.build(spec, key=policy_key), optimiser),
            "critic": trained(critic, optimiser), "target": critic,
            "log_temperature": trained(jnp.log(jnp.asarray(self.temperature, jnp.float32)), optimiser),
            "entropy": self.entropy_per_action * spaces.size(space) + scale,
        }  # fmt: skip

    def critics(self, spec: Spec, *, key: PRNGKeyArray) -> ActionValue:
        """Fresh critics."""
        return ActionValue(spec, width=self.width, depth=self.depth, members=self.members, key=key)

    def goal(self, state: Mapping[str, PyTree], batch: Window, *, key: PRNGKeyArray) -> Float[Array, " batch"]:
        """What Q(s, a) is regressed on."""
        action, log_probability = self.draw(state["policy"].model, batch.next_observation, key=key)
        value = jnp.min(jax.vmap(state["target"].values)(batch.next_observation, action), axis=-1)
        soft = value - jnp.exp(state["log_temperature"].model) * log_probability
        return batch.reward + self.discount**batch.duration * batch.continues * soft

    def draw(self, policy: Policy, observation: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Float[Array, " batch"]]:
        """An action per row of a batch, and its log-probability as the target counts it."""
        return draws(policy, observation, key=key)

    def critic_penalty(self, critic: ActionValue, batch: Window) -> Float[Array, ""]:
        """What an extension adds to the loss of the critics; nothing here."""
        return jnp.zeros(())

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """The critics, the policy against them, the temperature, the targets."""
        goal_key, policy_key = jax.random.split(key)
        goal, optimiser = self.goal(state, batch, key=goal_key), optax.adam(self.learning_rate)

        def critic_loss(critic: ActionValue) -> tuple[Array, Array]:
            values = jax.vmap(critic.values)(batch.observation, batch.action)
            error = jnp.mean(batch.weight * jnp.sum((values - goal[:, None]) ** 2, axis=-1))
            return error + self.critic_penalty(critic, batch), values

        critic, critic_error, values = descend(state["critic"], critic_loss, optimiser)
        state, metrics = self.improved({**state, "critic": critic}, batch, clock=clock, key=policy_key)
        return {**state, "target": follow(state["target"], critic.model, self.target_rate)}, {
            "critic_loss": critic_error, "q": jnp.mean(values), **metrics,
            "td_error": Each(jnp.mean(jnp.abs(values - goal[:, None]), axis=-1)),
        }  # fmt: skip

    def improved(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """The state after a step of the policy against the critics, and of the temperature."""
        optimiser, temperature = optax.adam(self.learning_rate), jnp.exp(state["log_temperature"].model)
        loss = lambda policy: self.policy_loss(policy, state["critic"].model, temperature, batch, key=key)
        policy, policy_error, log_probability = descend(state["policy"], loss, optimiser)
        log_temperature = state["log_temperature"]
        if self.tune:
            lack = jnp.mean(log_probability + state["entropy"])
            log_temperature, _, _ = descend(log_temperature, lambda log_alpha: (-log_alpha * lack, None), optimiser)
        metrics = {"policy_loss": policy_error, "temperature": temperature, "entropy": -jnp.mean(log_probability)}
        return {**state, "policy": policy, "log_temperature": log_temperature}, metrics

    def policy_loss(
        self, policy: Policy, critic: ActionValue, temperature: Float[Array, ""], batch: Window, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
        """What the policy descends, and the log-probabilities of its actions."""
        action, log_probability = draws(policy, batch.observation, key=key)
        q = self.worth(jax.vmap(critic.values)(batch.observation, action))
        return jnp.mean(batch.weight * (temperature * log_probability - q)), log_probability

    def worth(self, values: Float[Array, "batch members"]) -> Float[Array, " batch"]:
        """What the policy takes for Q, of all critics."""
        return jnp.min(values, axis=-1)

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy`, `explorer` (the policy sampling), `critic`."""
        policy = state["policy"].model
        return {"policy": policy, "explorer": policy, "critic": state["critic"].model}


def draws(policy: Policy, observation: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Float[Array, " batch"]]:
    """One reparameterised action and its log-probability per row of a batch, for policies without memory."""
    rows = jax.tree.leaves(observation)[0].shape[0]
    return jax.vmap(lambda o, k: policy.sample(o, None, key=k)[:2])(observation, jax.random.split(key, rows))
