"""MAP-Elites (Mouret and Clune 2015, arXiv 1504.04909)."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock
from policylab.learners.evolution.descriptors import LastPlace
from policylab.learners.evolution.quality_diversity import Archive, QualityDiversity, Tried


@settings
class MapElites(QualityDiversity):
    """A grid over the descriptor's bounds keeps the fittest genome of every cell; candidates are mutations of elites drawn uniformly.

    A newcomer takes an empty cell, or one whose elite is less fit. `population` x `offspring` candidates are tried per update; those of
    the first one are random.
    """

    cells: int = setting(50, "cells along each descriptor", low=1)

    title: ClassVar[str] = "MAP-Elites"

    def begin(self, spec: Spec, like: Tried, *, key: PRNGKeyArray) -> dict[str, PyTree]:
        """An empty grid. Raises `BadInput` for descriptors without bounds."""
        if not isinstance(self.descriptor, LastPlace):
            raise BadInput(f"MAP-Elites needs a descriptor with bounds, not {type(self.descriptor).__name__}: choose LastPlace")
        low, high = self.descriptor.bounds(spec)
        count = self.cells ** len(self.descriptor.entries)
        grid = Archive.of(count, like).tried
        return {"elites": grid, "occupied": jnp.zeros(count, bool), "low": low, "high": high}

    def cell(self, state: dict[str, PyTree], view: Float[Array, "member size"]) -> Int[Array, " member"]:
        """The number of the cell of each view; what lies outside the bounds belongs to the cell at the edge."""
        share = (view - state["low"]) / (state["high"] - state["low"])
        place = jnp.clip(jnp.floor(share * self.cells).astype(jnp.int32), 0, self.cells - 1)
        return jnp.sum(place * self.cells ** jnp.arange(place.shape[1] - 1, -1, -1), axis=1)

    def inserted(
        self, elites: Tried, occupied: Bool[Array, " cell"], tried: Tried, cell: Int[Array, " member"]
    ) -> tuple[Tried, Bool[Array, " cell"], Int[Array, ""]]:
        """The grid after these newcomers, and how many entered it. Of equally fit newcomers to one cell the first enters."""
        count, rows = len(occupied), jnp.arange(len(cell))
        best = jax.ops.segment_max(tried.fitness, cell, count)
        first = jax.ops.segment_min(jnp.where(tried.fitness == best[cell], rows, len(cell)), cell, count)
        enters = (first == jnp.clip(first, 0, len(cell) - 1)) & (~occupied | (best > elites.fitness))
        newcomers = tried[jnp.clip(first, 0, len(cell) - 1)]
        choose = lambda new, old: jnp.where(enters.reshape(-1, *[1] * (new.ndim - 1)), new, old)
        return jax.tree.map(choose, newcomers, elites), occupied | enters, enters.sum()

    def select(
        self, state: dict[str, PyTree], tried: Tried, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """Newcomers enter, and mutations of elites are tried next."""
        draw, breed = jax.random.split(key)
        elites, occupied, entered = self.inserted(state["elites"], state["occupied"], tried, self.cell(state, tried.view))
        chance: Array = occupied / occupied.sum()
        parents = jax.random.choice(draw, len(occupied), (self.trials,), p=chance)
        candidates = self.mutated(elites.genome[parents], key=breed)
        state = state | {"elites": elites, "occupied": occupied, "candidates": candidates}
        return state, {"occupied": occupied.sum(), "entered": entered}

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """Also `archive`, the grid: `Tried` rows, of which `occupied` says which hold an elite."""
        return QualityDiversity.products(self, state) | {"archive": {"elites": state["elites"], "occupied": state["occupied"]}}
