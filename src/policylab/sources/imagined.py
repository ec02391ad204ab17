"""Imagined: what the explorer would do in the learner's world, branched from real experience (Dyna, Sutton 1991)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from policylab.environment import Environment
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.fingerprints import fingerprint
from policylab.learner import Clock, Request, Steps
from policylab.networks.optimisation import select
from policylab.planners.imagination import require_imaginable
from policylab.policy import Policy
from policylab.source import Source
from policylab.sources.acting import explorer_of, memories
from policylab.world import Branched

WORLD = "world"  # the request of this name is for fitting the world: it gets real experience
_STARTS = "where rollouts branch"


class Lanes(eqx.Module):
    """Rollouts under way; leaves [rollout, ...]. Those that ended are not `alive`."""

    state: PyTree[Array]
    observation: PyTree[Array]
    memory: PyTree[Array]
    alive: Bool[Array, "*rollout"]


class Imagination(eqx.Module):
    """One seed's state: that of the real source, the ring of imagined transitions [slot, rollout, ...], and how many slots were written."""

    real: PyTree
    rows: Window
    written: Int[Array, ""]


class Imagined(Source):
    """Single transitions, a few from `source` (logged or replayed) and most imagined, as MBPO and its kin learn from.

    At every `every`-th update `rollouts` real observations are drawn from `source`, and from each the learner's explorer acts for some
    steps in `products["world"]` - or in `world`, where one is given: any environment that can be put where an observation says, the true
    one too. The last `capacity` of these transitions are kept. How many steps, and which share of a batch is real, is what the learner
    asks for (`Branched`); `horizon` and `real` replace its wish. Plain `Steps` are answered in the same way (horizon 1, 5% real), so
    that every learner of transitions can imagine.

    A rollout that ends is followed no further: its rows after the end have weight 0, and so has a step to something that is no
    number. Before the first rollout batches are real altogether. A request named `world` is answered by `source` alone. Of real and
    imagined rows alike `extra["imagined"]` says which they are (1 imagined).

    This is a source and no part of a learner, for the same reason as `Rollout` is one: experience is made by what has been learned
    so far, products, and kept for later updates; which learner, which world and whether the real share comes from a log or from
    acting are independent choices.
    """

    source: Source
    world: Environment | None = None
    horizon: int = eqx.field(static=True, default=0)
    real: float | None = eqx.field(static=True, default=None)
    rollouts: int = eqx.field(static=True, default=1_000)
    every: int = eqx.field(static=True, default=20)
    capacity: int = eqx.field(static=True, default=400_000)
    needs: tuple[tuple[str, Request], ...] = eqx.field(static=True, default=())

    def __check_init__(self) -> None:
        if self.source.hosted:
            raise BadInput(
                "rollouts branch from experience on the device and these data are streamed from disk: load them as a Dataset"
            )
        for name, least in (("horizon", 0), ("rollouts", 1), ("every", 1)):
            if getattr(self, name) < least:
                raise BadInput(f"Imagined.{name} is {getattr(self, name)}: give at least {least}")
        if self.real is not None and not 0.0 <= self.real <= 1.0:
            raise BadInput(
                f"Imagined.real is {self.real}: give the share of real rows, from 0 to 1, or None for the learner's wish"
            )
        if self.world is not None:
            require_imaginable(self.world, "Imagined")
            self.world.spec.require(self.source.spec, ours="the world", theirs="the real experience")

    @property
    def spec(self) -> Spec:
        """That of the real experience."""
        return self.source.spec

    @property
    def slots(self) -> int:
        """Steps of every rollout that the ring holds."""
        return self.capacity // self.rollouts

    @property
    def rewarded(self) -> bool:
        """As the real experience."""
        return self.source.rewarded

    @property
    def restorable(self) -> bool:
        """As the real source."""
        return self.source.restorable

    def fingerprint(self) -> str:
        """Of the real experience and the settings, those of a given world too."""
        settings = (type(self.world).__name__, self.horizon, self.real, self.rollouts, self.every, self.capacity)
        words = repr((*settings, self.source.fingerprint())).encode()
        return fingerprint({"world": jax.tree.leaves(self.world), "words": np.frombuffer(words, np.uint8)})

    def serve(self, needs: Mapping[str, Request]) -> Imagined:
        """This source, ready to answer `needs`. Raises `BadInput` for anything but single transitions without further fields."""
        real: dict[str, Request] = {}
        for name, request in needs.items():
            plain = isinstance(request, Branched) or (isinstance(request, Steps) and request.n == 1 and request.best == 1.0)
            if name != WORLD and not plain:
                raise BadInput(f"imagined experience comes in single transitions, not as {request} (asked for as {name!r})")
            if name != WORLD and (request.fields or request.goals):
                raise BadInput(
                    f"imagined transitions have no fields beyond the usual and {name!r} asks for {request.fields or request.goals}"
                )
            if name != WORLD and self.slots < (steps := max(self._steps(request))):
                raise BadInput(
                    f"an imagination of {self.capacity} transitions cannot hold {self.rollouts} rollouts of {steps}: raise capacity="
                )
            real[name] = request if name == WORLD else Steps(request.count)
        if not set(needs) - {WORLD}:
            raise BadInput("this learner learns from real experience alone: give it the source without Imagined around it")
        return replace(self, source=self.source.serve({**real, _STARTS: Steps(self.rollouts)}), needs=tuple(needs.items()))

    def _steps(self, request: Request) -> tuple[int, int]:
        """Of a rollout: at the start of the run and at its end."""
        wish = request if isinstance(request, Branched) else Branched(request.count)
        first = self.horizon or wish.horizon
        return first, first if self.horizon else max(first, wish.longest)

    def world_of(self, products: Mapping[str, Any]) -> Environment:
        """Where to imagine. Raises `BadInput` where there is no world, or one that lives on the host."""
        world = products.get("world") if self.world is None else self.world
        if world is None:
            raise BadInput(
                f"imagining needs a world and the learner offers only {', '.join(products)}: give Imagined world=, or choose a learner"
                " that learns one, such as MBPO"
            )
        require_imaginable(world, "Imagined")
        return world

    def init(self, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Imagination:
        """The real source's state and an empty ring."""
        world, policy, real = self.world_of(products), explorer_of(products), self.source.init(products, key=key)

        def example(real: PyTree, key: PRNGKeyArray) -> Window:
            clock = Clock(jnp.asarray(0), jnp.asarray(1))
            starts = self.source.next(real, products, clock=clock, key=key)[1][_STARTS]
            return self._forward(world, policy, self._begin(world, policy, starts.observation, key), key)[1]

        shapes = jax.eval_shape(example, real, key)
        rows = jax.tree.map(lambda leaf: jnp.zeros((self.slots, *leaf.shape), leaf.dtype), shapes)
        return Imagination(real, rows, jnp.zeros((), jnp.int32))

    def resumed(self, state: Imagination, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Imagination:
        """What was imagined stays."""
        return replace(state, real=self.source.resumed(state.real, products, key=key))

    def next(
        self, state: Imagination, products: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[Imagination, Any]:
        """Imagine where it is time, then mix one batch per request."""
        real_key, imagine_key, *keys = jax.random.split(key, 2 + len(self.needs))
        real, drawn = self.source.next(state.real, products, clock=clock, key=real_key)
        state = replace(state, real=real)
        state = self._imagined(state, products, drawn[_STARTS].observation, clock, imagine_key)
        batches = {
            name: drawn[name] if name == WORLD else self._mixed(state, request, drawn[name], k)
            for (name, request), k in zip(self.needs, keys, strict=True)
        }
        return state, batches[self.needs[0][0]] if len(batches) == 1 else batches

    def _imagined(
        self, state: Imagination, products: Mapping[str, Any], starts: PyTree, clock: Clock, key: PRNGKeyArray
    ) -> Imagination:
        world, policy = self.world_of(products), explorer_of(products)
        request = next(request for name, request in self.needs if name != WORLD)
        begin = request.begin if isinstance(request, Branched) else 0.0
        first, last = self._steps(request)
        grown = jnp.clip((clock.progress - begin) / max(1.0 - begin, 1e-6), 0.0, 1.0)
        steps = first + jnp.floor(grown * (last - first + 1 - 1e-4)).astype(jnp.int32)
        due = (clock.step % self.every == 0) & (clock.progress >= begin)
        begin_key, step_key = jax.random.split(key)

        def forward(time: Int[Array, ""], loop: tuple) -> tuple:
            lanes, rows, written = loop
            lanes, made = self._forward(world, policy, lanes, jax.random.fold_in(step_key, time))
            rows = jax.tree.map(lambda ring, new: ring.at[written % self.slots].set(new), rows, made)
            return lanes, rows, written + 1

        # A loop of no steps where it is not due: a branch would copy the ring.
        loop = (self._begin(world, policy, starts, begin_key), state.rows, state.written)
        _, rows, written = jax.lax.fori_loop(0, jnp.where(due, steps, 0), forward, loop)
        return replace(state, rows=rows, written=written)

    def _begin(self, world: Environment, policy: Policy, observation: PyTree, key: PRNGKeyArray) -> Lanes:
        memory = memories(policy, self.rollouts, key=key)
        return Lanes(jax.vmap(world.at)(observation), observation, memory, jnp.ones(self.rollouts, bool))

    def _forward(self, world: Environment, policy: Policy, lanes: Lanes, key: PRNGKeyArray) -> tuple[Lanes, Window]:
        """One step of every rollout; one that has ended stays where it was."""

        def one(lane: Lanes, key: PRNGKeyArray) -> tuple[Lanes, Window]:
            act_key, step_key = jax.random.split(key)
            action, memory = policy.act(lane.observation, lane.memory, key=act_key)
            state, step = world.step(lane.state, action, step_key)
            finite = jnp.isfinite(step.reward)
            for leaf in jax.tree.leaves(step.observation):
                finite &= jnp.all(jnp.isfinite(leaf))
            valid = lane.alive & finite
            after = select(valid, step.observation, lane.observation)
            row = Window(
                lane.observation, action, jnp.where(valid, step.reward, 0.0), after, step.terminal, jnp.zeros((), bool), valid,
                jnp.ones((), jnp.int32),
            )  # fmt: skip
            ended = step.terminal | step.truncated
            return Lanes(select(valid, state, lane.state), after, memory, valid & ~ended), row

        return jax.vmap(one)(lanes, jax.random.split(key, self.rollouts))

    def _mixed(self, state: Imagination, request: Request, real: Window, key: PRNGKeyArray) -> Window:
        filled = jnp.minimum(state.written, self.slots)
        row = jax.random.randint(key, (request.count,), 0, jnp.maximum(filled, 1) * self.rollouts)
        imagined = jax.tree.map(lambda ring: ring[row // self.rollouts, row % self.rollouts], state.rows)
        share = self.real if self.real is not None else getattr(request, "real", Branched(1).real)
        ours = (jnp.arange(request.count) < round(share * request.count)) | (filled == 0)
        weight = jnp.where(ours, real.weight, imagined.weight)
        choose = lambda a, b: jnp.where(ours.reshape(-1, *[1] * (a.ndim - 1)), a, b)
        mixed = jax.tree.map(choose, replace(real, extra={}, memory=None), imagined)
        return replace(mixed, extra={"weight": weight, "imagined": 1.0 - ours.astype(jnp.float32)})
