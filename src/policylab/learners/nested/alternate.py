"""Alternate: two learners who take turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from policylab.experience import Spec
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Each, Learner, Request, Sometimes
from policylab.learners.online.ppo import PPO

TURNS = ("first", "second")


@settings
class Alternate(Learner):
    """`first` learns for `every` updates, then `second` for as many, and so on; who does not learn stays as it is. Each has a clock of its
    own turns, so that its schedules and periodic work are those of a run of half the length.

    Where both want the same single batch they share it, else each gets its own (requests "first/..." and "second/..."). The products are
    those of both; where both learn something of one name it is the first's, and the second's is called "second/...". So the first one
    acts, and the second one learns beside it; for players who act together, see `Roles`. Priorities are told to no source.
    """

    first: Learner = setting(PPO(), "who begins")
    second: Learner = setting(PPO(), "who goes on")
    every: int = setting(10, "updates per turn", low=1)

    title: ClassVar[str] = "Alternate: two learners who take turns"

    @property
    def on_policy(self) -> bool:  # ty: ignore[incompatible-property-override]
        """Whether one of them is."""
        return self.first.on_policy or self.second.on_policy

    @property
    def takes(self) -> tuple[str, ...]:  # ty: ignore[incompatible-property-override]
        """What either takes."""
        return tuple(dict.fromkeys((*self.first.takes, *self.second.takes)))

    @property
    def needs(self) -> Mapping[str, Request]:
        """One request for both, or those of each under its name."""
        first, second = self.first.needs, self.second.needs
        if len(first) == 1 and first == second:
            return first
        return {
            f"{turn}/{name}": request for turn, own in zip(TURNS, (first, second), strict=True) for name, request in own.items()
        }

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Both states; each gets of what was given what it takes."""
        keys = jax.random.split(key)
        return {
            turn: learner.init(spec, key=k, given={name: thing for name, thing in given.items() if name in learner.takes})
            for turn, learner, k in zip(TURNS, (self.first, self.second), keys, strict=True)
        }

    def update(
        self, state: dict[str, PyTree], batch: Any, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """One step of whoever's turn it is; of the other one's metrics nothing is present."""
        turn = (clock.step // self.every) % 2
        learns = [lambda t=t: self._learn(t, state, batch, clock, key) for t in range(2)]
        shapes = [jax.eval_shape(learn)[1] for learn in learns]
        nothing = [jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape) for shape in shapes]

        def branch(t: int) -> Any:
            def taken() -> tuple[dict[str, PyTree], list]:
                own, metrics = learns[t]()
                return {**state, TURNS[t]: own}, [metrics if t == other else nothing[other] for other in range(2)]

            return taken

        after, metrics = jax.lax.cond(turn == 0, branch(0), branch(1))
        return after, {
            f"{name}/{key}": Sometimes(value, present & (turn == t))
            for t, name in enumerate(TURNS)
            for key, (value, present) in metrics[t].items()
        }

    def _learn(self, turn: int, state: dict[str, PyTree], batch: Any, clock: Clock, key: PRNGKeyArray) -> tuple[PyTree, dict]:
        learner = (self.first, self.second)[turn]
        own_clock = Clock(self._turns(clock.step, turn), jnp.maximum(self._turns(clock.total, turn), 1))
        after, metrics = learner.update(state[TURNS[turn]], _part(batch, TURNS[turn]), clock=own_clock, key=key)
        return after, {name: _scalar(value) for name, value in metrics.items()}

    def _turns(self, steps: Array, turn: int) -> Array:
        """How many of the first `steps` updates were this one's."""
        rounds, rest = steps // (2 * self.every), steps % (2 * self.every)
        return rounds * self.every + jnp.clip(rest - turn * self.every, 0, self.every)

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """The products of both; the first's come before the second's."""
        first, second = self.first.products(state["first"]), self.second.products(state["second"])
        return first | {f"second/{name}" if name in first else name: thing for name, thing in second.items()}


def _part(batch: Any, turn: str) -> Any:
    """The batch of one of them, a dict where it asked for several."""
    if not isinstance(batch, dict):
        return batch
    own = {name.removeprefix(f"{turn}/"): part for name, part in batch.items() if name.startswith(f"{turn}/")}
    return next(iter(own.values())) if len(own) == 1 else own


def _scalar(metric: Any) -> tuple[Array, Bool[Array, ""]]:
    if isinstance(metric, Sometimes):
        return metric.value.astype(jnp.float32), metric.present
    return jnp.mean(metric.values if isinstance(metric, Each) else metric).astype(jnp.float32), jnp.asarray(True)
