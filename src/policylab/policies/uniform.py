"""A policy that does not look: uniformly random actions, the zero of every scale."""

from __future__ import annotations

import equinox as eqx
from jaxtyping import PRNGKeyArray, PyTree

from policylab import spaces
from policylab.policy import Policy


class UniformRandom(Policy):
    """Uniform over the bounds of `space` or over its choices; standard normal along unbounded entries. It has no other mode."""

    space: spaces.Space = eqx.field(static=True)

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """Any action."""
        return spaces.sample(self.space, key=key), memory
