"""SERENE: novelty search for finding rewards, emitters for following them (Paolo, Coninx, Doncieux and Laflaquiere 2021, "Sparse
Reward Exploration via Novelty Search and Emitters", GECCO; arXiv 2102.03140)."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock
from policylab.learners.evolution.novelty_search import NoveltySearch
from policylab.learners.evolution.quality_diversity import Archive, Tried

BOOTSTRAP = 6  # generations after which an emitter has to have improved: means of the first and the last 3 are compared
NEVER = -jnp.inf


class Emitters(eqx.Module):
    """Small populations around rewarded genomes; one row each. `age` is -1 where there is none, 0 where it has not begun."""

    members: Tried
    scale: Float[Array, " emitter"]
    novelty: Float[Array, " emitter"]
    best: Float[Array, " emitter"]
    early: Float[Array, " emitter"]
    late: Float[Array, " emitter"]
    idle: Int[Array, " emitter"]
    age: Int[Array, " emitter"]

    def __getitem__(self, rows: Any) -> Emitters:
        return jax.tree.map(lambda leaf: leaf[rows], self)

    @property
    def improvement(self) -> Float[Array, " emitter"]:
        """I = max(0, mean reward of the last three bootstrapping generations - that of the first three)."""
        return jnp.maximum(self.late - self.early, 0.0) / 3.0


@settings
class SERENE(NoveltySearch):
    """Alternates, every `chunk` trials, between a novelty search and emitters. A genome that earns anything (fitness above 0) becomes
    a candidate emitter and enters the reward archive. An emitter is `emitter_population` genomes with `emitter_offspring` children
    each, of which the fittest survive; its mutations have the length of a third of the distance from its parent to the nearest
    genome, over sqrt(genes) per gene. Candidates begin in the order of their novelty; whoever has not improved after 6 generations
    is dropped; of the others those on the first front of novelty and improvement go on first, until their best has not improved for
    `patience` generations. Better genomes than an emitter's best enter the reward archive, some that are more novel than its parent
    the archive of the novelty search, against which novelty is measured along with the rewards' archive.

    Differences from the released code: as many emitters as fit in an update go on side by side (it runs one after the other), a third
    of them candidates that begin; an emitter ends by `patience` instead of a rank over its last 20 genes/6 + 120 generations.
    """

    chunk: int = setting(1000, "trials after which novelty search and emitters take turns", low=1)
    emitter_population: int = setting(6, "genomes of an emitter", low=1)
    emitter_offspring: int = setting(2, "children of each of them per generation", low=1)
    waiting: int = setting(128, "emitters that are kept, begun or not", low=1)
    rewards: int = setting(512, "genomes that the reward archive holds; the oldest make room", low=1)
    patience: int = setting(50, "generations without a better genome after which an emitter ends", low=1)

    title: ClassVar[str] = "Novelty search with emitters for sparse rewards"

    @property
    def brood(self) -> int:
        """Children of one emitter per generation."""
        return self.emitter_population * self.emitter_offspring

    @property
    def side_by_side(self) -> int:
        """Emitters per update."""
        return self.trials // self.brood

    def begin(self, spec: Spec, like: Tried, *, key: PRNGKeyArray) -> dict[str, PyTree]:
        """No emitters. Raises `BadInput` where an update is too small for one."""
        if not 1 <= self.side_by_side <= self.waiting:
            raise BadInput(
                f"an update has {self.trials} trials, an emitter {self.brood} children, {self.waiting} wait: choose a larger population, or"
                " more that wait"
            )
        rows = lambda leaf: jnp.zeros((self.waiting, self.emitter_population, *leaf.shape[1:]))
        number = jnp.zeros(self.waiting)
        nobody = jnp.full(self.waiting, -1)
        emitters = Emitters(jax.tree.map(rows, like), number, number, number, number, number, jnp.zeros_like(nobody), nobody)
        return NoveltySearch.begin(self, spec, like, key=key) | {
            "emitters": emitters,
            "chosen": jnp.arange(self.side_by_side),
            "emitting": jnp.zeros((), bool),
            "rewarded": Archive.of(self.rewards, like),
        }

    def known(self, state: dict[str, PyTree]) -> list[tuple[Tried, Array]]:
        """Both archives."""
        return [(state[name].tried, state[name].filled) for name in ("archive", "rewarded")]

    def select(
        self, state: dict[str, PyTree], tried: Tried, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """One generation of the search or of the emitters that were tried, and the next candidates of either."""
        search_key, emit_key, choose, breed, nest = jax.random.split(key, 5)
        searched, emitted = self.searched(state, tried, key=search_key), self.emitted(state, tried, key=emit_key)
        state = jax.tree.map(lambda a, b: jnp.where(state["emitting"], a, b), emitted, searched)
        chunk = max(1, self.chunk // self.trials)
        order = self.order(state["emitters"], key=choose)
        chosen = jax.lax.top_k(order, self.side_by_side)[1]
        emitting = ((clock.step + 1) // chunk % 2 == 1) & (order.max() > NEVER)
        children = self.children(state, key=breed)
        brood = self.broods(state["emitters"][chosen], key=nest).reshape(-1, children.shape[1])
        candidates = jnp.where(emitting, children.at[: len(brood)].set(brood), children)
        state |= {"chosen": chosen, "emitting": emitting, "candidates": candidates}
        age = state["emitters"].age
        return state, {
            "archived": state["archive"].count, "rewarded": state["rewarded"].count, "emitting": emitting,
            "emitters": jnp.sum(age > 0), "candidates": jnp.sum(age == 0),
        }  # fmt: skip

    def searched(self, state: dict[str, PyTree], tried: Tried, *, key: PRNGKeyArray) -> dict[str, PyTree]:
        """A generation of the novelty search; rewarded offspring become candidates, the most novel first where places are few."""
        state, novelty = self.generation(state, tried, key=key)
        earned = tried.fitness > 0
        size = self.emitter_population
        copies = jax.tree.map(lambda leaf: jnp.repeat(leaf[:, None], size, axis=1), tried)
        gap = jnp.sum((tried.genome[:, None] - state["parents"].genome[None]) ** 2, axis=-1)
        gap = jnp.where(state["alive"] & (gap > 0), gap, jnp.inf).min(axis=1)
        genes = tried.genome.shape[1]
        scale = jnp.where(jnp.isfinite(gap), jnp.sqrt(gap) / (3.0 * jnp.sqrt(genes)), self.mutation)
        zero = jnp.zeros(len(earned))
        fresh = Emitters(
            copies, scale, novelty, tried.fitness, zero, zero, jnp.zeros_like(earned, int), jnp.where(earned, 0, -1)
        )
        every = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), state["emitters"], fresh)
        worth = jnp.where(every.age > 0, jnp.inf, jnp.where(every.age == 0, every.novelty, NEVER))
        kept = jax.lax.top_k(worth, self.waiting)[1]
        return state | {"emitters": every[kept], "rewarded": state["rewarded"].add(tried, earned)}

    def emitted(self, state: dict[str, PyTree], tried: Tried, *, key: PRNGKeyArray) -> dict[str, PyTree]:
        """A generation of the chosen emitters."""
        chosen, count = state["chosen"], self.side_by_side * self.brood
        old = state["emitters"][chosen]
        active = old.age >= 0
        shape = lambda leaf: leaf[:count].reshape(self.side_by_side, self.brood, *leaf.shape[1:])
        born = jax.tree.map(shape, tried)
        everyone = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), old.members, born)
        fittest = jax.lax.top_k(everyone.fitness, self.emitter_population)[1]
        members = jax.vmap(lambda rows, keep: rows[keep])(everyone, fittest)
        mean, best = members.fitness.mean(axis=1), members.fitness.max(axis=1)
        better = best > old.best
        new = Emitters(
            members, old.scale, old.novelty, best,
            old.early + jnp.where(old.age < BOOTSTRAP // 2, mean, 0.0),
            old.late + jnp.where((old.age >= BOOTSTRAP // 2) & (old.age < BOOTSTRAP), mean, 0.0),
            jnp.where(better, 0, old.idle + 1), old.age + 1,
        )  # fmt: skip
        failed = (new.age == BOOTSTRAP) & (new.improvement <= 0)
        ended = (failed | (new.idle >= self.patience)) & active
        new = eqx.tree_at(lambda emitters: emitters.age, new, jnp.where(ended | ~active, -1, new.age))
        emitters = jax.tree.map(lambda all_rows, rows: all_rows.at[chosen].set(rows), state["emitters"], new)

        children = jax.tree.map(lambda leaf: leaf[:count], tried)
        of_active = jnp.repeat(active, self.brood)
        record = of_active & (children.fitness > jnp.repeat(old.best, self.brood))
        among = jnp.concatenate([self.descriptor.describe(state["learned"], rows.view) for rows, _ in self.known(state)])
        there = jnp.concatenate([flags for _, flags in self.known(state)])
        described = self.descriptor.describe(state["learned"], children.view)
        novelty = self.novelty(
            described, jnp.concatenate([described, among]), jnp.concatenate([of_active, there]), self.neighbours
        )
        novel = of_active & (novelty > jnp.repeat(old.novelty, self.brood))
        drawn = jax.lax.top_k(jnp.where(novel, jax.random.uniform(key, novel.shape), NEVER), min(self.archived, count))
        offered = jnp.zeros_like(novel).at[drawn[1]].set(drawn[0] > NEVER)
        return state | {
            "emitters": emitters,
            "rewarded": state["rewarded"].add(children, record),
            "archive": state["archive"].add(children, offered),
        }

    def order(self, emitters: Emitters, *, key: PRNGKeyArray) -> Float[Array, " emitter"]:
        """Who goes on first: a third of an update bootstraps, the most novel first; then the fronts of novelty and improvement."""
        begun, fresh = emitters.age >= BOOTSTRAP, (emitters.age >= 0) & (emitters.age < BOOTSTRAP)
        urgency = jnp.where(fresh, emitters.novelty + jnp.where(emitters.age > 0, 1e6, 0.0), NEVER)
        rank = jnp.sum(urgency[None] > urgency[:, None], axis=1)
        front = self.dominators(jnp.stack([emitters.novelty, emitters.improvement], axis=1), begun)
        noise = jax.random.uniform(key, front.shape)
        first = fresh & (rank < max(1, self.side_by_side // 3))
        by_class = jnp.where(first, 1e6, jnp.where(begun, 1e3 - front, -1.0 * rank))
        return jnp.where(begun | fresh, by_class + 0.5 * noise, NEVER)

    def broods(self, emitters: Emitters, *, key: PRNGKeyArray) -> Float[Array, "emitter child gene"]:
        """The children of these emitters."""
        genomes = jnp.repeat(emitters.members.genome, self.emitter_offspring, axis=1)
        return self.mutated(genomes, key=key, scale=emitters.scale[:, None, None])

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """Also `rewarded`, the archive of what earned anything."""
        return NoveltySearch.products(self, state) | {"rewarded": state["rewarded"]}
