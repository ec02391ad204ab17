"""Novelty search (Lehman and Stanley 2011, "Abandoning Objectives", Evolutionary Computation 19)."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock
from policylab.learners.evolution.quality_diversity import Archive, QualityDiversity, Tried

SELECTIONS = ("novelty", "either", "pareto", "random")


@settings
class NoveltySearch(QualityDiversity):
    """Of parents and offspring the most novel survive, whatever they earn: those whose descriptors are farthest, on average, from their
    `neighbours` nearest ones among parents, offspring and archive. `archived` offspring of every generation, drawn at random, enter
    the archive. Settings are those of SERENE's released code.

    With a learned descriptor (`Autoencoded`) and `selection` "either" this is TAXONS: in every generation novelty or surprise, each
    with probability 1/2, decides. With "pareto" the first fronts of both survive, as in STAX. "random" is a control without selection.
    Raises `BadInput` for another `selection`.
    """

    neighbours: int = setting(15, "nearest others whose distance counts", low=1)
    archived: int = setting(5, "random offspring that enter the archive per generation", low=0)
    capacity: int = setting(2048, "genomes that the archive holds; the oldest make room", low=1)
    selection: str = setting("novelty", "what survives: novelty, either (novelty or surprise), pareto (both), or random")

    title: ClassVar[str] = "Novelty search"

    def begin(self, spec: Spec, like: Tried, *, key: PRNGKeyArray) -> dict[str, PyTree]:
        """No parents yet, an empty archive."""
        if self.selection not in SELECTIONS:
            raise BadInput(f"selection is {self.selection!r}: choose one of {', '.join(SELECTIONS)}")
        parents = jax.tree.map(lambda leaf: jnp.zeros((self.population, *leaf.shape[1:])), like)
        return {"parents": parents, "alive": jnp.zeros(self.population, bool), "archive": Archive.of(self.capacity, like)}

    def known(self, state: dict[str, PyTree]) -> list[tuple[Tried, Array]]:
        """What novelty is measured against beyond parents and offspring."""
        return [(state["archive"].tried, state["archive"].filled)]

    def scores(
        self, state: dict[str, PyTree], pool: Tried, there: Array, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " row"], Float[Array, " row"]]:
        """What decides who survives, higher is better, and the novelty of each row of the pool; minus infinity where none is there."""
        others = [(pool, there), *self.known(state)]
        describe = lambda rows: self.descriptor.describe(state["learned"], rows.view)
        among = jnp.concatenate([describe(rows) for rows, _ in others])
        novelty = self.novelty(describe(pool), among, jnp.concatenate([flags for _, flags in others]), self.neighbours)
        surprise = self.descriptor.surprise(state["learned"], pool.view)
        score = novelty
        if self.selection == "either":
            score = jnp.where(jax.random.bernoulli(key), novelty, surprise)
        elif self.selection == "pareto":
            score = -self.dominators(jnp.stack([novelty, surprise], axis=1), there).astype(jnp.float32)
        elif self.selection == "random":
            score = jax.random.uniform(key, novelty.shape)
        return jnp.where(there, score, -jnp.inf), jnp.where(there, novelty, -jnp.inf)

    def generation(self, state: dict[str, PyTree], tried: Tried, *, key: PRNGKeyArray) -> tuple[dict[str, PyTree], Array]:
        """Survivors and archive after these offspring, and the novelty of each of them."""
        choose, archive, learn = jax.random.split(key, 3)
        pool, there = state["parents"] + tried, jnp.concatenate([state["alive"], jnp.ones(len(tried.fitness), bool)])
        score, novelty = self.scores(state, pool, there, key=choose)
        kept = jax.lax.top_k(score, self.population)[1]
        drawn = jax.random.permutation(archive, len(tried.fitness)) < self.archived
        parents, alive, kept_on = pool[kept], there[kept], state["archive"].add(tried, drawn)
        views = jnp.concatenate([parents.view, kept_on.tried.view])
        weight = jnp.concatenate([alive, kept_on.filled]).astype(jnp.float32)
        learned = self.descriptor.learn(state["learned"], views, weight, key=learn)
        after = state | {"parents": parents, "alive": alive, "archive": kept_on, "learned": learned}
        return after, novelty[self.population :]

    def children(self, state: dict[str, PyTree], *, key: PRNGKeyArray) -> Float[Array, "member gene"]:
        """`offspring` mutations of every survivor."""
        return self.mutated(jnp.repeat(state["parents"].genome, self.offspring, axis=0), key=key)

    def select(
        self, state: dict[str, PyTree], tried: Tried, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """One generation."""
        judge, breed = jax.random.split(key)
        state, novelty = self.generation(state, tried, key=judge)
        state |= {"candidates": self.children(state, key=breed)}
        return state, {"novelty": novelty.mean(), "archived": state["archive"].count}

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """Also `archive`, what was kept of the search."""
        return QualityDiversity.products(self, state) | {"archive": state["archive"]}

    def dominators(self, scores: Float[Array, "row objective"], there: Array) -> Array:
        """How many others are at least as good in all objectives and better in one: 0 on the first Pareto front."""
        as_good = jnp.all(scores[:, None] >= scores[None], axis=-1)
        better = jnp.any(scores[:, None] > scores[None], axis=-1)
        return jnp.sum(as_good & better & there[:, None], axis=0)
