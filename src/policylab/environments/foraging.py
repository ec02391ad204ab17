"""Two foragers on a small grid who have to lift food together (after level-based foraging, Albrecht and Ramamoorthy 2013)."""

from __future__ import annotations

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from policylab.environment import Environment, Step
from policylab.experience import Spec
from policylab.policies.population import Population
from policylab.policy import Policy
from policylab.spaces import Box, Discrete

_WAYS = ((0, 0), (-1, 0), (0, 1), (1, 0), (0, -1))  # stay, up, right, down, left


class Field(eqx.Module):
    """Where the two players and the three foods are (row, column), and which foods are still there."""

    players: Int[Array, "player 2"]
    foods: Int[Array, "food 2"]
    there: Bool[Array, " food"]


class Foraging(Environment):
    """`side` x `side` cells, two players and one food of each of three kinds, all at random places. A food is lifted when both players
    stand on it at the same time: each of them gets 1. When all are lifted, all come back at random places. Actions are staying and the
    four ways; players may share a cell.

    A player observes its own place, the offsets of the foods and whether they are still there, and the other player's offset where it
    is at most `sight` cells away along both axes, all in cells over `side`; nothing of what the other one wants. No time limit is set.
    """

    side: int = eqx.field(static=True, default=6)
    sight: int = eqx.field(static=True, default=2)

    @property
    def spec(self) -> Spec:
        """Of one player: 14 observed numbers, 5 actions; actions and observations have a leading player axis of 2."""
        return Spec(Box((14,), -1.0, 1.0), Discrete(5, ("stay", "up", "right", "down", "left")), roles=("first", "second"))

    def reset(self, key: PRNGKeyArray) -> tuple[Field, Float[Array, "player 14"]]:
        """All at random places."""
        places = jax.random.randint(key, (5, 2), 0, self.side)
        field = Field(places[:2], places[2:], jnp.ones(3, bool))
        return field, self.observed(field)

    def observed(self, field: Field) -> Float[Array, "player 14"]:
        """What each player sees: its place, the foods, which are there, and the other one with a 1, or zeros."""

        def one(own: Array, other: Array) -> Array:
            foods = jnp.where(field.there[:, None], (field.foods - own) / self.side, 0.0)
            near = jnp.max(jnp.abs(other - own)) <= self.sight
            shown = jnp.where(near, jnp.concatenate([(other - own) / self.side, jnp.ones(1)]), 0.0)
            return jnp.concatenate([own / self.side, foods.reshape(-1), field.there, shown]).astype(jnp.float32)

        return jax.vmap(one)(field.players, field.players[::-1])

    def step(self, state: Field, action: Int[Array, " player"], key: PRNGKeyArray) -> tuple[Field, Step]:
        """Both move at once. `info["lifted"]` counts the foods lifted in this step."""
        players = jnp.clip(state.players + jnp.asarray(_WAYS)[action], 0, self.side - 1)
        lifted = state.there & jnp.all(players[None] == state.foods[:, None], axis=(1, 2))
        there = state.there & ~lifted
        again = ~there.any()
        foods = jnp.where(again, jax.random.randint(key, (3, 2), 0, self.side), state.foods)
        field = Field(players, foods, there | again)
        no, count = jnp.zeros(2, bool), lifted.sum().astype(jnp.float32)
        return field, Step(self.observed(field), jnp.full(2, count), no, no, info={"lifted": count})


class Forager(Policy):
    """Goes to the first kind of its `order` that is still there, rows first, and waits on it."""

    order: Int[Array, " food"]

    def act(self, observation: Float[Array, "14"], memory: PyTree, *, key: PRNGKeyArray) -> tuple[Int[Array, ""], PyTree]:
        """One step on the way."""
        offsets, there = observation[2:8].reshape(3, 2), observation[8:11] > 0
        wanted = self.order[jnp.argmax(there[self.order])]
        down, right = offsets[wanted]
        sideways = jnp.where(right > 0, 2, jnp.where(right < 0, 4, 0))
        return jnp.where(down > 0, 3, jnp.where(down < 0, 1, sideways)).astype(jnp.int32), memory


def foragers() -> Population:
    """All six orders of the three kinds."""
    orders = jnp.asarray(list(itertools.permutations(range(3))), jnp.int32)
    return Population(jax.vmap(Forager)(orders))
