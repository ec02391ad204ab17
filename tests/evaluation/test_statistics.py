"""Intervals and Holm's correction against scipy, statsmodels' formulas by hand, and simulation."""

import itertools

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from policylab.errors import BadInput
from policylab.evaluation.statistics import holm, interval, paired_differences, student, wilson


@pytest.mark.parametrize(("successes", "trials", "level"), [(0, 7, 0.95), (7, 7, 0.95), (3, 20, 0.9), (480, 500, 0.99)])
def test_wilson_is_scipys(successes, trials, level):
    expected = scipy.stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    found = wilson(successes, trials, level)
    np.testing.assert_allclose((found.low, found.high), (expected.low, expected.high), atol=1e-12)
    assert found.value == successes / trials
    assert found.low <= found.value <= found.high


def test_student_is_scipys_t_interval():
    values = np.random.default_rng(0).normal(3.0, 2.0, 7)
    low, high = scipy.stats.t.interval(0.9, 6, values.mean(), scipy.stats.sem(values))
    found = student(values, 0.9)
    np.testing.assert_allclose((found.low, found.high), (low, high))
    assert found.units == 7


def test_few_units_get_student_many_the_bootstrap():
    values = np.random.default_rng(0).exponential(size=60)
    assert interval(values[:29]).method == "student"
    assert interval(values[:29]) == student(values[:29])
    assert interval(values[:30]).method == "bootstrap"


def test_bootstrap_ends_are_scipys_within_monte_carlo_error():
    values = np.random.default_rng(1).exponential(size=80)
    wider = 2 * scipy.stats.norm.cdf(np.sqrt(80 / 79) * scipy.stats.t.ppf(0.975, 79)) - 1  # Hesterberg's expanded percentiles
    expected = scipy.stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=wider,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(0),
        vectorized=True,
        batch=1000,
    )
    found = interval(values)
    error = expected.standard_error
    assert abs(found.low - expected.confidence_interval.low) < 0.12 * error
    assert abs(found.high - expected.confidence_interval.high) < 0.12 * error
    assert interval(values) == found, "the same data give the same interval"


def test_bootstrap_of_many_units_meets_the_replicates_where_both_are_possible():
    from policylab.evaluation import statistics

    generator = np.random.default_rng(2)
    clicks = generator.binomial(1, 0.006, 2000) * generator.integers(20, 40, 2000)  # a few heavy rows among zeros
    groups = [clicks[:500].astype(float), clicks[500:].astype(float)]
    drawn = statistics._resampled_ends(groups, 0.025, 0)
    expanded = statistics._cumulant_ends(groups, 0.025)
    error = clicks.std() / np.sqrt(len(clicks))
    np.testing.assert_allclose(expanded, drawn, atol=0.15 * error)
    assert expanded[1] - clicks.mean() > clicks.mean() - expanded[0], "skewed to the right like the data"
    large = generator.normal(size=300_000)
    found, expected = interval(large), student(large)
    np.testing.assert_allclose((found.low, found.high), (expected.low, expected.high), atol=1e-4)


def test_strata_are_resampled_within():
    strata = np.repeat([0, 1], [20, 40])
    values = np.where(strata == 0, 0.0, 10.0)
    assert interval(values, strata=strata).low == pytest.approx(values.mean())
    assert interval(values, strata=strata).high == pytest.approx(values.mean())
    assert interval(values).high > values.mean() + 0.5


def test_student_keeps_its_level_with_five_seeds():
    samples = np.random.default_rng(3).normal(size=(4000, 5))
    missed = np.mean([not (found.low <= 0 <= found.high) for found in map(student, samples)])
    assert abs(missed - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 4000)


def test_bootstrap_of_thirty_units_keeps_its_level_for_normal_values():
    samples = np.random.default_rng(7).normal(size=(1500, 30))
    missed = np.mean([not (found.low <= 0 <= found.high) for found in map(interval, samples)])
    assert abs(missed - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 1500), "an unexpanded percentile interval misses 6.4%"


def test_holm_is_the_closed_test_of_bonferroni():
    p = np.asarray([0.03, 0.004, 0.6, 0.013])
    subsets = [s for size in range(1, 5) for s in itertools.combinations(range(4), size)]
    closed = [max(min(len(s) * min(p[list(s)]), 1.0) for s in subsets if i in s) for i in range(4)]
    np.testing.assert_allclose(holm(p), closed)
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


def test_paired_differences_are_paired_t_tests_with_holm():
    generator = np.random.default_rng(4)
    base = generator.normal(50, 20, 10)
    scores = {
        "bc": base,
        "better": base + generator.normal(8, 2, 10),
        "same": base + generator.normal(0, 2, 10),
        "worse": base - generator.normal(3, 2, 10),
    }
    rows = paired_differences(scores, 0.95)
    expected = [scipy.stats.ttest_rel(scores[name], base).pvalue for name in ("better", "same", "worse")]
    np.testing.assert_allclose([row.p for row in rows], expected)
    np.testing.assert_allclose([row.adjusted_p for row in rows], multipletests(expected, method="holm")[1])
    assert [row.verdict for row in rows] == ["better", "undecided", "worse"]
    bonferroni = student(scores["worse"] - base, 1 - 0.05 / 3)
    np.testing.assert_allclose(rows[2].interval, (bonferroni.low, bonferroni.high))
    assert all(row.reference == "bc" for row in rows)


def test_paired_differences_average_tasks_per_seed():
    generator = np.random.default_rng(5)
    a, b = generator.normal(size=(2, 6, 3))
    (row,) = paired_differences({"a": a, "b": b})
    expected = student((b - a).mean(axis=1))
    assert (row.difference, row.interval) == (expected.value, (expected.low, expected.high))


def test_equal_arms_are_undecided_and_constant_shifts_decided():
    a = np.asarray([1.0, 2.0, 3.0])
    same, shifted = paired_differences({"a": a, "same": a.copy(), "shifted": a + 1})
    assert (same.p, same.verdict) == (1.0, "undecided")
    assert (shifted.p, shifted.verdict) == (0.0, "better")


def test_familywise_error_is_held_under_the_null():
    generator = np.random.default_rng(6)
    wrong = 0
    for _ in range(800):
        base = generator.normal(size=5)
        rows = paired_differences({"first": base, **{f"arm {i}": base + generator.normal(size=5) for i in range(4)}})
        wrong += any(row.verdict != "undecided" for row in rows)
    assert wrong / 800 < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 800)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: wilson(5, 4), "5 successes of 4"),
        (lambda: wilson(0, 0), "at least one trial"),
        (lambda: student(np.asarray([1.0])), "at least 2"),
        (lambda: interval(np.asarray([1.0, np.nan, 2.0])), "value 1 is nan"),
        (lambda: interval(np.asarray([1.0, 2.0]), 95.0), "level"),
        (lambda: paired_differences({"a": np.ones(3)}), "one more"),
        (lambda: paired_differences({"a": np.ones(3), "b": np.ones(4)}), "b has scores"),
        (lambda: paired_differences({"a": np.ones(1), "b": np.ones(1)}), "at least two"),
        (lambda: holm(np.asarray([0.5, np.nan])), "p-value 1"),
    ],
)
def test_what_cannot_be_used_is_said(call, words):
    with pytest.raises(BadInput, match=words):
        call()
