"""Refill: draws from another source until a batch is full of rows worth learning from (DAPO's dynamic sampling)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Preference, Rated, Spec, Window
from policylab.learner import Clock, Request
from policylab.source import Source


@dataclass(frozen=True)
class PassRate:
    """Keeps the prompts of which a share strictly between `low` and `high` of the answers is right: those with a reward above `right`.

    With the defaults a prompt is left out whose answers are all right or all wrong (DAPO, Yu et al. 2025, arXiv 2503.14476, equation 11).
    """

    low: float = 0.0
    high: float = 1.0
    right: float = 0.5

    def __call__(self, batch: Rated) -> Bool[Array, " batch"]:
        """Which prompts of a batch of groups. Raises `BadInput` for answers that come one by one."""
        if batch.weight.ndim != 2:
            raise BadInput("a pass rate is that of several answers to one prompt: choose a learner of groups")
        rate = jnp.mean(jnp.sum(batch.reward, axis=-1) > self.right, axis=-1)
        return (rate > self.low) & (rate < self.high)


class Refilling(eqx.Module):
    """The state of the source that is drawn from, how many batches were drawn in all, and how many rows were kept and asked for."""

    inner: PyTree
    draws: Int[Array, ""]
    kept: Int[Array, ""]
    asked: Int[Array, ""]


class Refill(Source):
    """Batches of `source` made of the rows that `keep(batch)` selects ([row] booleans), drawn until the batch is full, at most `tries` times.

    Shapes never change: rows that could not be filled hold others of the first draw and have weight 0. The state counts the draws
    (`run.source_state.draws`). It answers one request, whose batches have a weight: Rated, Preference or Window.
    """

    source: Source
    keep: Callable[[Any], Array] = eqx.field(static=True)
    tries: int = eqx.field(static=True, default=4)
    needs: tuple[tuple[str, Request], ...] = eqx.field(static=True, default=())

    @property
    def spec(self) -> Spec:
        """That of the source."""
        return self.source.spec

    @property
    def rewarded(self) -> bool:
        """As the source."""
        return self.source.rewarded

    @property
    def on_policy(self) -> bool:
        """As the source."""
        return self.source.on_policy

    @property
    def restorable(self) -> bool:
        """As the source."""
        return self.source.restorable

    def serve(self, needs: Mapping[str, Request]) -> Refill:
        """Ready to answer one request. Raises `BadInput` for several, without a try, and where the source is hosted or cannot answer."""
        if len(needs) != 1:
            raise BadInput(f"a Refill answers one request and this learner has {len(needs)}: refill the sources one by one")
        if self.tries < 1:
            raise BadInput(f"tries is {self.tries}: a batch takes at least one draw")
        if self.source.hosted:
            raise BadInput("a Refill draws inside the compiled program and its source makes batches on the host: filter there")
        return replace(self, source=self.source.serve(needs), needs=tuple(needs.items()))

    def init(self, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Refilling:
        """Nothing drawn so far."""
        nothing = jnp.zeros((), jnp.int32)
        return Refilling(self.source.init(products, key=key), nothing, nothing, nothing)

    def resumed(self, state: Refilling, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Refilling:
        """The source's state with its simulators begun anew."""
        return replace(state, inner=self.source.resumed(state.inner, products, key=key))

    def next(self, state: Refilling, products: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray) -> tuple[Refilling, Any]:
        """A batch of kept rows, in the order in which they were drawn."""

        def draw(inner: PyTree, number: Array) -> tuple[PyTree, Any, Bool[Array, " row"]]:
            inner, batch = self.source.next(inner, products, clock=clock, key=jax.random.fold_in(key, number))
            return inner, batch, self.keep(batch)

        def put(batch: Any, more: Any, kept: Array, filled: Array) -> tuple[Any, Array]:
            place = jnp.where(kept, filled + jnp.cumsum(kept) - 1, kept.shape[0])  # beyond the end: dropped
            batch = jax.tree.map(lambda old, new: old.at[place].set(new, mode="drop"), batch, more)
            return batch, jnp.minimum(filled + jnp.sum(kept), kept.shape[0]).astype(jnp.int32)

        def again(carry: tuple) -> tuple:
            inner, batch, filled, number = carry
            inner, more, kept = draw(inner, number)
            return inner, *put(batch, more, kept, filled), number + 1

        inner, first, kept = draw(state.inner, jnp.asarray(0, jnp.int32))
        rows = kept.shape[0]
        batch, filled = put(first, first, kept, jnp.asarray(0, jnp.int32))
        short = lambda carry: (carry[2] < rows) & (carry[3] < self.tries)
        inner, batch, filled, number = jax.lax.while_loop(short, again, (inner, batch, filled, jnp.asarray(1, jnp.int32)))
        counted = Refilling(inner, state.draws + number, state.kept + filled, state.asked + rows)
        return counted, _weighted(batch, jnp.arange(rows) < filled)

    def tell(self, state: Refilling, batch: Any, metrics: Mapping[str, Any]) -> Refilling:
        """The rows are no longer those of one draw: the source is told nothing."""
        return state


def _weighted(batch: Any, counts: Bool[Array, " row"]) -> Any:
    """The batch with weight 0 where a row does not count."""
    spread = lambda leaf: counts.reshape(-1, *[1] * (leaf.ndim - 1))
    match batch:
        case Rated() | Preference():
            return replace(batch, weight=jnp.where(spread(batch.weight), batch.weight, 0.0))
        case Window():
            return replace(batch, valid=batch.valid & spread(batch.valid))
        case _:
            raise BadInput(
                f"a {type(batch).__name__} has no weight that could say which rows do not count: filter another source"
            )
