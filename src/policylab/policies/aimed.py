"""A policy for goals that carries its goal, for environments that do not show one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jaxtyping import Array, PRNGKeyArray, PyTree

from policylab.policy import Policy


class Aimed(Policy):
    """Acts on plain observations as `policy` does on `{"observation": ..., "goal": goal}`."""

    policy: Any  # a Policy that observes both
    goal: PyTree[Array]

    def towards(self, goal: PyTree[Array]) -> Aimed:
        """The same policy with another goal, of the goal's shape."""
        return replace(self, goal=goal)

    def initial_memory(self, *, key: PRNGKeyArray) -> PyTree:
        """The policy's."""
        return self.policy.initial_memory(key=key)

    def mode(self) -> Aimed:
        """With the deterministic version of the policy."""
        return replace(self, policy=self.policy.mode())

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """The policy's action."""
        return self.policy.act({"observation": observation, "goal": self.goal}, memory, key=key)
