"""A2PR: adaptive advantage-guided policy regularisation (Liu et al. 2024, arXiv 2405.19909)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Sometimes, Steps
from policylab.networks.cvae import ConditionalVAE
from policylab.networks.optimisation import descend, follow, trained
from policylab.policies.deterministic import Deterministic, smoothed_actions
from policylab.policy import Form, actions
from policylab.scorers.critic import ActionValue, StateValue

Units = Float[Array, "batch size"]


@settings
class A2PR(Learner):
    r"""TD3 whose actor is pulled towards the better of two actions, and only where one of them is better than average.

    Q_i:    min E[ ( y - Q_i(s, a) )^2 ],  y = r + gamma (1 - terminal) min_j Qbar_j(s', a'),  a' = clip(pibar(s') + noise)
    V:      min E[ ( min(y, r + gamma (1 - terminal) min_j Q_j(s', a')) - V(s) )^2 ]
    VAE:    min E[ w 1(Q_1(s, a) > V(s)) |decode(s, z) - a|^2 + KL(q(z | s, a), N(0, 1)) / 2 ]
    policy: max E[ lambda Q_1(s, pi(s)) - m(s) |pi(s) - abar|^2 ],  lambda = alpha / mean |Q_1(s, pi(s))|,
            abar the action with the larger Q_1 of the logged one and the VAE's,  m(s) = 1 where either has Q_1 above V(s), else 0

    Follows the authors' code. There the VAE's action is the policy's own, encoded and decoded (the gradient passes through), not a
    draw from the prior; advantages use the first critic and the V from before its step; KL is a mean over latent dimensions. The
    policy and all targets move every `policy_period` updates. `guided` and `masked` switch the VAE's action and m(s) off.
    """

    alpha: float = setting(2.5, "weight of the normalised value against the pull", low=0.0)
    pull: float = setting(1.0, "m(s) where the pull is on", low=0.0)
    reconstruction_weight: float = setting(1.0, "w, of the VAE's reconstruction error", low=0.0)
    discount: float = setting(0.99, "gamma per step", low=0.0, high=1.0)
    noise: float = setting(0.2, "standard deviation of the target action's noise, in half action ranges", low=0.0)
    noise_clip: float = setting(0.5, "the noise is clipped here, in half action ranges", low=0.0)
    target_rate: float = setting(0.005, "share by which targets follow, per policy update", above=0.0, high=1.0)
    learning_rate: float = setting(3e-4, "of Adam, for policy, critics and V", above=0.0)
    vae_learning_rate: float = setting(1e-3, "of Adam, for the VAE", above=0.0)
    policy_period: int = setting(2, "updates of the critics per update of the policy", low=1)
    batch_size: int = setting(256, "transitions per update", low=1)
    width: int = setting(256, "hidden units of the critics and of V", low=1)
    depth: int = setting(2, "hidden layers of the critics and of V", low=1)
    vae_width: int = setting(750, "hidden units of encoder and decoder, two layers each", low=1)
    guided: bool = setting(True, "consider the VAE's action beside the logged one")
    masked: bool = setting(True, "pull only where an action is better than V")
    policy: Form = setting(Deterministic(), "the form of the policy")

    title: ClassVar[str] = "Adaptive advantage-guided policy regularisation"
    actions: ClassVar[str] = "continuous"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Transitions."""
        return {"transitions": Steps(self.batch_size)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Fresh networks; targets equal them; the VAE's latent has twice the size of an action."""
        policy_key, critic_key, value_key, vae_key = jax.random.split(key, 4)
        policy = self.policy.build(spec, key=policy_key)
        critic = ActionValue(spec, width=self.width, depth=self.depth, key=critic_key)
        value = StateValue(spec, width=self.width, depth=self.depth, key=value_key)
        size = spaces.size(spec.action)
        vae = ConditionalVAE(spaces.size(spec.observation), size, latent=2 * size, width=self.vae_width, key=vae_key)
        optimiser = optax.adam(self.learning_rate)
        return {
            "policy": trained(policy, optimiser), "critic": trained(critic, optimiser), "value": trained(value, optimiser),
            "vae": trained(vae, optax.adam(self.vae_learning_rate)), "target_policy": policy, "target_critic": critic,
        }  # fmt: skip

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict, dict[str, Any]]:
        """The critics, V and the VAE; at every `policy_period`-th step also the policy and the targets."""
        noise_key, policy_key, fit_key, candidate_key = jax.random.split(key, 4)
        next_action = smoothed_actions(
            state["target_policy"], batch.next_observation, noise=self.noise, clip=self.noise_clip, key=noise_key
        )

        def backed_up(critic: ActionValue) -> Float[Array, " batch"]:
            next_value = jnp.min(jax.vmap(critic.values)(batch.next_observation, next_action), axis=-1)
            return batch.reward + self.discount**batch.duration * batch.continues * next_value

        goal = backed_up(state["target_critic"])

        def critic_loss(critic: ActionValue) -> tuple[Array, Array]:
            values = jax.vmap(critic.values)(batch.observation, batch.action)
            return jnp.mean(jnp.sum((values - goal[:, None]) ** 2, axis=-1)), values

        critic, critic_error, values = descend(state["critic"], critic_loss, optax.adam(self.learning_rate))
        value_goal = jnp.minimum(goal, backed_up(critic.model))

        def value_loss(value: StateValue) -> tuple[Array, Array]:
            v = jax.vmap(value)(batch.observation)
            return jnp.mean((v - value_goal) ** 2), v

        value, value_error, v = descend(state["value"], value_loss, optax.adam(self.learning_rate))
        logged_q = jax.vmap(critic.model.first_value)(batch.observation, batch.action)
        condition, logged = _inputs(critic.model, batch.observation, batch.action)

        def vae_loss(vae: ConditionalVAE) -> tuple[Array, None]:
            decoded, divergence = _reconstructed(vae, condition, logged, fit_key)
            error = (logged_q > v)[:, None] * (decoded - logged) ** 2
            return self.reconstruction_weight * jnp.mean(error) + 0.5 * jnp.mean(divergence), None

        vae, vae_error, _ = descend(state["vae"], vae_loss, optax.adam(self.vae_learning_rate))
        state = {**state, "critic": critic, "value": value, "vae": vae}

        def policy_loss(policy: Any) -> tuple[Array, tuple[Array, Array]]:
            own = actions(policy, batch.observation, key=policy_key)
            q = jax.vmap(critic.model.first_value)(batch.observation, own)
            scale = self.alpha / jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
            unit = _inputs(critic.model, batch.observation, own)[1]
            anchor, guided, better = logged, jnp.zeros(v.shape, bool), logged_q > v
            if self.guided:
                anchor, guided, better = self._anchors(state, batch.observation, unit, logged, logged_q, v, candidate_key)
            on = better if self.masked else jnp.ones_like(better)
            gap = jnp.mean(on[:, None] * (unit - anchor) ** 2)
            return self.pull * gap - scale * jnp.mean(q), (jnp.mean(on), jnp.mean(guided))

        def improve(state: dict[str, PyTree]) -> tuple[dict[str, PyTree], Array, tuple[Array, Array]]:
            policy, error, shares = descend(state["policy"], policy_loss, optax.adam(self.learning_rate))
            return {
                **state, "policy": policy,
                "target_policy": follow(state["target_policy"], policy.model, self.target_rate),
                "target_critic": follow(state["target_critic"], critic.model, self.target_rate),
            }, error, shares  # fmt: skip

        due, nothing = clock.step % self.policy_period == 0, jnp.zeros(())
        state, error, (on, guided) = jax.lax.cond(due, improve, lambda state: (state, nothing, (nothing, nothing)), state)
        metrics = {"critic_loss": critic_error, "value_loss": value_error, "vae_loss": vae_error, "q": jnp.mean(values)}
        rare = {"policy_loss": error, "pulled": on, "guided": guided}
        return state, metrics | {name: Sometimes(number, due) for name, number in rare.items()}

    def _anchors(
        self, state: dict[str, PyTree], observation: PyTree, unit: Units, logged: Units,
        logged_q: Float[Array, " batch"], v: Float[Array, " batch"], key: PRNGKeyArray,
    ) -> tuple[Units, Bool[Array, " batch"], Bool[Array, " batch"]]:  # fmt: skip
        """abar in units of half the action range, where it is the VAE's, and where either action is better than V."""
        critic: ActionValue = state["critic"].model
        condition = _inputs(critic, observation, None)[0]
        decoded, _ = _reconstructed(state["vae"].model, condition, unit, key)
        candidate = jax.vmap(lambda u: spaces.unflatten(critic.action_space, critic.scaler.to_environment(u)))(decoded)
        q = jax.vmap(critic.first_value)(observation, candidate)
        guided = q >= logged_q
        return jnp.where(guided[:, None], decoded, logged), guided, (q >= v) | (logged_q > v)

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy`, `explorer`, `critic`, `value`."""
        policy = state["policy"].model
        return {"policy": policy, "explorer": policy, "critic": state["critic"].model, "value": state["value"].model}


def _inputs(critic: ActionValue, observation: PyTree, action: PyTree) -> tuple[Float[Array, "batch width"], Any]:
    """Normalised observations, and actions in units of half their range (None: none)."""
    states = jax.vmap(lambda o: critic.normaliser(spaces.flatten(critic.observation_space, o)))(observation)
    if action is None:
        return states, None
    return states, jax.vmap(lambda a: critic.scaler.to_unit(spaces.flatten(critic.action_space, a)))(action)


def _reconstructed(
    vae: ConditionalVAE, condition: Float[Array, "batch width"], unit: Units, key: PRNGKeyArray
) -> tuple[Units, Float[Array, " batch"]]:
    noise = jax.random.normal(key, (unit.shape[0], vae.latent))
    return jax.vmap(vae.reconstruct)(condition, unit, noise)
