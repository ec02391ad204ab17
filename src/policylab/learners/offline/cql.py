"""CQL: conservative Q-learning for continuous actions (Kumar et al. 2020, arXiv 2006.04779)."""

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
from policylab.learner import Clock, Learner, Request, Steps
from policylab.networks.optimisation import descend, descend_in_parts, follow, trained
from policylab.policies.gaussian import Gaussian
from policylab.policy import Form
from policylab.scorers.critic import ActionValue

_ROWS = 1024  # state-action pairs whose critic gradient is computed at once: what a cache holds, measured at width 256


def soft_maximum(
    values: Float[Array, "batch sample members"], log_densities: Float[Array, "batch sample"]
) -> Float[Array, "batch members"]:
    """log of the integral of exp Q(s, a) over actions, from samples with these log-densities (appendix F, importance sampled)."""
    count = values.shape[1]
    return jax.nn.logsumexp(values - log_densities[..., None], axis=1) - jnp.log(count)


@settings
class CQL(Learner):
    r"""CQL(H): soft actor-critic whose critics are pushed down where the policy goes and up where the data are.

    Q_i: min  weight * E[ log-integral exp Q_i(s, .) - Q_i(s, a) ] + E[ ( r + gamma (1 - terminal) min_j Qbar_j(s', a') - Q_i(s, a) )^2 ]
    policy: min E[ temperature * log pi(a~ | s) - min_j Q_j(s, a~) ],  a~ ~ pi(s);   temperature: entropy held at -dim(a)

    The integral is estimated with `samples` actions each from the uniform density, pi(s) and pi(s') (equation 4 and appendix F).
    Settings follow the published continuous-control code: fixed weight, no entropy in the backup, policy rate below the critics'.
    """

    weight: float = setting(5.0, "alpha of the conservative term", low=0.0)
    discount: float = setting(0.99, "gamma per step", low=0.0, high=1.0)
    target_rate: float = setting(0.005, "share by which target critics follow, per update", above=0.0, high=1.0)
    policy_rate: float = setting(1e-4, "learning rate of Adam for policy and temperature", above=0.0)
    learning_rate: float = setting(3e-4, "of Adam for the critics", above=0.0)
    samples: int = setting(10, "actions drawn from each of the three densities", low=1)
    batch_size: int = setting(256, "transitions per update", low=1)
    width: int = setting(256, "hidden units of the critics", low=1)
    depth: int = setting(2, "hidden layers of the critics", low=1)
    policy: Form = setting(
        Gaussian(squash="sample", state_dependent_std=True, log_std_range=(-20.0, 2.0)),
        "the form of the policy; it needs a density",
    )

    title: ClassVar[str] = "Conservative Q-learning"
    actions: ClassVar[str] = "continuous"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Transitions."""
        return {"transitions": Steps(self.batch_size)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Fresh networks, temperature 1; the target critic equals the critic."""
        policy_key, critic_key = jax.random.split(key)
        critic = ActionValue(spec, width=self.width, depth=self.depth, key=critic_key)
        return {
            "policy": trained(self.policy.build(spec, key=policy_key), optax.adam(self.policy_rate)),
            "critic": trained(critic, optax.adam(self.learning_rate)),
            "target": critic,
            "log_temperature": trained(jnp.zeros(()), optax.adam(self.policy_rate)),
        }

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict, dict[str, Array]]:
        """The temperature and the policy, then the critics and the target."""
        own_key, next_key, many_key, uniform_key = jax.random.split(key, 4)
        critic: ActionValue = state["critic"].model
        rows, space = batch.reward.shape[0], critic.action_space
        temperature = jnp.exp(state["log_temperature"].model)

        def draw(policy: Any, observation: PyTree, key: PRNGKeyArray) -> tuple[PyTree, Float[Array, " batch"]]:
            return jax.vmap(lambda o, k: policy.sample(o, None, key=k)[:2])(observation, jax.random.split(key, rows))

        def policy_loss(policy: Any) -> tuple[Array, Array]:
            action, log_prob = draw(policy, batch.observation, own_key)
            q = jnp.min(jax.vmap(critic.values)(batch.observation, action), axis=-1)
            return jnp.mean(temperature * log_prob - q), log_prob

        policy, policy_error, log_prob = descend(state["policy"], policy_loss, optax.adam(self.policy_rate))

        def temperature_loss(log_temperature: Array) -> tuple[Array, None]:
            return -jnp.exp(log_temperature) * jnp.mean(log_prob - spaces.size(space)), None

        log_temperature, _, _ = descend(state["log_temperature"], temperature_loss, optax.adam(self.policy_rate))

        next_action, _ = draw(policy.model, batch.next_observation, next_key)
        next_value = jnp.min(jax.vmap(state["target"].values)(batch.next_observation, next_action), axis=-1)
        goal = batch.reward + self.discount**batch.duration * batch.continues * next_value
        sampled, densities = self._sampled_actions(policy.model, batch, critic, many_key, uniform_key)

        def critic_loss(critic: ActionValue, part: tuple) -> tuple[Array, tuple[Array, Array]]:
            batch, goal, sampled, densities = part
            values = jax.vmap(critic.values)(batch.observation, batch.action)
            elsewhere = jax.vmap(lambda o, many: jax.vmap(lambda a: critic.values(o, a))(many))(batch.observation, sampled)
            gap = jnp.mean(soft_maximum(elsewhere, densities) - values, axis=0)
            bellman = jnp.mean((values - goal[:, None]) ** 2, axis=0)
            return jnp.sum(bellman + self.weight * gap), (jnp.mean(values), jnp.mean(gap))

        learned, critic_error, (q, gap) = descend_in_parts(
            state["critic"], critic_loss, (batch, goal, sampled, densities), optax.adam(self.learning_rate),
            largest=max(1, _ROWS // densities.shape[1]),
        )  # fmt: skip
        metrics = {
            "critic_loss": critic_error, "policy_loss": policy_error, "q": q, "conservative_gap": gap,
            "temperature": temperature, "entropy": -jnp.mean(log_prob),
        }  # fmt: skip
        target = follow(state["target"], learned.model, self.target_rate)
        return {"policy": policy, "critic": learned, "target": target, "log_temperature": log_temperature}, metrics

    def _sampled_actions(
        self, policy: Any, batch: Window, critic: ActionValue, policy_key: PRNGKeyArray, uniform_key: PRNGKeyArray
    ) -> tuple[PyTree, Float[Array, "batch sample"]]:
        """Actions [batch, 3 * samples, ...] from the uniform density, pi(s) and pi(s'), with their log-densities."""
        rows, size = batch.reward.shape[0], spaces.size(critic.action_space)
        unit = jax.random.uniform(uniform_key, (rows, self.samples, size), minval=-1.0, maxval=1.0)
        uniform = jax.vmap(jax.vmap(lambda u: spaces.unflatten(critic.action_space, critic.scaler.to_environment(u))))(unit)
        flat = jnp.full((rows, self.samples), -jnp.sum(jnp.log(2.0 * critic.scaler.half_range)))

        def several(observation: PyTree, key: PRNGKeyArray) -> tuple[PyTree, Array]:
            return jax.vmap(lambda k: policy.sample(observation, None, key=k)[:2])(jax.random.split(key, self.samples))

        here_key, next_key = jax.random.split(policy_key)
        here, here_log_prob = jax.vmap(several)(batch.observation, jax.random.split(here_key, rows))
        after, after_log_prob = jax.vmap(several)(batch.next_observation, jax.random.split(next_key, rows))
        joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), uniform, here, after)
        return jax.lax.stop_gradient((joined, jnp.concatenate([flat, here_log_prob, after_log_prob], axis=1)))

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy`, `explorer`, `critic`."""
        policy = state["policy"].model
        return {"policy": policy, "explorer": policy, "critic": state["critic"].model}
