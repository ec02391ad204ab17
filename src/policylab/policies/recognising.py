"""A policy that sees an embedding of its own history beside the observation."""

from __future__ import annotations

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.experience import Window
from policylab.networks.histories import HistoryEncoder
from policylab.policy import Policy


def embedded(space: spaces.Space, size: int) -> spaces.Composite:
    """What the policy inside sees: {"observation": ..., "embedding": [size]}."""
    return spaces.Composite((("observation", space), ("embedding", spaces.Box((size,)))))


def now_and_length(space: spaces.Space) -> tuple[spaces.Space, int]:
    """What one step of the history is, and how many steps it holds: those of `Remembered`, else the observation itself and 1."""
    parts = dict(space.parts) if isinstance(space, spaces.Composite) else {}
    past = parts.get("past")
    if set(parts) == {"observation", "past", "seen"} and isinstance(past, spaces.Box):
        return parts["observation"], past.shape[0]
    return space, 1


def history(space: spaces.Space, observation: PyTree) -> tuple[PyTree, Float[Array, "time size"], Float[Array, " time"]]:
    """What is observed now, the rows of the history and which of them are there."""
    if now_and_length(space)[0] is space:
        return observation, spaces.flatten(space, observation)[None], jnp.ones(1)
    return observation["observation"], observation["past"], observation["seen"]


class Recognising(Policy):
    """`policy` on {"observation", "embedding"}, of observations with `past` and `seen` as `Remembered` gives them, or of any others as
    histories of one step. No gradient passes through the embedding."""

    policy: Policy
    encoder: HistoryEncoder
    space: spaces.Space = eqx.field(static=True)

    def seen(self, observation: PyTree) -> dict[str, PyTree]:
        """What the policy inside sees."""
        now, past, seen = history(self.space, observation)
        return {"observation": now, "embedding": jax.lax.stop_gradient(self.encoder(past, seen))}

    def initial_memory(self, *, key: PRNGKeyArray) -> PyTree:
        """The inner policy's."""
        return self.policy.initial_memory(key=key)

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """The inner policy's action."""
        return self.policy.act(self.seen(observation), memory, key=key)

    def sample(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Float[Array, ""], PyTree]:
        """The inner policy's action and its log-probability."""
        return self.policy.sample(self.seen(observation), memory, key=key)

    def log_probs(self, window: Window) -> Float[Array, "time part"]:
        """The inner policy's."""
        return self.policy.log_probs(replace(window, observation=jax.vmap(self.seen)(window.observation)))

    def entropy(self, observation: PyTree) -> Float[Array, ""]:
        """The inner policy's."""
        return self.policy.entropy(self.seen(observation))

    def mode(self) -> Policy:
        """The same with the inner policy's mode."""
        return Recognising(self.policy.mode(), self.encoder, self.space)
