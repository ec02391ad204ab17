"""A repeated game of meeting: one of the two goes its round, the other gains by knowing where that round leads next."""

from __future__ import annotations

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from policylab.environment import Environment, Step
from policylab.experience import Spec
from policylab.policies.population import Population
from policylab.policy import Policy
from policylab.spaces import Box, Discrete

PLACES = 4


class Whereabouts(eqx.Module):
    """Where the two players are (4: nowhere yet), and the choices made so far."""

    places: Int[Array, " player"]
    chosen: Int[Array, ""]


class Rendezvous(Environment):
    """Two players choose one of four places again and again, both at once. Every `every`-th choice is an appointment: where they choose the
    same place then, each of them gets 1.

    A player observes where the other one was last (one of 5, the fifth before the first choice), nothing of where it will go. No time
    limit is set. For a player who hunts, meeting is catching: the competitive twin of the game looks the same to the one who seeks.
    """

    every: int = eqx.field(static=True, default=1)

    @property
    def spec(self) -> Spec:
        """Of one player: 5 observed numbers, 4 actions; actions and observations have a leading player axis of 2."""
        return Spec(Box((PLACES + 1,), 0.0, 1.0), Discrete(PLACES), roles=("first", "second"))

    def reset(self, key: PRNGKeyArray) -> tuple[Whereabouts, Float[Array, "player 5"]]:
        """Nobody is anywhere yet."""
        state = Whereabouts(jnp.full(2, PLACES), jnp.zeros((), jnp.int32))
        return state, self.observed(state)

    def observed(self, state: Whereabouts) -> Float[Array, "player 5"]:
        """What each player sees: the other's place, one-hot."""
        return jax.nn.one_hot(state.places[::-1], PLACES + 1)

    def step(self, state: Whereabouts, action: Int[Array, " player"], key: PRNGKeyArray) -> tuple[Whereabouts, Step]:
        """Both go where they chose. `info["met"]` is 1 where they keep an appointment."""
        after = Whereabouts(action, state.chosen + 1)
        met = ((action[0] == action[1]) & (after.chosen % self.every == 0)).astype(jnp.float32)
        no = jnp.zeros(2, bool)
        return after, Step(self.observed(after), jnp.full(2, met), no, no, info={"met": met})


class Walker(Policy):
    """Goes from place to place in its `order`, round and round, from any place on; with probability `slip` it goes anywhere instead, and
    takes up its round from there. Its memory is where it goes now."""

    order: Int[Array, " place"]
    slip: Float[Array, ""]

    def initial_memory(self, *, key: PRNGKeyArray) -> Int[Array, ""]:
        """Any place."""
        return jax.random.randint(key, (), 0, PLACES)

    def act(
        self, observation: Float[Array, "5"], memory: Int[Array, ""], *, key: PRNGKeyArray
    ) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """There, whatever the other one does."""
        draw, slip = jax.random.split(key)
        place = jnp.where(jax.random.bernoulli(slip, self.slip), jax.random.randint(draw, (), 0, PLACES), memory)
        return place, self.order[(jnp.argmax(self.order == place) + 1) % PLACES]


def walkers(slip: float = 0.0) -> Population:
    """All six rounds through the four places."""
    rounds = jnp.asarray([(0, *rest) for rest in itertools.permutations(range(1, PLACES))], jnp.int32)
    return Population(jax.vmap(lambda order: Walker(order, jnp.asarray(slip, jnp.float32)))(rounds))
