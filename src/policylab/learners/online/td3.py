"""TD3: twin delayed deterministic policy gradients (Fujimoto et al. 2018, arXiv 1802.09477)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Each, Learner, Request, Sometimes, Steps
from policylab.networks.optimisation import descend, follow, trained
from policylab.policies.deterministic import Deterministic, smoothed_actions
from policylab.policies.noisy import Noisy
from policylab.policy import Form, actions
from policylab.scorers.critic import ActionValue


@settings
class TD3(Learner):
    r"""A deterministic policy that climbs the first of two critics (algorithm 1):

    Q_i:    min E[ ( r + gamma (1 - terminal) min_j Qbar_j(s', clip(pibar(s') + clip(noise))) - Q_i(s, a) )^2 ]
    policy: max E[ Q_1(s, pi(s)) ]

    The policy and all targets move at every `policy_period`-th update; the explorer adds normal noise. Noise is in units of half the action
    range. Settings are those of the authors' present code (256 hidden units, batches of 256, Adam at 3e-4).
    With members=1, noise=0 and policy_period=1 this is DDPG (Lillicrap et al. 2016, arXiv 1509.02971) with normal noise.
    """

    discount: float = setting(0.99, "gamma per step", low=0.0, high=1.0)
    exploration: float = setting(0.1, "standard deviation of the explorer's noise", low=0.0)
    noise: float = setting(0.2, "standard deviation of the target action's noise", low=0.0)
    noise_clip: float = setting(0.5, "the target action's noise is clipped here", low=0.0)
    target_rate: float = setting(0.005, "share by which targets follow, per policy update", above=0.0, high=1.0)
    learning_rate: float = setting(3e-4, "of Adam, for policy and critics", above=0.0)
    policy_period: int = setting(2, "updates of the critics per update of the policy", low=1)
    n: int = setting(1, "steps of each return", low=1)
    batch_size: int = setting(256, "transitions per update", low=1)
    width: int = setting(256, "hidden units of the critics", low=1)
    depth: int = setting(2, "hidden layers of the critics", low=1)
    members: int = setting(2, "critics", low=1)
    policy: Form = setting(Deterministic(), "the form of the policy")

    title: ClassVar[str] = "Twin delayed deterministic policy gradients"
    actions: ClassVar[str] = "continuous"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Transitions, or n-step returns."""
        return {"transitions": Steps(self.batch_size, n=self.n, discount=float(self.discount) if self.n > 1 else 1.0)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Fresh networks; targets equal them. Raises `BadInput` for a form that draws its actions."""
        if not isinstance(self.policy, Deterministic):
            raise BadInput(
                f"{type(self).__name__} climbs its critic with one action per observation and {type(self.policy).__name__} draws"
                " actions: choose policy=Deterministic(), or a learner such as SAC"
            )
        policy_key, critic_key = jax.random.split(key)
        policy = self.policy.build(spec, key=policy_key)
        critic = ActionValue(spec, width=self.width, depth=self.depth, members=self.members, key=critic_key)
        optimiser = optax.adam(self.learning_rate)
        return {
            "policy": trained(policy, optimiser), "critic": trained(critic, optimiser),
            "target_policy": policy, "target_critic": critic,
        }  # fmt: skip

    def goal(self, state: Mapping[str, PyTree], batch: Window, *, key: PRNGKeyArray) -> Float[Array, " batch"]:
        """What Q(s, a) is regressed on."""
        action = smoothed_actions(
            state["target_policy"], batch.next_observation, noise=self.noise, clip=self.noise_clip, key=key
        )
        value = jnp.min(jax.vmap(state["target_critic"].values)(batch.next_observation, action), axis=-1)
        return batch.reward + self.discount**batch.duration * batch.continues * value

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """The critics; at every `policy_period`-th step also the policy and the targets."""
        goal = self.goal(state, batch, key=key)

        def critic_loss(critic: ActionValue) -> tuple[Array, Array]:
            values = jax.vmap(critic.values)(batch.observation, batch.action)
            return jnp.mean(batch.weight * jnp.sum((values - goal[:, None]) ** 2, axis=-1)), values

        critic, critic_error, values = descend(state["critic"], critic_loss, optax.adam(self.learning_rate))
        state = {**state, "critic": critic}

        def policy_loss(policy: Any) -> tuple[Array, None]:
            own = actions(policy, batch.observation, key=key)  # deterministic: the key is not used
            return -jnp.mean(batch.weight * jax.vmap(critic.model.first_value)(batch.observation, own)), None

        def improve(state: dict[str, PyTree]) -> tuple[dict[str, PyTree], Array]:
            policy, error, _ = descend(state["policy"], policy_loss, optax.adam(self.learning_rate))
            return {
                **state, "policy": policy,
                "target_policy": follow(state["target_policy"], policy.model, self.target_rate),
                "target_critic": follow(state["target_critic"], critic.model, self.target_rate),
            }, error  # fmt: skip

        due = clock.step % self.policy_period == 0
        state, policy_error = jax.lax.cond(due, improve, lambda state: (state, jnp.zeros(())), state)
        error = Each(jnp.mean(jnp.abs(values - goal[:, None]), axis=-1))
        policy_metric = Sometimes(policy_error, due)
        return state, {"critic_loss": critic_error, "q": jnp.mean(values), "policy_loss": policy_metric, "td_error": error}

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy`, `explorer` (with noise), `critic`."""
        policy = state["policy"].model
        explorer = Noisy(policy, jnp.asarray(self.exploration, jnp.float32))
        return {"policy": policy, "explorer": explorer, "critic": state["critic"].model}
