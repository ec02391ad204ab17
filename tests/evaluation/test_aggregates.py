"""Aggregates against rliable, the Mann-Whitney statistic and brute force."""

import numpy as np
import pytest
import scipy.stats
from rliable import library, metrics

from policylab.errors import BadInput
from policylab.evaluation import aggregates

NAMES = ("mean", "median", "iqm", "optimality_gap")
PEERS = (metrics.aggregate_mean, metrics.aggregate_median, metrics.aggregate_iqm, metrics.aggregate_optimality_gap)


@pytest.fixture(autouse=True)
def _the_peer_draws_from_the_global_generator():
    np.random.seed(0)  # noqa: NPY002  (rliable knows no other)


@pytest.fixture(scope="module")
def scores():
    generator = np.random.default_rng(0)
    return {"a": generator.gamma(2.0, 0.4, (10, 5)), "b": generator.normal(0.8, 0.3, (10, 5)), "c": generator.random((4, 3))}


@pytest.mark.parametrize("shape", [(10, 9), (3, 1), (5, 7), (1, 6), (300, 2)])
def test_point_estimates_are_rliables(shape):
    table = np.random.default_rng(1).normal(0.7, 0.5, shape)
    for name, peer in zip(NAMES, PEERS, strict=True):
        assert getattr(aggregates, name)(table) == pytest.approx(float(peer(table)), rel=1e-12, abs=1e-14)
    assert aggregates.optimality_gap(table, 0.5) == pytest.approx(float(metrics.aggregate_optimality_gap(table, 0.5)))


def test_replicates_are_the_aggregates_of_resampled_tables():
    tables = np.random.default_rng(2).normal(0.9, 0.4, (2, 5, 3))
    draws = aggregates._aggregate_draws(tables, 60, 0, 1.0)
    counts = np.concatenate(list(aggregates.resamplings(5, 3, 60, seed=(0, 0), block=aggregates._block(15))), axis=2)
    assert np.all(counts.sum(axis=1) == 5)
    for method in range(2):
        for replicate in range(60):
            columns = [np.repeat(tables[method, :, task], counts[task, :, replicate]) for task in range(3)]
            resampled = np.stack(columns, axis=1)
            expected = [peer(resampled) for peer in PEERS]
            np.testing.assert_allclose(draws[method, :, replicate], expected, atol=1e-12)


@pytest.mark.parametrize(("seeds", "tasks"), [(1, 4), (6, 2), (70, 3), (300, 1)])
def test_seeds_are_drawn_uniformly_and_independently(seeds, tasks):
    replicates = 3000
    blocks = list(aggregates.resamplings(seeds, tasks, replicates, seed=(7, 0), block=700))
    counts = np.concatenate(blocks, axis=2).astype(float)
    assert counts.shape == (tasks, seeds, replicates)
    assert np.all(counts.sum(axis=1) == seeds)
    expected = np.sqrt((1 - 1 / seeds) / replicates)  # standard error of a cell's mean count
    assert np.all(np.abs(counts.mean(axis=2) - 1) <= 5 * expected)
    np.testing.assert_allclose(counts.var(axis=2).mean(), 1 - 1 / seeds, atol=0.05)


def test_intervals_are_rliables_within_monte_carlo_error(scores):
    def together(table):
        return np.asarray([peer(table) for peer in PEERS])

    _, peers = library.get_interval_estimates(scores, together, reps=3000)
    ours = aggregates.aggregate_intervals(scores, replicates=20_000)
    for method in scores:
        for k, name in enumerate(NAMES):
            found = ours[method][name]
            width = peers[method][1, k] - peers[method][0, k]
            np.testing.assert_allclose(found.interval, peers[method][:, k], atol=0.06 * width, err_msg=f"{method} {name}")
            assert found.interval[0] <= found.value <= found.interval[1]


def test_a_methods_interval_does_not_depend_on_its_company(scores):
    together = aggregates.aggregate_intervals(scores, replicates=500)
    alone = aggregates.aggregate_intervals({"b": scores["b"]}, replicates=500)
    assert list(together) == ["a", "b", "c"]
    for name in NAMES:
        np.testing.assert_allclose(together["b"][name].interval, alone["b"][name].interval, rtol=1e-12)
    assert aggregates.aggregate_intervals(scores, replicates=500) == together, "the same seed gives the same intervals"
    assert aggregates.aggregate_intervals(scores, replicates=500, seed=1) != together


def test_probability_of_improvement_is_mann_whitney_per_task():
    generator = np.random.default_rng(3)
    x, y = generator.integers(0, 5, (8, 4)).astype(float), generator.integers(0, 5, (6, 4)).astype(float)
    found = aggregates.probability_of_improvement(x, y)
    expected = np.mean([scipy.stats.mannwhitneyu(x[:, t], y[:, t]).statistic / 48 for t in range(4)])
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert found.value == pytest.approx(float(metrics.probability_of_improvement(x, y)), rel=1e-12)
    assert aggregates.probability_of_improvement(x, x).value == 0.5
    assert aggregates.probability_of_improvement(y, x).value == pytest.approx(1 - found.value)


def test_interval_of_the_probability_of_improvement_is_rliables():
    generator = np.random.default_rng(4)
    x, y = generator.normal(0.3, 1, (10, 3)), generator.normal(0, 1, (7, 3))
    _, peers = library.get_interval_estimates({"x,y": (x, y)}, metrics.probability_of_improvement, reps=600)
    found = aggregates.probability_of_improvement(x, y, replicates=20_000)
    low, high = peers["x,y"].reshape(-1)
    np.testing.assert_allclose(found.interval, (low, high), atol=0.1 * (high - low))


@pytest.mark.parametrize("of_task_means", [False, True])
def test_performance_profile_is_rliables(scores, of_task_means):
    thresholds = np.linspace(-0.5, 2.5, 13)
    values, bands = library.create_performance_profile(
        {"a": scores["a"]}, thresholds, use_score_distribution=not of_task_means, reps=800
    )
    found = aggregates.performance_profile(scores["a"], thresholds, of_task_means=of_task_means, replicates=5000)
    np.testing.assert_allclose(found.value, values["a"], rtol=1e-12)
    tolerance = 0.21 if of_task_means else 0.03  # task means move in steps of one task
    np.testing.assert_allclose(np.stack([found.low, found.high]), bands["a"], atol=tolerance)
    assert np.all(found.low <= found.value)
    assert np.all(found.value <= found.high)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: aggregates.iqm(np.asarray([[1.0, np.nan]])), "nan at seed 0, task 1"),
        (lambda: aggregates.mean(np.zeros((0, 3))), "one row per seed"),
        (lambda: aggregates.aggregate_intervals({"a": np.ones((2, 2))}, level=1.0), "level"),
        (lambda: aggregates.aggregate_intervals({"a": np.ones((2, 2))}, replicates=0), "replicates"),
        (lambda: aggregates.probability_of_improvement(np.ones((2, 2)), np.ones((2, 3))), "2 tasks and y has 3"),
    ],
)
def test_what_cannot_be_used_is_said(call, words):
    with pytest.raises(BadInput, match=words):
        call()
