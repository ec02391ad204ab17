"""Many policies of one form at once, one of which plays each episode."""

from __future__ import annotations

import jax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from policylab.policy import Policy


class Population(Policy):
    """`size` policies held as one, every array with a leading member axis.

    As an `explorer` it is tried member by member: a `Rollout` of whole episodes gives each of them episodes of its own, and batches
    gain a `member` axis in front. As a policy it draws one member per episode.
    """

    members: Policy

    @property
    def size(self) -> int:
        """How many members there are."""
        return jax.tree.leaves(self.members)[0].shape[0]

    def member(self, number: Int[Array, ""] | int) -> Policy:
        """One of them."""
        return jax.tree.map(lambda leaf: leaf[number], self.members)

    def initial_memory(self, *, key: PRNGKeyArray) -> tuple[Int[Array, ""], PyTree]:
        """The episode's member, and its memory."""
        draw, begin = jax.random.split(key)
        number = jax.random.randint(draw, (), 0, self.size)
        return number, self.member(number).initial_memory(key=begin)

    def act(
        self, observation: PyTree, memory: tuple[Int[Array, ""], PyTree], *, key: PRNGKeyArray
    ) -> tuple[PyTree, tuple[Int[Array, ""], PyTree]]:
        """The member's action."""
        number, inner = memory
        action, inner = self.member(number).act(observation, inner, key=key)
        return action, (number, inner)

    def mode(self) -> Policy:
        """The population of the members' modes."""
        return Population(jax.vmap(lambda member: member.mode())(self.members))
