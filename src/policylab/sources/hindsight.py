"""Hindsight: a replay whose steps come with goals that were reached later (Andrychowicz et al. 2017, arXiv 1707.01495)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from policylab.errors import BadInput
from policylab.experience import Window
from policylab.learner import Clock, Request
from policylab.sources.goals import goal_of, goal_rows, last_step, require_goals, with_goals
from policylab.sources.replay import Replay, Stored

_ELSEWHERE = -(2**30)  # the place of a goal that is not of this episode


class Hindsight(Replay):
    """A replay that draws the goals a learner asks for, as a `Dataset` does: the step's own observation, a later one of its episode
    or any that is stored. What an episode under way has not reached yet is no goal. Of several copies of the environment each has its
    own episodes; random goals may be another's.

    So `GoalConditioned(SAC(), part="achieved_goal", into="desired_goal")` on it is HER, with rewards of -1 per step and 0 at the goal.
    Requests without goals are answered as by `Replay`.
    """

    def serve(self, needs: Mapping[str, Request]) -> Hindsight:
        """This replay, ready to answer `needs`, with goals. Raises `BadInput` where goals cannot be drawn."""
        if self.prioritised:
            raise BadInput("a replay with goals draws uniformly: leave prioritised=False")
        Replay.serve(self, {name: replace(request, goals=None) for name, request in needs.items()})
        for name, request in needs.items():
            require_goals(request, self.spec, name=name)
        return replace(self, needs=tuple(needs.items()))

    def _draw(self, state: Stored, request: Request, clock: Clock, key: PRNGKeyArray) -> Window:
        goals = request.goals
        if goals is None:
            return Replay._draw(self, state, request, clock, key)
        row_key, goal_key, random_key = jax.random.split(key, 3)
        stored = jnp.minimum(state.written, self.slots) * self.environments
        row = jax.random.randint(row_key, (request.count,), 0, stored)
        other = jax.random.randint(random_key, (request.count,), 0, stored)
        batch = self._answer(state, request, row)
        place, copy = self._place(state, row), row % self.environments
        last = self._last(state, place, copy)
        there, of = self._place(state, other), other % self.environments
        # Observations are counted as in an episode: that of a step by its place, the last one, which no step began with, one beyond.
        anywhere = jnp.full_like(place, _ELSEWHERE)
        found = goal_rows(goals, last_step(request, place, last), last + 1, anywhere, key=goal_key)
        random = found == _ELSEWHERE
        slot = self._slot(state, jnp.where(random, there, jnp.minimum(found, last)))
        seen = lambda tree: jax.tree.map(lambda leaf: leaf[slot, jnp.where(random, of, copy)], goal_of(goals, tree))
        beyond = ~random & (found > last)
        goal = jax.tree.map(
            lambda after, at: jnp.where(beyond.reshape(-1, *[1] * (at.ndim - 1)), after, at),
            seen(state.rows.next_observation),
            seen(state.rows.observation),
        )
        found = jnp.where(random & (of == copy), there, found)
        return with_goals(batch, request, place, found, goal)

    def _place(self, state: Stored, row: Int[Array, "..."]) -> Int[Array, "..."]:
        """How many stored steps of its copy are older than this row."""
        return (row // self.environments - self._oldest(state)) % self.slots

    def _slot(self, state: Stored, place: Int[Array, "..."]) -> Int[Array, "..."]:
        """Where in the ring."""
        return (place + self._oldest(state)) % self.slots

    def _oldest(self, state: Stored) -> Int[Array, ""]:
        return jnp.where(state.written > self.slots, state.written % self.slots, 0)

    def _last(self, state: Stored, place: Int[Array, " row"], copy: Int[Array, " row"]) -> Int[Array, " row"]:
        """The place of the last step of each one's episode, or of the newest that is stored."""
        ahead = jnp.arange(min(self.spec.horizon or self.slots, self.slots))
        newest = jnp.minimum(state.written, self.slots) - 1
        following = jnp.minimum(place[:, None] + ahead, newest)
        slot = self._slot(state, following)
        ended = (state.rows.terminal | state.rows.truncated)[slot, copy[:, None]] | (following == newest)
        return jnp.take_along_axis(following, jnp.argmax(ended, axis=1)[:, None], axis=1)[:, 0]
