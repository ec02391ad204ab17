"""World: a learned Environment. Planners and learners need not know whether the world they roll out in is real."""

from __future__ import annotations

from abc import abstractmethod

from jaxtyping import PyTree

from policylab.environment import Environment


class World(Environment):
    """A learned Environment, with `Step.info["uncertainty"]` where it can tell; `at` is required for branched rollouts."""

    @abstractmethod
    def at(self, observation: PyTree) -> PyTree:
        """The world's state for a real observation."""
