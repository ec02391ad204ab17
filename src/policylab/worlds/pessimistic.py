"""A world that pays less where it is unsure (MOPO, Yu et al. 2020, arXiv 2005.13239)."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.environment import Environment, Step
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.world import World


class Pessimistic(World):
    """`world` with the reward r - penalty * u, u its own `Step.info["uncertainty"]` (equation 4). Everything else is as it is there.

    Planners on it keep to what the world knows, as learners do that imagine in it. Raises `BadInput` where the world cannot tell.
    """

    world: Environment
    penalty: Float[Array, ""]

    @property
    def spec(self) -> Spec:
        """The world's."""
        return self.world.spec

    def reset(self, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """The world's."""
        return self.world.reset(key)

    def step(self, state: PyTree, action: PyTree, key: PRNGKeyArray) -> tuple[PyTree, Step]:
        """The world's, less the price of not knowing."""
        state, step = self.world.step(state, action, key)
        if "uncertainty" not in step.info:
            raise BadInput(
                f"{type(self.world).__name__} cannot tell how unsure it is: use a world that can, such as an ensemble"
            )
        return state, replace(step, reward=step.reward - self.penalty * step.info["uncertainty"])

    def at(self, observation: PyTree) -> PyTree:
        """The world's."""
        return self.world.at(observation)
