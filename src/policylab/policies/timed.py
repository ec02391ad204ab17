"""Policies in numbered states that watch the clock, and mixtures of them drawn once per episode."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from policylab.errors import BadInput
from policylab.experience import Window
from policylab.policy import Policy

_NEVER = -100.0  # nats: a probability that float32 cannot tell from 0, so that everything stays finite


class Moment(eqx.Module):
    """Which of the policies plays this episode, and how many steps it has taken."""

    part: Int[Array, ""]
    time: Int[Array, ""]


class Timed(Policy):
    """At the start of an episode policy i is drawn with probability weights[i]; at its step h it plays choice a in state s with
    probability parts[i, h, s, a]. After the last step of the table the last row goes on.

    The value of the mixture is the mean of the parts' values by their weights.
    """

    parts: Float[Array, "part time state choice"]
    weights: Float[Array, " part"]

    def initial_memory(self, *, key: PRNGKeyArray) -> Moment:
        """The episode's policy, at step 0."""
        part = jax.random.categorical(key, jnp.maximum(jnp.log(self.weights), _NEVER))
        return Moment(part.astype(jnp.int32), jnp.zeros((), jnp.int32))

    def _log_probabilities(self, observation: Int[Array, ""], memory: Moment) -> Float[Array, " choice"]:
        time = jnp.minimum(memory.time, self.parts.shape[1] - 1)
        return jnp.maximum(jnp.log(self.parts[memory.part, time, observation]), _NEVER)

    def act(self, observation: Int[Array, ""], memory: Moment, *, key: PRNGKeyArray) -> tuple[Int[Array, ""], Moment]:
        """A sampled choice, and the clock one step on."""
        return self.sample(observation, memory, key=key)[::2]

    def sample(
        self, observation: Int[Array, ""], memory: Moment, *, key: PRNGKeyArray
    ) -> tuple[Int[Array, ""], Float[Array, ""], Moment]:
        """A sampled choice, its log-probability given the episode's policy, and the clock one step on."""
        log_probabilities = self._log_probabilities(observation, memory)
        action = jax.random.categorical(key, log_probabilities).astype(jnp.int32)
        return action, log_probabilities[action], Moment(memory.part, memory.time + 1)

    def logits(self, window: Window) -> Float[Array, "time choice"]:
        """Log-probabilities of every choice, given the episode's policy. Raises `BadInput` if the window does not say which."""
        if window.memory is None:
            raise BadInput("a policy that watches the clock needs the memory at the window's start: take it from a Rollout")
        times = window.memory.time + jnp.arange(window.action.shape[0])
        moments = Moment(jnp.broadcast_to(window.memory.part, times.shape), times)
        return jax.vmap(self._log_probabilities)(window.observation, moments)

    def log_probs(self, window: Window) -> Float[Array, "time part"]:
        """One part: the choice. 0 where padded."""
        return jnp.take_along_axis(self.logits(window), window.action[:, None], axis=-1) * window.valid[:, None]

    def mode(self) -> Policy:
        """The likeliest policy of the mixture, of each state and step the likeliest choice."""
        likeliest = self.parts[jnp.argmax(self.weights)][None]
        choices = jax.nn.one_hot(jnp.argmax(likeliest, axis=-1), likeliest.shape[-1])
        return Timed(choices, jnp.ones(1))
