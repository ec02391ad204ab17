"""Dreamed: whole stretches of what the explorer does in the learner's world, fresh for every update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.environment import Environment, Step
from policylab.environments.time_limit import TimeLimit
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.fingerprints import fingerprint
from policylab.learner import Clock, Request, Steps, Windows
from policylab.networks.optimisation import select
from policylab.planners.imagination import require_imaginable
from policylab.source import Source
from policylab.sources.acting import Actors, explorer_of, memories, move

WORLD = "world"  # the request of this name is for fitting the world: it gets real experience
_STARTS = "where episodes begin"
_STARTS_SHOWN = 256  # real observations that episodes of one batch may begin at


class Branching(Environment):
    """A world whose episodes begin at one of `starts`, real observations, and are cut short where it leaves `low` to `high`: what a
    learned world says there means nothing. A cut is no end of the process; the last observation within the range stands for it."""

    world: Environment
    starts: PyTree[Array]
    low: Float[Array, " number"]
    high: Float[Array, " number"]

    @property
    def spec(self) -> Spec:
        """The world's."""
        return self.world.spec

    def reset(self, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """At a real observation."""
        rows = jax.tree.leaves(self.starts)[0].shape[0]
        observation = jax.tree.map(lambda leaf: leaf[jax.random.randint(key, (), 0, rows)], self.starts)
        return (self.world.at(observation), observation), observation

    def step(self, state: PyTree, action: PyTree, key: PRNGKeyArray) -> tuple[PyTree, Step]:
        """The world's, with a cut where it runs away."""
        inner, step = self.world.step(state[0], action, key)
        flat = spaces.flatten(self.spec.observation, step.observation)
        inside = jnp.all((flat >= self.low) & (flat <= self.high)) & jnp.isfinite(step.reward)
        observation = select(inside, step.observation, state[1])
        step = replace(
            step, observation=observation, reward=jnp.where(inside, step.reward, 0.0), terminal=step.terminal & inside,
            truncated=step.truncated | ~inside,
        )  # fmt: skip
        return (select(inside, inner, state[0]), observation), step

    def at(self, observation: PyTree) -> PyTree:
        """The world's state there."""
        return self.world.at(observation), observation


class Dreamed(Source):
    """Windows [environment, time] of what the learner's explorer does in `products["world"]` (or in `world`), as `Rollout` gives them of a
    real environment: for PPO and its kin, in a learned world.

    Imagined episodes begin at real observations of `source` and last `horizon` steps (0: the horizon of the real ones). Where the world
    leaves the range of the observation space widened by `slack` of its width, or of the data where the space has no bounds, the episode
    is cut short, as a time limit would. A request named `world` is answered by `source` alone. Fields: `log_prob`.
    """

    source: Source
    world: Environment | None = None
    horizon: int = eqx.field(static=True, default=0)
    slack: float = eqx.field(static=True, default=0.1)
    needs: tuple[tuple[str, Request], ...] = eqx.field(static=True, default=())

    def __check_init__(self) -> None:
        if self.source.hosted:
            raise BadInput(
                "dreams begin at experience on the device and these data are streamed from disk: load them as a Dataset"
            )
        if self.horizon < 0 or not (self.horizon or self.source.spec.horizon):
            raise BadInput(
                "dreamed episodes need a longest length: give Dreamed horizon=, or put a TimeLimit around the environment"
            )
        if self.world is not None:
            require_imaginable(self.world, "Dreamed")
            self.world.spec.require(self.source.spec, ours="the world", theirs="the real experience")

    @property
    def spec(self) -> Spec:
        """That of the real experience."""
        return self.source.spec

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
        words = repr((type(self.world).__name__, self.horizon, self.slack, self.source.fingerprint())).encode()
        return fingerprint({"world": jax.tree.leaves(self.world), "words": np.frombuffer(words, np.uint8)})

    def serve(self, needs: Mapping[str, Request]) -> Dreamed:
        """This source, ready to answer one request for windows from now on, and one named `world`."""
        own = {name: request for name, request in needs.items() if name != WORLD}
        if len(own) != 1:
            raise BadInput(f"dreams answer one request beside that of the world, not {len(own)} ({', '.join(own) or 'none'})")
        name, request = next(iter(own.items()))
        if not isinstance(request, Windows) or request.past:
            raise BadInput(
                f"dreams are windows without a past, not {request} (asked for as {name!r}): use Imagined for single transitions"
            )
        missing = [field for field in request.fields if field != "log_prob"]
        if missing or request.goals:
            raise BadInput(f"dreams know no {missing[0] if missing else 'goals'}, which {name!r} needs: they know log_prob")
        real = {name: request for name, request in needs.items() if name == WORLD}
        return replace(self, source=self.source.serve({**real, _STARTS: Steps(_STARTS_SHOWN)}), needs=tuple(needs.items()))

    @property
    def _asked(self) -> tuple[str, Windows]:
        name, request = next((name, request) for name, request in self.needs if name != WORLD)
        assert isinstance(request, Windows)
        return name, request

    def _range(self) -> tuple[Float[Array, " number"], Float[Array, " number"]]:
        space, known = self.spec.observation, self.spec.statistics.get("observation")
        if not isinstance(space, spaces.Box):
            raise BadInput(f"dreams are of observed numbers, and these are {spaces.describe(space)}")
        low, high = (jnp.asarray(bound, jnp.float32).reshape(-1) for bound in space.bounds())
        if known is not None:
            low, high = jnp.where(jnp.isfinite(low), low, known.low), jnp.where(jnp.isfinite(high), high, known.high)
        more = jnp.where(jnp.isfinite(high - low), self.slack * (high - low), 0.0)
        return low - more, high + more

    def dream(self, products: Mapping[str, Any], starts: PyTree[Array]) -> Environment:
        """The world as an environment whose episodes begin at `starts`. Raises `BadInput` where there is no world."""
        world = products.get("world") if self.world is None else self.world
        if world is None:
            raise BadInput(
                f"dreaming needs a world and the learner offers only {', '.join(products)}: give Dreamed world=, or choose a learner that"
                " learns one, such as SINDyRL"
            )
        require_imaginable(world, "Dreamed")
        return TimeLimit(Branching(world, starts, *self._range()), self.horizon or self.spec.horizon)

    def _drawn(
        self, real: PyTree, products: Mapping[str, Any], clock: Clock, key: PRNGKeyArray
    ) -> tuple[PyTree, dict, Environment]:
        real, drawn = self.source.next(real, products, clock=clock, key=key)
        drawn = drawn if len(self.needs) > 1 else {_STARTS: drawn}
        return real, drawn, self.dream(products, drawn[_STARTS].observation)

    def init(self, products: Mapping[str, Any], *, key: PRNGKeyArray) -> tuple[PyTree, Actors]:
        """The real source's state, and episodes about to begin."""
        real_key, draw_key, reset_key, memory_key = jax.random.split(key, 4)
        real = self.source.init(products, key=real_key)
        clock = Clock(jnp.asarray(0), jnp.asarray(1))
        real, _, world = self._drawn(real, products, clock, draw_key)
        count = self._asked[1].count
        state, observation = jax.vmap(world.reset)(jax.random.split(reset_key, count))
        return real, Actors(state, observation, memories(explorer_of(products), count, key=memory_key))

    def resumed(self, state: tuple[PyTree, Actors], products: Mapping[str, Any], *, key: PRNGKeyArray) -> tuple[PyTree, Actors]:
        """Dreams go on."""
        return self.source.resumed(state[0], products, key=key), state[1]

    def next(
        self, state: tuple[PyTree, Actors], products: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[tuple[PyTree, Actors], Any]:
        """The next windows [environment, time], and the world's real batch."""
        real_key, dream_key = jax.random.split(key)
        real, drawn, world = self._drawn(state[0], products, clock, real_key)
        policy, (name, request) = explorer_of(products), self._asked

        def forward(actors: Actors, key: PRNGKeyArray) -> tuple[Actors, Window]:
            return move(world, policy, actors, key=key, log_prob="log_prob" in request.fields)

        memory = state[1].memory
        actors, rows = jax.lax.scan(forward, state[1], jax.random.split(dream_key, request.future))
        window = replace(jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), rows), memory=memory)
        return (real, actors), {name: window, WORLD: drawn[WORLD]} if len(self.needs) > 1 else window
