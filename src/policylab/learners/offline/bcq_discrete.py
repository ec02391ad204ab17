"""Discrete BCQ: batch-constrained deep Q-learning (Fujimoto et al. 2019, arXiv 1910.01708)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock
from policylab.learners.offline.dqn import DQN
from policylab.networks.optimisation import descend, trained
from policylab.policies.categorical import Categorical, CategoricalPolicy
from policylab.policy import Policy, imitation_loss
from policylab.scorers.choice import ChoiceValue


def likely(log_probabilities: Float[Array, "*batch choice"], threshold: Float[Array, ""] | float) -> Array:
    """Which choices are more than `threshold` times as likely as the likeliest."""
    best = jnp.max(log_probabilities, axis=-1, keepdims=True)
    return log_probabilities - best > jnp.log(threshold)


class Constrained(Policy):
    """The choice with the highest value among those that the data make likely."""

    critic: ChoiceValue
    behaviour: CategoricalPolicy
    threshold: Float[Array, ""]

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[Int[Array, ""], PyTree]:
        """The best likely choice."""
        allowed = likely(jax.nn.log_softmax(self.behaviour.action_logits(observation)), self.threshold)
        return jnp.argmax(jnp.where(allowed, self.critic.values(observation), -jnp.inf)).astype(jnp.int32), memory


@settings
class DiscreteBCQ(DQN):
    r"""Double DQN whose choices must have G(a | s) / max G(. | s) > threshold under a cloned behaviour G (equation 18).

    G is cloned with its own network; the regulariser on its logits (0.01 of their mean square) is that of the authors' code.
    """

    threshold: float = setting(0.3, "a choice must be this many times as likely as the likeliest", above=0.0, below=1.0)
    logit_penalty: float = setting(0.01, "weight of the mean squared logits of the behaviour", low=0.0)

    title: ClassVar[str] = "Batch-constrained Q-learning for choices"

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """A fresh critic with its target, and a fresh model of the behaviour."""
        critic_key, behaviour_key = jax.random.split(key)
        behaviour = Categorical(width=self.width, depth=self.depth).build(spec, key=behaviour_key)
        return {
            **DQN.init(self, spec, key=critic_key),
            "behaviour": trained(behaviour, optax.adam(self.learning_rate)),
        }

    def goal(self, state: dict[str, PyTree], batch: Window) -> Float[Array, " batch"]:
        """The double Q target over likely choices."""
        after = jax.vmap(state["target"].values)(batch.next_observation)
        logits = jax.nn.log_softmax(jax.vmap(state["behaviour"].model.action_logits)(batch.next_observation))
        chooser = jax.vmap(state["critic"].model.values)(batch.next_observation)
        best = jnp.argmax(jnp.where(likely(logits, self.threshold), chooser, -jnp.inf), axis=-1)
        value = jnp.take_along_axis(after, best[:, None], axis=-1)[:, 0]
        return batch.reward + self.discount**batch.duration * batch.continues * value

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict, dict[str, Array]]:
        """The critic as in DQN, then the behaviour."""
        state, metrics = DQN.update(self, state, batch, clock=clock, key=key)

        def loss(behaviour: CategoricalPolicy) -> tuple[Array, None]:
            logits = jax.vmap(behaviour.action_logits)(batch.observation)
            return jnp.mean(imitation_loss(behaviour, batch, key=key)) + self.logit_penalty * jnp.mean(logits**2), None

        behaviour, error, _ = descend(state["behaviour"], loss, optax.adam(self.learning_rate))
        return {**state, "behaviour": behaviour}, {**metrics, "behaviour_loss": error}

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy`, `explorer`, `critic`, `behaviour`."""
        critic, behaviour = state["critic"].model, state["behaviour"].model
        policy = Constrained(critic, behaviour, jnp.asarray(self.threshold, jnp.float32))
        return {"policy": policy, "explorer": policy, "critic": critic, "behaviour": behaviour}
