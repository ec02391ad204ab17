"""Replay: what the explorer has done so far, drawn from again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, Int, PRNGKeyArray

from policylab.environment import Environment
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.learner import Clock, Each, Request, Steps, Windows
from policylab.policies.uniform import UniformRandom
from policylab.policy import Policy
from policylab.source import Source
from policylab.sources.acting import Actors, begin, explorer_of, identity, memories, move, require_one_player
from policylab.sources.priorities import Priorities

_SMALLEST = 1e-6  # added to every error, so that no row becomes impossible to draw


class Stored(eqx.Module):
    """One seed's replay: the acting copies, the ring of rows [slot, environment, ...], and how many slots were ever written."""

    actors: Actors
    rows: Window
    written: Int[Array, ""]
    priorities: Priorities | None


def _where_due(act: Callable) -> Callable:
    """`act` behind a branch that stays one under `vmap` over seeds, since it is time for all of them or for none; JAX's own rule for
    branches has no place for hosted environments."""

    def wait(policy: Policy, actors: Actors, key: PRNGKeyArray) -> tuple[Actors, Window]:
        made = jax.eval_shape(act, policy, actors, key)[1]
        return actors, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), made)

    @custom_vmap
    def branch(due: Array, *arguments: Any) -> tuple[Actors, Window]:
        return jax.lax.cond(due, act, wait, *arguments)

    @branch.def_vmap
    def over_seeds(seeds: int, batched: Any, due: Array, *arguments: Any) -> tuple:
        axes = jax.tree.map(lambda flag: 0 if flag else None, tuple(batched[1:]))
        one = lambda function: jax.vmap(function, in_axes=axes, axis_size=seeds)
        out = jax.lax.cond(due, one(act), one(wait), *arguments)
        return out, jax.tree.map(lambda _: True, out)

    return branch


def _number(value: float | Array) -> Array:
    return jnp.asarray(value, jnp.float32)


class Replay(Source):
    """A ring of the last `capacity` transitions of `environments` copies of an environment, moved by `products["explorer"]`.

    Before the first update `warmup` transitions are made, by uniformly random actions, or by the explorer if `random_warmup` is
    False. From then on every copy makes `collect` steps before every `updates`-th update (`steps` of `train` counts updates).
    `Steps(n=)` are n-step returns within an episode; where the episode or what is stored ends before, they are shorter and `duration`
    says so. `Windows` are padded at the ends of episodes. Fields: `row` (the place in the ring) and `log_prob` (of the acting policy;
    the explorer then makes the warmup, too).

    With `prioritised`, a transition is drawn with probability p_i / sum p, p_i = (|error_i| + 1e-6)^`exponent`, where the learner
    reports its `td_error` for `Each` row (`tell`), and new ones with the highest p so far; `extra["weight"]` is
    (N P(i))^-beta, divided by the largest of the batch, beta rising from `correction` to 1 over the run (Schaul et al. 2016,
    arXiv 1511.05952, section 3.4 and algorithm 1).
    """

    environment: Environment
    capacity: int = eqx.field(static=True, default=1_000_000)
    collect: int = eqx.field(static=True, default=1)
    updates: int = eqx.field(static=True, default=1)
    warmup: int = eqx.field(static=True, default=5_000)
    environments: int = eqx.field(static=True, default=1)
    random_warmup: bool = eqx.field(static=True, default=True)
    prioritised: bool = eqx.field(static=True, default=False)
    exponent: Float[Array, ""] | float = eqx.field(converter=_number, default=0.6)
    correction: Float[Array, ""] | float = eqx.field(converter=_number, default=0.4)
    needs: tuple[tuple[str, Request], ...] = eqx.field(static=True, default=())

    def __check_init__(self) -> None:
        require_one_player(self.environment, "Replay")
        for name in ("collect", "updates", "warmup", "environments"):
            if getattr(self, name) < 1:
                raise BadInput(f"Replay.{name} is {getattr(self, name)}: give at least 1")
        if self.capacity < self.environments * max(self.collect, self._warmup_moves):
            raise BadInput(
                f"a replay of {self.capacity} transitions cannot hold the {self.environments} x "
                f"{max(self.collect, self._warmup_moves)} that are made at once: raise capacity= or lower warmup="
            )

    @property
    def _warmup_moves(self) -> int:
        return -(-self.warmup // self.environments)

    @property
    def slots(self) -> int:
        """Steps of every copy that the ring holds."""
        return self.capacity // self.environments

    @property
    def spec(self) -> Spec:
        """The environment's own."""
        return self.environment.spec

    def fingerprint(self) -> str:
        """Of the environment and the settings."""
        numbers = (self.capacity, self.collect, self.updates, self.warmup, self.environments, self.random_warmup)
        return identity(self, self.environment, *numbers, self.prioritised)

    def serve(self, needs: Mapping[str, Request]) -> Replay:
        """This replay, ready to answer `needs`, which are views of one ring."""
        for name, request in needs.items():
            if not isinstance(request, Steps | Windows) or (isinstance(request, Steps) and request.best < 1.0):
                raise BadInput(
                    f"a replay cannot answer {request} (asked for as {name!r}): it gives Steps and Windows of what it holds"
                )
            if request.goals is not None:
                raise BadInput(f"a replay draws no goals, which {name!r} needs: use a Dataset")
            missing = [field for field in request.fields if field not in ("log_prob", "row")]
            if missing:
                raise BadInput(f"a replay keeps no {missing[0]!r}, which {name!r} needs: it keeps log_prob and row")
        if self.prioritised and not (len(needs) == 1 and isinstance(next(iter(needs.values())), Steps)):
            raise BadInput("a prioritised replay answers a single request for Steps: use a uniform one for this learner")
        return replace(self, needs=tuple(needs.items()))

    @property
    def _log_prob(self) -> bool:
        return any("log_prob" in request.fields for _, request in self.needs)

    def init(self, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Stored:
        """The ring after the warmup."""
        explorer = explorer_of(products)
        random = self.random_warmup and not self._log_prob
        policy = UniformRandom(self.spec.action) if random else explorer
        begin_key, warmup_key, memory_key = jax.random.split(key, 3)
        actors = begin(self.environment, policy, self.environments, key=begin_key)
        shape = jax.eval_shape(lambda actors, key: self._move(policy, actors, key)[1], actors, key)
        rows = jax.tree.map(lambda leaf: jnp.zeros((self.slots, *leaf.shape), leaf.dtype), shape)
        moves = self._warmup_moves
        actors, made = jax.lax.scan(lambda a, k: self._move(policy, a, k), actors, jax.random.split(warmup_key, moves))
        rows = jax.tree.map(lambda ring, new: jax.lax.dynamic_update_slice_in_dim(ring, new, 0, axis=0), rows, made)
        if random:
            actors = replace(actors, memory=memories(explorer, self.environments, key=memory_key))
        priorities = None
        if self.prioritised:
            first = jnp.arange(moves * self.environments)
            priorities = Priorities.none(self.slots * self.environments).set(first, jnp.ones(first.shape))
        return Stored(actors, rows, jnp.asarray(moves, jnp.int32), priorities)

    @property
    def restorable(self) -> bool:
        """Whether the environment is."""
        return self.environment.restorable

    def resumed(self, state: Stored, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Stored:
        """The stored rows, and fresh episodes; those that were under way count as truncated by their last row."""
        last = (state.written - 1) % self.slots
        cut = state.rows.truncated.at[last].set(~state.rows.terminal[last])
        actors = begin(self.environment, explorer_of(products), self.environments, key=key)
        return replace(state, actors=actors, rows=replace(state.rows, truncated=cut))

    def _move(self, policy: Policy, actors: Actors, key: PRNGKeyArray) -> tuple[Actors, Window]:
        return move(self.environment, policy, actors, key=key, log_prob=self._log_prob)

    def next(self, state: Stored, products: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray) -> tuple[Stored, Any]:
        """Collect where it is time, then draw one batch per request."""
        collect_key, *keys = jax.random.split(key, 1 + len(self.needs))
        state = self._collected(state, explorer_of(products), clock, collect_key)
        batches = {name: self._draw(state, request, clock, k) for (name, request), k in zip(self.needs, keys, strict=True)}
        return state, batches[self.needs[0][0]] if len(batches) == 1 else batches

    def _collected(self, state: Stored, policy: Policy, clock: Clock, key: PRNGKeyArray) -> Stored:
        # Only the new rows pass through the branch: a ring that did would be copied at every update.
        due = clock.step % self.updates == 0
        act = lambda policy, actors, key: self._act(policy, actors, key)
        if self.updates > 1:
            act = partial(_where_due(act), due)
        actors, made = act(policy, state.actors, key)
        slot = (state.written + jnp.arange(self.collect)) % self.slots

        def write(i: Int[Array, ""], rows: Window) -> Window:
            return jax.tree.map(lambda ring, new: ring.at[slot[i]].set(new[i]), rows, made)

        # A loop whose length XLA cannot know: a plain write would be fused with what is read from the ring later, and to have both the
        # old ring and the new one all of it would be copied at every update.
        rows = jax.lax.fori_loop(0, jnp.where(due & (clock.step < clock.total), self.collect, 0), write, state.rows)
        priorities = state.priorities
        if priorities is not None:
            row = (slot[:, None] * self.environments + jnp.arange(self.environments)).reshape(-1)
            priorities = priorities.set(row, jnp.where(due, priorities.highest, priorities.of(row)))
        return Stored(actors, rows, state.written + jnp.where(due, self.collect, 0), priorities)

    def _act(self, policy: Policy, actors: Actors, key: PRNGKeyArray) -> tuple[Actors, Window]:
        return jax.lax.scan(lambda a, k: self._move(policy, a, k), actors, jax.random.split(key, self.collect))

    def _draw(self, state: Stored, request: Request, clock: Clock, key: PRNGKeyArray) -> Window:
        filled = jnp.minimum(state.written, self.slots)
        if state.priorities is None:
            row = jax.random.randint(key, (request.count,), 0, filled * self.environments)
            batch = self._answer(state, request, row)
        else:
            row = state.priorities.draw(jax.random.uniform(key, (request.count,)))
            share = state.priorities.of(row) / state.priorities.nodes[1]
            beta = self.correction + (1.0 - self.correction) * clock.progress
            weight = (filled * self.environments * share) ** -beta
            batch = self._answer(state, request, row)
            batch = replace(batch, extra={**batch.extra, "weight": weight / jnp.max(weight), "row": row})
        return batch

    def _answer(self, state: Stored, request: Request, row: Int[Array, " row"]) -> Window:
        """The steps or windows that start at these places."""
        slot, environment = row // self.environments, row % self.environments
        past, future = (request.past, request.future) if isinstance(request, Windows) else (0, getattr(request, "n", 1))
        offset = jnp.arange(-past, future)
        filled = jnp.minimum(state.written, self.slots)
        place = (slot - state.written) % self.slots if self.slots > 1 else slot  # steps since the oldest, if the ring is full
        place = jnp.where(state.written < self.slots, slot, place)[:, None] + offset
        stored = (place >= 0) & (place < filled)
        wanted = (slot[:, None] + offset) % self.slots
        ended = (state.rows.terminal | state.rows.truncated)[wanted, environment[:, None]]
        after = jnp.cumprod(jnp.concatenate([jnp.ones_like(row)[:, None] > 0, ~ended[:, past:-1]], axis=1), axis=1)
        before = jnp.flip(jnp.cumprod(jnp.flip(~ended[:, :past], axis=1), axis=1), axis=1)
        alive = (jnp.concatenate([before, after], axis=1) > 0) & stored
        fields = tuple(field for field in request.fields if field != "row")
        taken = lambda slots, environment: jax.tree.map(lambda leaf: leaf[slots, environment], state.rows)
        if isinstance(request, Windows):
            first, last = (
                jnp.argmax(alive, axis=1)[:, None],
                alive.shape[1] - 1 - jnp.argmax(jnp.flip(alive, 1), axis=1)[:, None],
            )
            inside = jnp.clip(jnp.arange(past + future), first, last)  # padding repeats the ends, as in a dataset
            wanted = jnp.take_along_axis(wanted, inside, axis=1)
            window = replace(taken(wanted, environment[:, None]), valid=alive)
            row = wanted * self.environments + environment[:, None]
        else:
            assert isinstance(request, Steps)
            window = taken(slot, environment)
            if request.n > 1:
                window = self._n_step(window, state, request, wanted, environment, alive)
        extra = {name: window.extra[name] for name in fields} | ({"row": row} if "row" in request.fields else {})
        return replace(window, extra=extra)

    def _n_step(
        self,
        window: Window,
        state: Stored,
        request: Steps,
        wanted: Int[Array, "row step"],
        environment: Int[Array, " row"],
        alive: Array,
    ) -> Window:
        duration = jnp.sum(alive, axis=1).astype(jnp.int32)
        end = jnp.take_along_axis(wanted, duration[:, None] - 1, axis=1)[:, 0]
        reward = state.rows.reward[wanted, environment[:, None]]
        return replace(
            window,
            reward=jnp.sum(jnp.where(alive, reward * request.discount ** jnp.arange(request.n), 0.0), axis=1),
            next_observation=jax.tree.map(lambda leaf: leaf[end, environment], state.rows.next_observation),
            terminal=state.rows.terminal[end, environment],
            truncated=state.rows.truncated[end, environment],
            duration=duration,
        )

    def tell(self, state: Stored, batch: Any, metrics: Mapping[str, Any]) -> Stored:
        """New priorities for the rows of the batch, from the learner's `td_error`."""
        if state.priorities is None:
            return state
        error = metrics.get("td_error")
        if not isinstance(error, Each):
            raise BadInput(
                "a prioritised replay needs the error of every row, which this learner does not report: use a uniform one"
            )
        priority = (jnp.abs(error.values) + _SMALLEST) ** self.exponent
        return replace(state, priorities=state.priorities.set(batch.extra["row"], priority))
