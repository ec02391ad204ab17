"""Novelty, archives, grids and emitters against loops in NumPy; searches that find what is far away, and rewards that are rare."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab import registry
from policylab.environments.discs import Discs
from policylab.environments.time_limit import TimeLimit
from policylab.learners.evolution.descriptors import frames
from policylab.learners.evolution.quality_diversity import Archive, Tried
from policylab.learners.evolution.serene import Emitters

PLACE = TimeLimit(Discs.of(("########", "#......#", "#.r....#", "#......#", "########"), ((2.2, 0.0, 0.8),), gain=10.0), 12)
FORM = lab.Deterministic(width=4, depth=1, activation="tanh", normalise=False)
SMALL = {"population": 12, "policy": FORM, "mutation": 0.1}


@jax.jit
def play(policy, *, key):
    return lab.unroll(policy, PLACE, episodes=1, horizon=12, key=key)


def rows(number: int, count: int, genes: int = 3) -> Tried:
    draw = jax.random.normal(jax.random.key(number), (count, genes + 3))
    return Tried(draw[:, :genes], draw[:, genes:-1], draw[:, -1])


@pytest.fixture(scope="module")
def searches():
    """One run of each method: 12 x 2 trials per update."""
    learners = {
        "elites": lab.MapElites(**SMALL, cells=8),
        "serene": lab.SERENE(**SMALL, neighbours=5, capacity=256, chunk=24, waiting=16, patience=10),
    }
    return {name: (learner, lab.train(learner, lab.Rollout(PLACE), steps=40)) for name, learner in learners.items()}


def test_novelty_is_the_mean_distance_to_the_nearest_others():
    points = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    there = np.arange(9) != 4
    found = lab.NoveltySearch().novelty(jnp.asarray(points[:4]), jnp.asarray(points), jnp.asarray(there), 3)
    for i in range(4):
        others = [j for j in range(9) if there[j] and j != i]
        assert float(found[i]) == pytest.approx(
            np.sort(np.linalg.norm(points[others] - points[i], axis=1))[:3].mean(), rel=1e-5
        )
    few = lab.NoveltySearch().novelty(jnp.asarray(points[:2]), jnp.asarray(points[:2]), jnp.ones(2, bool), 15)
    np.testing.assert_allclose(few, np.linalg.norm(points[0] - points[1]), rtol=1e-5)


def test_an_archive_overwrites_the_oldest():
    archive = Archive.of(4, rows(0, 1))
    first, second = rows(1, 3), rows(2, 3)
    archive = archive.add(first, jnp.array([True, False, True])).add(second, jnp.ones(3, bool))
    assert int(archive.count) == 5
    assert archive.filled.all()
    np.testing.assert_array_equal(archive.tried.fitness, [second.fitness[2], first.fitness[2], *second.fitness[:2]])
    with pytest.raises(lab.BadInput, match="larger capacity"):
        archive.add(rows(3, 5), jnp.ones(5, bool))


def test_the_grid_keeps_the_fittest_of_every_cell_like_a_dictionary():
    learner, kept = lab.MapElites(cells=3), {}
    state = {"low": jnp.array([-1.0, -1.0]), "high": jnp.array([1.0, 1.0])}
    elites, occupied = Archive.of(9, rows(0, 1)).tried, jnp.zeros(9, bool)
    for number in range(4):
        tried = dataclasses.replace(rows(number, 20), fitness=jnp.round(rows(number, 20).fitness))  # with ties
        cell = learner.cell(state, tried.view)
        elites, occupied, entered = learner.inserted(elites, occupied, tried, cell)
        before = dict(kept)
        for place, fitness, genome in zip(cell.tolist(), tried.fitness.tolist(), np.asarray(tried.genome)):
            if place not in kept or fitness > kept[place][0]:
                kept[place] = (fitness, genome)
        assert int(entered) == sum(before.get(p, (None,))[0] != kept[p][0] for p in kept)
        assert set(np.flatnonzero(occupied)) == set(kept)
        for place, (fitness, genome) in kept.items():
            assert float(elites.fitness[place]) == fitness
            np.testing.assert_array_equal(elites.genome[place], genome)
    np.testing.assert_array_equal(learner.cell(state, jnp.array([[-0.9, 0.0], [0.9, 0.9], [5.0, -5.0]])), [1, 8, 6])


def test_fronts_count_who_is_better_in_everything():
    scores, there = np.random.default_rng(1).integers(0, 4, (8, 2)).astype(np.float32), np.arange(8) != 2
    found = lab.NoveltySearch().dominators(jnp.asarray(scores), jnp.asarray(there))
    for i in range(8):
        better = [(scores[j] >= scores[i]).all() and (scores[j] > scores[i]).any() and there[j] for j in range(8)]
        assert int(found[i]) == sum(better)


def test_every_member_plays_from_the_same_starts_and_is_described_by_its_last_place(searches):
    learner, run = searches["elites"]
    population = run.products(seed=0)["explorer"]
    assert population.size == 24
    source = lab.Rollout(PLACE).serve(learner.needs)
    clock = lab.Clock(jnp.asarray(0), jnp.asarray(1))
    draw = jax.jit(lambda population, key: source.next(None, {"explorer": population}, clock=clock, key=key)[1])
    batch = draw(population, jax.random.key(0))
    assert batch.reward.shape == (24, 1, 12)
    np.testing.assert_array_equal(batch.observation[:, 0, 0], np.tile([-1.5, 0.0], (24, 1)))
    alone = play(population.member(7), key=jax.random.key(0))
    np.testing.assert_allclose(batch.next_observation[7, 0], alone.observation[0, 1:], atol=1e-5)
    last = lab.LastPlace().view(batch, PLACE.spec.observation)
    np.testing.assert_array_equal(last, batch.next_observation[:, 0, -1])
    three = frames(batch, PLACE.spec.observation, 3)
    np.testing.assert_array_equal(three, batch.next_observation[:, 0, jnp.array([3, 7, 11])].reshape(24, 6))


def test_searches_reach_far_and_keep_the_best(searches):
    for name, (_, run) in searches.items():
        best = run.metrics[-1]["metrics"]["best"][0]
        assert best > 0.5, name
        played = play(run.policy(), key=jax.random.key(3)).returns[0]
        assert float(played) == pytest.approx(best, rel=1e-3), name
    archive = searches["serene"][1].products(seed=0)["archive"]
    assert np.ptp(np.asarray(archive.tried.view[: int(archive.count)]), axis=0).min() > 2.0
    grid = searches["elites"][1].products(seed=0)["archive"]
    assert int(grid["occupied"].sum()) > 15


def test_emitters_take_turns_with_novelty_and_follow_rewards(searches):
    run = searches["serene"][1]
    emitting = [row["metrics"]["emitting"][0] for row in run.metrics]
    assert 0.2 < np.mean(emitting) < 0.6
    rewarded = jax.tree.map(lambda leaf: leaf[0], run.state["rewarded"])
    earned = rewarded.tried.fitness[rewarded.filled]
    assert len(earned) > 10
    assert float(earned.min()) > 0
    assert float(earned.max()) == pytest.approx(run.metrics[-1]["metrics"]["best"][0])


def test_an_emitter_keeps_its_fittest_and_ends_without_improvement():
    learner = lab.SERENE(
        population=3, emitter_population=2, emitter_offspring=2, waiting=2, archived=1, capacity=8, neighbours=2
    )
    like = rows(0, 1)
    spec = lab.Spec(lab.Box((2,)), lab.Box((1,), -1.0, 1.0))
    state = learner.begin(spec, like, key=jax.random.key(0)) | {"learned": None}
    number = jnp.array([0.5, 0.5])
    members = jax.tree.map(lambda leaf: leaf.reshape(2, 2, *leaf.shape[1:]), rows(1, 4))
    members = dataclasses.replace(members, fitness=jnp.array([[1.0, 1.0], [2.0, 2.0]]))
    early = jnp.array([0.5, 10.0])  # the second has not improved when its bootstrapping ends
    old = Emitters(members, number, number, jnp.array([1.0, 2.0]), early, number, jnp.array([0, 0]), jnp.array([0, 5]))
    children = dataclasses.replace(rows(2, 6), fitness=jnp.array([3.0, 0.0, 0.5, 2.0, 9.0, 9.0]))
    for chosen, best, age in ((0, 3.0, 1), (1, 3.0, -1)):
        now = state | {"emitters": old, "chosen": jnp.array([chosen]), "emitting": jnp.asarray(True)}
        after = jax.jit(lambda now: learner.emitted(now, children, key=jax.random.key(0)))(now)
        assert float(after["emitters"].best[chosen]) == best
        assert int(after["emitters"].age[chosen]) == age
        np.testing.assert_array_equal(np.sort(after["emitters"].members.fitness[chosen]), [2.0, 3.0])
        assert int(after["rewarded"].count) == (2 if chosen == 0 else 1)


def test_an_autoencoder_learns_what_it_sees_and_surprise_is_its_error():
    descriptor = lab.Autoencoded(size=1, count=2, width=16, steps=300, learning_rate=1e-2)
    spec = lab.Spec(lab.Box((1,), -1.0, 1.0), lab.Box((1,), -1.0, 1.0))
    line = jnp.linspace(-1.0, 1.0, 40)[:, None] * jnp.array([1.0, -0.5])
    before = descriptor.init(spec, key=jax.random.key(0))
    after = jax.jit(lambda learned: descriptor.learn(learned, line, jnp.ones(40), key=jax.random.key(1)))(before)
    assert float(descriptor.surprise(after, line).mean()) < 0.05 * float(descriptor.surprise(before, line).mean())
    assert float(descriptor.surprise(after, jnp.array([[1.0, 1.0]]))[0]) > 0.1
    codes = np.asarray(descriptor.describe(after, line))[:, 0]
    assert (np.diff(codes) > 0).all() or (np.diff(codes) < 0).all()


def test_settings_with_descriptors_are_stored_and_wrong_ones_are_told():
    learner = lab.SERENE(descriptor=lab.Autoencoded(size=3, count=5), selection="pareto")
    assert registry.from_json(registry.to_json(learner)) == learner
    with pytest.raises(lab.BadInput, match="choose a larger population"):
        lab.SERENE(population=2).begin(PLACE.spec, rows(0, 1), key=jax.random.key(0))
    with pytest.raises(lab.BadInput, match="choose LastPlace"):
        lab.MapElites(descriptor=lab.Autoencoded()).init(PLACE.spec, key=jax.random.key(0))
    with pytest.raises(lab.BadInput, match="without: give them bounds"):
        lab.MapElites().init(lab.Spec(lab.Box((2,)), lab.Box((2,), -1.0, 1.0)), key=jax.random.key(0))
    with pytest.raises(lab.BadInput, match="radii above 0"):
        Discs.of(("###", "#r#", "###"), ((0.0, 0.0, 0.0),))
