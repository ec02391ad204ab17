"""Policies that are told something beside the observation: a return to reach, a goal, a latent future."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.experience import Spec, Statistics, Window
from policylab.policy import Policy


def conditioned_spec(spec: Spec, condition: spaces.Space) -> Spec:
    """What a policy sees that is told a `condition`: {"observation": ..., "condition": ...}; the condition is not normalised."""
    statistics = dict(spec.statistics)
    known = statistics.pop("observation", None)
    if known is not None and not isinstance(spec.observation, spaces.Discrete):
        size = spaces.size(condition)
        neutral = Statistics(jnp.zeros(size), jnp.ones(size), -jnp.ones(size), jnp.ones(size))
        statistics["observation"] = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), known, neutral)
    together = spaces.Composite((("observation", spec.observation), ("condition", condition)))
    return replace(spec, observation=together, statistics=statistics)


def told(window: Window, condition: PyTree) -> Window:
    """The window as a conditioned policy sees it: the same `condition` at every step."""
    steps = window.reward.shape[0]
    repeated = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (steps, *jnp.shape(leaf))), condition)
    return replace(window, observation={"observation": window.observation, "condition": repeated})


class Conditioned(Policy):
    """A policy of `conditioned_spec` that is told the same `condition` at every step, as a policy of bare observations."""

    policy: Policy
    condition: PyTree[Array]

    def _seen(self, observation: PyTree) -> PyTree:
        return {"observation": observation, "condition": self.condition}

    def initial_memory(self, *, key: PRNGKeyArray) -> PyTree:
        """The inner policy's."""
        return self.policy.initial_memory(key=key)

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """The inner policy's action."""
        return self.policy.act(self._seen(observation), memory, key=key)

    def sample(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Float[Array, ""], PyTree]:
        """The inner policy's action and its log-probability."""
        return self.policy.sample(self._seen(observation), memory, key=key)

    def log_probs(self, window: Window) -> Float[Array, "time part"]:
        """The inner policy's."""
        return self.policy.log_probs(told(window, self.condition))

    def logits(self, window: Window) -> Float[Array, "time choice"]:
        """The inner policy's."""
        return self.policy.logits(told(window, self.condition))

    def mode(self) -> Policy:
        """The same with the inner policy's mode."""
        return Conditioned(self.policy.mode(), self.condition)
