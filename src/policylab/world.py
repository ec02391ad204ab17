"""World: a learned Environment, and the request of a learner that wants to learn in one."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from jaxtyping import PyTree

from policylab.environment import Environment
from policylab.learner import Request


class World(Environment):
    """A learned Environment, with `Step.info["uncertainty"]` where it can tell; `at` is required for branched rollouts."""

    @abstractmethod
    def at(self, observation: PyTree) -> PyTree:
        """The world's state for a real observation."""


@dataclass(frozen=True)
class Branched(Request):
    """Single transitions, leaves [count, ...], most of them imagined: what the explorer would do in a world, from real observations.

    Rollouts have `horizon` steps, growing linearly to `longest` (if that is more) over the run; a share `real` of every batch is real;
    nothing is imagined in the first share `begin` of the run, while the world is being fitted. Only sources that imagine answer it.
    """

    horizon: int = 1
    longest: int = 0
    real: float = 0.05
    begin: float = 0.0
