"""What all quality-diversity methods share: genomes, their trials, archives and novelty."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, WholeEpisodes
from policylab.learners.evolution.descriptors import Descriptor, LastPlace
from policylab.networks.frozen import trainable
from policylab.policies.deterministic import Deterministic
from policylab.policies.population import Population
from policylab.policy import Form, Policy

Genomes = Float[Array, "*member gene"]


class Tried(eqx.Module):
    """Genomes with what they did: the view of their episodes and their fitness, the mean return."""

    genome: Genomes
    view: Float[Array, "*member view"]
    fitness: Float[Array, "*member"]

    def __getitem__(self, rows: Any) -> Tried:
        return jax.tree.map(lambda leaf: leaf[rows], self)

    def __add__(self, other: Tried) -> Tried:
        """Both, one below the other."""
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), self, other)


class Archive(eqx.Module):
    """Up to `capacity` tried genomes, the oldest overwritten first; `count` were ever added."""

    tried: Tried
    count: Int[Array, ""]

    @staticmethod
    def of(capacity: int, like: Tried) -> Archive:
        """Empty, for rows like those of `like`."""
        return Archive(jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape[1:])), like), jnp.zeros((), jnp.int32))

    @property
    def filled(self) -> Bool[Array, " capacity"]:
        """Which rows hold something."""
        return jnp.arange(len(self.tried.fitness)) < self.count

    def add(self, rows: Tried, chosen: Bool[Array, " member"]) -> Archive:
        """With the chosen rows. Raises `BadInput` for more rows than it holds."""
        capacity = len(self.tried.fitness)
        if len(chosen) > capacity:
            raise BadInput(f"an archive of {capacity} cannot take {len(chosen)} at once: give it a larger capacity")
        place = (self.count + jnp.cumsum(chosen) - 1) % capacity
        place = jnp.where(chosen, place, capacity)  # beyond the end: dropped
        tried = jax.tree.map(lambda kept, new: kept.at[place].set(new, mode="drop"), self.tried, rows)
        return Archive(tried, self.count + chosen.sum(dtype=jnp.int32))


@settings
class QualityDiversity(Learner):
    """Evaluates `products["explorer"]`, a `Population` of new genomes, at every update; subclasses say how these are made and what is
    kept. A genome is all trainable numbers of a policy, mutated by adding Gaussian noise to each of them.

    The source is a `Rollout` in an environment with a time limit: a batch holds `episodes` whole episodes of every member.
    """

    population: int = setting(100, "genomes that survive a generation", low=2)
    offspring: int = setting(2, "children of each survivor per generation", low=1)
    mutation: float = setting(0.05, "standard deviation of a gene's mutation", above=0.0)
    limit: float = setting(5.0, "genes are clipped to plus and minus this", above=0.0)
    episodes: int = setting(1, "episodes of each genome", low=1)
    descriptor: Descriptor = setting(LastPlace(), "what a policy did, as a few numbers")
    policy: Form = setting(Deterministic(width=8, depth=1, activation="tanh", normalise=False), "the form of the policies")

    title: ClassVar[str] = "Quality-diversity"
    actions: ClassVar[str] = "continuous"
    uses: ClassVar[tuple[str, ...]] = ("reward",)
    on_policy: ClassVar[bool] = True

    @property
    def needs(self) -> Mapping[str, Request]:
        """Whole episodes of every member."""
        return {"episodes": WholeEpisodes(self.episodes)}

    @property
    def trials(self) -> int:
        """Genomes that are evaluated per update."""
        return self.population * self.offspring

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Random genomes to begin with, from the form's own initial distribution; the archives are empty."""
        build, learn, more = jax.random.split(key, 3)
        policies = jax.vmap(lambda k: self.policy.build(spec, key=k))(jax.random.split(build, self.trials))
        template = jax.tree.map(lambda leaf: leaf[0], policies)
        candidates = jax.vmap(lambda policy: ravel_pytree(eqx.filter(policy, trainable(policy)))[0])(policies)
        learned = self.descriptor.init(spec, key=learn)
        none = jax.tree.map(lambda leaf: jnp.zeros((1, 1, 1, *leaf.shape), leaf.dtype), spaces.zeros(spec.observation))
        flag, number = jnp.zeros((1, 1, 1), bool), jnp.zeros((1, 1, 1))
        view = self.descriptor.view(Window(none, none, number, none, flag, flag, ~flag, flag.astype(int)), spec.observation)
        like = Tried(candidates[:1], view, jnp.zeros(1))
        state = {
            "spec": replace(spec, statistics={}),
            "template": template,
            "candidates": candidates,
            "learned": learned,
            "champion": replace(jax.tree.map(lambda leaf: leaf[0], like), fitness=jnp.asarray(-jnp.inf)),
        }
        return state | self.begin(spec, like, key=more)

    @abstractmethod
    def begin(self, spec: Spec, like: Tried, *, key: PRNGKeyArray) -> dict[str, PyTree]:
        """What a method keeps beyond the genomes to try next, for rows like those of `like`."""

    def tried(self, state: dict[str, PyTree], batch: Window) -> Tried:
        """The candidates with what they did."""
        fitness = jnp.sum(jnp.where(batch.valid, batch.reward, 0.0), axis=-1).mean(axis=-1)
        return Tried(state["candidates"], self.descriptor.view(batch, state["spec"].observation), fitness)

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """One generation. Metrics: the best fitness ever and of this generation, and the method's own."""
        tried = self.tried(state, batch)
        best = tried[jnp.argmax(tried.fitness)]
        champion = state["champion"]
        better = best.fitness > champion.fitness
        state = state | {"champion": jax.tree.map(lambda new, old: jnp.where(better, new, old), best, champion)}
        state, metrics = self.select(state, tried, clock=clock, key=key)
        return state, {"best": state["champion"].fitness, "fitness": tried.fitness.mean(), **metrics}

    @abstractmethod
    def select(
        self, state: dict[str, PyTree], tried: Tried, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """What survives, and the next candidates."""

    def mutated(self, genomes: Genomes, *, key: PRNGKeyArray, scale: Array | None = None) -> Genomes:
        """The genomes with noise added to every gene, clipped."""
        noise = jax.random.normal(key, genomes.shape)
        return jnp.clip(genomes + (self.mutation if scale is None else scale) * noise, -self.limit, self.limit)

    def policies(self, state: dict[str, PyTree], genomes: Genomes) -> Policy:
        """The policies of these genomes, stacked."""
        free, fixed = eqx.partition(state["template"], trainable(state["template"]))
        unravel = ravel_pytree(free)[1]
        return jax.vmap(lambda genome: eqx.combine(unravel(genome), fixed))(genomes)

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy` (the fittest ever tried) and `explorer` (those to try next)."""
        best = self.policies(state, state["champion"].genome[None])
        return {
            "policy": jax.tree.map(lambda leaf: leaf[0], best),
            "explorer": Population(self.policies(state, state["candidates"])),
        }

    def novelty(
        self, of: Float[Array, "row size"], among: Float[Array, "other size"], there: Bool[Array, " other"], neighbours: int
    ) -> Float[Array, " row"]:
        """The mean distance to the nearest `neighbours` others that are there; whoever stands among the others finds itself at 0 and
        does not count it. With fewer others the mean is over those."""
        square = jnp.sum((of[:, None] - among[None]) ** 2, axis=-1)
        distance = jnp.sqrt(jnp.where(there, square, jnp.inf))
        nearest = -jax.lax.top_k(-distance, min(neighbours + 1, len(among)))[0][:, 1:]
        known = jnp.isfinite(nearest)
        return jnp.sum(jnp.where(known, nearest, 0.0), axis=1) / jnp.maximum(known.sum(axis=1), 1)
