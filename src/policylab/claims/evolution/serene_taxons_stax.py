"""SERENE, TAXONS and STAX: quality-diversity for rewards that are almost always zero (Paolo 2021, thesis; arXiv 2203.01027)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from policylab.claim import Claim, Equivalent, Greater
from policylab.environments.discs import Discs
from policylab.environments.time_limit import TimeLimit
from policylab.hyperparameters import traced
from policylab.learner import Clock
from policylab.learners.evolution.descriptors import Autoencoded
from policylab.learners.evolution.map_elites import MapElites
from policylab.learners.evolution.novelty_search import NoveltySearch
from policylab.learners.evolution.quality_diversity import QualityDiversity
from policylab.learners.evolution.serene import SERENE
from policylab.sources.rollout import Rollout

WALLS = (
    "############",
    "#..........#",
    "#..........#",
    "########...#",
    "#..........#",
    "#.r........#",
    "############",
)
DISCS = ((2.6, 1.9, 0.5), (4.4, -2.2, 0.5))  # past the wall; at the lower right
STEPS, TRIALS, EARLY = 60, 20_000, 10_000  # steps of an episode, episodes of a run, and of its beginning
CELLS = 50  # along each side of the plane, for coverage
ENVIRONMENT = TimeLimit(Discs.of(WALLS, DISCS, gain=8.0), STEPS)


@partial(jax.jit, static_argnames="updates")
def searched(
    learner: QualityDiversity, seeds: Array, updates: int
) -> tuple[Float[Array, "seed update member 2"], Float[Array, "seed update member"]]:
    """Where every genome that was tried ended, and what it earned."""
    source = Rollout(ENVIRONMENT).serve(learner.needs)

    def one(seed: Array) -> tuple[Array, Array]:
        def generation(state: Any, step: Array) -> tuple[Any, tuple[Array, Array]]:
            clock = Clock(step, jnp.asarray(updates))
            act, learn = jax.random.split(jax.random.fold_in(jax.random.key(seed), step))
            batch = source.next(None, learner.products(state), clock=clock, key=act)[1]
            state, _ = learner.update(state, batch, clock=clock, key=learn)
            return state, (batch.next_observation[:, 0, -1], batch.reward[:, 0].sum(axis=1))

        state = learner.init(source.spec, key=jax.random.fold_in(jax.random.key(seed), updates))
        return jax.lax.scan(generation, state, jnp.arange(updates))[1]

    return jax.vmap(one)(seeds)


def figures(places: np.ndarray, earned: np.ndarray) -> dict[str, np.ndarray]:
    """Per seed: the share of the plane's cells in which somebody ended, and the best return of those who ended in each disc."""
    half = np.array([len(WALLS[0]), len(WALLS)]) / 2
    cell = np.clip(((places + half) / (2 * half) * CELLS).astype(int), 0, CELLS - 1)
    numbers = cell[..., 0] * CELLS + cell[..., 1]
    coverage = np.array([len(np.unique(row)) for row in numbers.reshape(len(numbers), -1)]) / CELLS**2
    best = {}
    for disc, (x, y, radius) in enumerate(DISCS):
        inside = np.linalg.norm(places - np.array([x, y]), axis=-1) < radius
        best[f"disc{disc}"] = 100.0 / STEPS * np.where(inside, earned, 0.0).max(axis=(1, 2))
    return {"coverage": 100.0 * coverage, **best, "reward": np.mean(list(best.values()), axis=0)}


ARMS: dict[str, QualityDiversity] = {
    "serene": SERENE(capacity=512, rewards=256),
    "novelty": NoveltySearch(capacity=512),
    "elites": MapElites(),
    "random": NoveltySearch(capacity=512, selection="random"),
    "taxons": NoveltySearch(capacity=512, selection="either", descriptor=Autoencoded(count=1)),
}


def measure(seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Coverage and rewards after all trials; coverage also after the first 10 000 (TAXONS makes only these)."""
    found: dict[str, np.ndarray] = {}
    for arm, learner in ARMS.items():
        trials = EARLY if arm == "taxons" else TRIALS
        places, earned = (np.asarray(x) for x in searched(traced(learner), jnp.asarray(seeds), trials // learner.trials))
        early = EARLY // learner.trials
        found[f"{arm}/early-coverage"] = figures(places[:, :early], earned[:, :early])["coverage"]
        if arm != "taxons":
            found |= {f"{arm}/{name}": value for name, value in figures(places, earned).items()}
    return found


CLAIM = Claim(
    system="serene-taxons-stax",
    says="With rewards that are zero almost everywhere, SERENE covers as much as novelty search and earns more in the reward areas than"
    " novelty search and MAP-Elites; TAXONS explores with a descriptor that it learns itself (Paolo 2021, thesis, and arXiv 2102.03140,"
    " 1909.05508).",
    task="A point robot in a U-shaped maze of 12 x 7 m, 60 steps, 0 reward but in two discs of radius 0.5 m, one past the wall (disc0), one"
    " at the lower right (disc1). 20 000 trials. `disc0`, `disc1`: 100 times the best return per step of whoever ended in that disc;"
    " `reward`: their mean; `coverage`: percent of a 50 x 50 grid (free: 53.5) in which somebody ended; `early-coverage`: after 10 000.",
    arms={
        "serene": "SERENE, descriptor: the last place",
        "novelty": "novelty search, the same descriptor",
        "elites": "MAP-Elites on the 50 x 50 grid of last places",
        "random": "the loop of novelty search with random survivors",
        "taxons": "TAXONS: novelty or surprise in the code of an autoencoder of the last observation",
    },
    parts=(
        Greater("serene", "novelty", 5.0, "reward"),
        Greater("serene", "elites", 5.0, "reward"),
        Equivalent("serene", "novelty", 5.3, "random", "coverage"),
        Greater("taxons", "random", 5.0, "early-coverage"),
    ),
    measure=measure,
    budget="equal trials (20 000; 10 000 where `early`), 200 per update, the same policies (8 hidden units) and mutations (0.05)",
    scale="analogue",
    deviation="One maze of our own instead of curling, HardMaze, arm and ant; rewards of both discs as one number; emitters go on side"
    " by side and end by patience; TAXONS sees coordinates, not pictures; STAX, CMA-ES, CMA-ME and NSGA-II are left out; looks after 5"
    " and 10 seeds only.",
    minutes=10,
    looks=(5, 10),
    tuning="published defaults on both sides (SERENE's released parameter file). Maze, discs and number of trials were chosen by looking at"
    " SERENE, novelty search and MAP-Elites with seeds 1000 and 1001: with larger or farther discs the rewards of all three were limited"
    " by the way there",
)
