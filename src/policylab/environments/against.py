"""Against: a game of two as the process of one player, the other played by a policy that is drawn for every episode."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from policylab.environment import Environment, Step
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.policies.population import Population
from policylab.spaces import Composite, Discrete


class Situation(eqx.Module):
    """The game, the other player's memory and what it sees, and which of the pool it is."""

    game: PyTree[Array]
    memory: PyTree[Array]
    seen: PyTree[Array]
    other: Int[Array, ""]


class Against(Environment):
    """`game` (two players who move at once, a leading player axis) as the first player meets it. The second player is one of `others`, a
    `Population`, drawn uniformly at every reset and kept for the episode; `info["other"]` is its number. No policy sees it, unless
    `revealed`: then observations are {"observation": ..., "other": number}, an upper bound for what can be recognised.

    Raises `BadInput` for games of another number of players.
    """

    game: Environment
    others: Population
    revealed: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if len(self.game.spec.roles) != 2:
            raise BadInput(f"Against makes a game of two one player's, but this one has {len(self.game.spec.roles)} roles")

    @property
    def spec(self) -> Spec:
        """The game's, for one player."""
        seen = self.game.spec.observation
        if self.revealed:
            seen = Composite((("observation", seen), ("other", Discrete(self.others.size))))
        return dataclasses.replace(self.game.spec, observation=seen, roles=())

    def _shown(self, observation: PyTree, other: Int[Array, ""]) -> PyTree:
        return {"observation": observation, "other": other} if self.revealed else observation

    def reset(self, key: PRNGKeyArray) -> tuple[Situation, PyTree]:
        """A fresh game against somebody."""
        begin, draw, remember = jax.random.split(key, 3)
        game, seen = self.game.reset(begin)
        other = jax.random.randint(draw, (), 0, self.others.size)
        memory = self.others.member(other).initial_memory(key=remember)
        mine, theirs = _apart(seen)
        return Situation(game, memory, theirs, other), self._shown(mine, other)

    def step(self, state: Situation, action: PyTree, key: PRNGKeyArray) -> tuple[Situation, Step]:
        """Both move; the reward and the end are the first player's."""
        choose, move = jax.random.split(key)
        answer, memory = self.others.member(state.other).act(state.seen, state.memory, key=choose)
        both = jax.tree.map(lambda a, b: jnp.stack([a, b]), action, answer)
        game, step = self.game.step(state.game, both, move)
        mine, theirs = _apart(step.observation)
        info = {**step.info, "other": state.other.astype(jnp.float32)}
        mine_step = Step(self._shown(mine, state.other), step.reward[0], step.terminal[0], step.truncated[0], info=info)
        return Situation(game, memory, theirs, state.other), mine_step


def _apart(seen: PyTree) -> tuple[PyTree, PyTree]:
    return jax.tree.map(lambda leaf: leaf[0], seen), jax.tree.map(lambda leaf: leaf[1], seen)
