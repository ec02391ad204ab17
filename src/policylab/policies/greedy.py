"""Policies that take the best choice by a critic."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab.experience import Window
from policylab.policy import Policy
from policylab.scorers.choice import ChoiceValue


class Greedy(Policy):
    """The choice with the highest value, and with probability `epsilon` any choice."""

    critic: ChoiceValue
    epsilon: Float[Array, "*stacked"]  # one number; one per policy where several are stacked, whose `mode` is taken together

    def _probabilities(self, observation: PyTree) -> Float[Array, " choice"]:
        best = jax.nn.one_hot(jnp.argmax(self.critic.values(observation)), self.critic.choices)
        return (1.0 - self.epsilon) * best + self.epsilon / self.critic.choices

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[Int[Array, ""], PyTree]:
        """A choice."""
        return self.sample(observation, memory, key=key)[::2]

    def sample(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Float[Array, ""], PyTree]:
        """A choice and its log-probability."""
        log_probabilities = jnp.log(self._probabilities(observation))
        action = jax.random.categorical(key, log_probabilities).astype(jnp.int32)
        return action, log_probabilities[action], memory

    def logits(self, window: Window) -> Float[Array, "time choice"]:
        """Log-probabilities of every choice; minus infinity for what is never taken."""
        return jnp.log(jax.vmap(self._probabilities)(window.observation))

    def log_probs(self, window: Window) -> Float[Array, "time part"]:
        """One part: the choice. 0 where padded."""
        taken = jnp.take_along_axis(self.logits(window), window.action[:, None], axis=-1)
        return jnp.where(window.valid[:, None], taken, 0.0)

    def mode(self) -> Policy:
        """The policy without exploration."""
        return replace(self, epsilon=jnp.zeros_like(self.epsilon))


class Softmax(Policy):
    """Choices with probabilities softmax(values / temperature)."""

    critic: ChoiceValue
    temperature: Float[Array, ""]

    def _logits(self, observation: PyTree) -> Float[Array, " choice"]:
        return jax.nn.log_softmax(self.critic.values(observation) / self.temperature)

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[Int[Array, ""], PyTree]:
        """A sampled choice."""
        return self.sample(observation, memory, key=key)[::2]

    def sample(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Float[Array, ""], PyTree]:
        """A sampled choice and its log-probability."""
        logits = self._logits(observation)
        action = jax.random.categorical(key, logits).astype(jnp.int32)
        return action, logits[action], memory

    def logits(self, window: Window) -> Float[Array, "time choice"]:
        """Log-probabilities of every choice."""
        return jax.vmap(self._logits)(window.observation)

    def log_probs(self, window: Window) -> Float[Array, "time part"]:
        """One part: the choice. 0 where padded."""
        return jnp.take_along_axis(self.logits(window), window.action[:, None], axis=-1) * window.valid[:, None]

    def mode(self) -> Policy:
        """The best choice."""
        return Greedy(self.critic, jnp.zeros_like(self.temperature))
