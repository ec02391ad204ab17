"""Intervals for few seeds: what they cover, simulated with known truth."""

from __future__ import annotations

import numpy as np
import pytest

from policylab.errors import BadInput
from policylab.evaluation.aggregates import iqm, mean, median, optimality_gap, probability_of_improvement
from policylab.evaluation.small_samples import jackknife, probability_interval
from policylab.evaluation.statistics import student


def test_the_jackknife_of_the_mean_is_students_interval():
    scores = np.random.default_rng(0).normal(size=(7, 3))
    expected = student(scores.mean(axis=1))
    assert jackknife(mean, scores) == pytest.approx((expected.low, expected.high))


def test_one_seed_has_no_interval():
    with pytest.raises(BadInput, match="at least 2"):
        jackknife(mean, np.ones((1, 3)))


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize(
    ("statistic", "truth"),
    [(iqm, 60.0), (median, 60.0), (lambda table: optimality_gap(table, 100.0), 40.0)],
    ids=["iqm", "median", "gap"],
)
def test_it_covers_where_the_bootstrap_does_not(seeds, statistic, truth):
    random, hits, percentile = np.random.default_rng(1), 0, 0
    for _ in range(400):
        scores = random.normal(60, 5, (seeds, 1))
        low, high = jackknife(statistic, scores)
        hits += low <= truth <= high
        drawn = [statistic(scores[random.integers(0, seeds, seeds)]) for _ in range(60)]
        percentile += np.percentile(drawn, 2.5) <= truth <= np.percentile(drawn, 97.5)
    assert hits >= 400 * 0.86
    assert hits > percentile


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_the_interval_of_a_probability_of_improvement_covers(shift):
    from scipy.stats import norm

    random, hits = np.random.default_rng(2), 0
    truth = float(norm.cdf(shift / np.sqrt(2)))
    for _ in range(300):
        x, y = random.normal(shift, 1, (8, 1)), random.normal(0, 1, (8, 1))
        found = probability_of_improvement(x, y, replicates=10)
        low, high = probability_interval(found.value, 8, 1)
        hits += low <= truth <= high
        assert 0 <= low < high <= 1
    assert hits >= 300 * 0.95
