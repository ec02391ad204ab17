"""Bandit estimators against closed forms, and their intervals' coverage in simulation."""

import numpy as np
import pytest

from policylab.errors import BadInput
from policylab.evaluation import logged_bandits as bandits
from policylab.evaluation import statistics
from policylab.evaluation.logged_bandits import BanditLog
from policylab.evaluation.off_policy import difference, difference_to_logging
from policylab.evaluation.statistics import student

LOGGING = np.asarray([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
TARGET = np.asarray([[0.1, 0.3, 0.6], [0.5, 0.4, 0.1]])
MEANS = np.asarray([[0.2, 0.5, 0.7], [0.9, 0.4, 0.1]])
TRUTH = float((0.5 * TARGET * MEANS).sum())


def drawn(rows, seed, *, noise=True, model=None, users=0, target=TARGET):
    """A log of two contexts and three choices; with `users`, rows of one user share a shift of the chance of success."""
    generator = np.random.default_rng(seed)
    context = generator.integers(0, 2, rows)
    action = (generator.random(rows)[:, None] > np.cumsum(LOGGING[context], axis=1)).sum(axis=1)
    chance = MEANS[context, action]
    group = None
    if users:
        group = np.sort(generator.integers(0, users, rows))
        chance = np.clip(chance + generator.normal(0, 0.3, users)[group], 0, 1)
    reward = generator.binomial(1, chance) if noise else chance
    return BanditLog.of_choices(
        reward, action, LOGGING[context, action], target[context], rewards=None if model is None else model[context], group=group,
        unit="user" if users else "row",
    )  # fmt: skip


@pytest.fixture
def _fewer_replicates(monkeypatch):
    """Coverage hardly depends on the number of replicates, the time of a simulation does."""
    monkeypatch.setattr(statistics, "REPLICATES", 600)


def test_point_estimates_by_hand():
    log = BanditLog(
        reward=np.asarray([1.0, 0.0, 2.0]), propensity=np.asarray([0.5, 0.25, 0.5]), target=np.asarray([0.25, 0.5, 1.0]),
        predicted=np.asarray([0.8, 0.3, 1.0]), expected=np.asarray([0.6, 0.4, 1.0]),
    )  # fmt: skip
    found = bandits.estimates(log)
    w, residual = np.asarray([0.5, 2.0, 2.0]), np.asarray([0.2, -0.3, 1.0])
    assert found["IPS"].value == pytest.approx((0.5 + 0 + 4) / 3)
    assert found["SNIPS"].value == pytest.approx(4.5 / 4.5)
    assert found["DM"].value == pytest.approx(2 / 3)
    assert found["DR"].value == pytest.approx(2 / 3 + np.sum(w * residual) / 3)
    assert found["SNDR"].value == pytest.approx(2 / 3 + np.sum(w * residual) / 4.5)
    assert bandits.switch_doubly_robust(log, threshold=1.0).value == pytest.approx(2 / 3 + 0.5 * 0.2 / 3)
    assert bandits.switch_doubly_robust(log, threshold=9.0).value == pytest.approx(found["DR"].value)
    assert found["IPS"].effective_sample_size == pytest.approx(4.5**2 / 8.25)
    assert found["IPS"].matched_positives == 1, "row 2 alone has a positive reward and a weight of at least 1"
    assert found["IPS"].max_weight == 2.0
    for one in found.values():
        assert one.contributions.mean() == pytest.approx(one.value)
        assert one.interval[0] <= one.value <= one.interval[1]


def test_where_the_target_is_the_logging_policy_every_weight_is_one():
    log = drawn(400, 0, target=LOGGING, model=MEANS)
    found = bandits.estimates(log)
    assert found["IPS"].value == pytest.approx(log.reward.mean())
    assert found["SNIPS"].value == pytest.approx(log.reward.mean())
    assert found["IPS"].effective_sample_size == pytest.approx(400)
    assert found["IPS"].matched_positives == log.reward.sum()
    assert found["IPS"].warning == ""
    gain = difference_to_logging(found["IPS"], log)
    assert gain.value == pytest.approx(0)
    assert np.ptp(gain.interval) < 1e-12


def test_a_right_model_without_noise_leaves_only_the_contexts_to_chance():
    log = drawn(300, 1, noise=False, model=MEANS)
    expected = (TARGET * MEANS).sum(axis=1)
    assert set(np.round(bandits.doubly_robust(log).contributions, 12)) == set(np.round(expected, 12))
    shifted = drawn(300, 1, noise=False, model=MEANS + 5)
    assert bandits.self_normalised_doubly_robust(shifted).value == pytest.approx(bandits.direct(log).value)
    assert bandits.direct(shifted).value == pytest.approx(bandits.direct(log).value + 5), "DM believes its model"


@pytest.mark.usefixtures("_fewer_replicates")
def test_unbiased_where_they_should_be():
    wrong_model = np.asarray([[0.9, 0.1, 0.3], [0.0, 0.8, 0.6]])
    values = {"IPS": [], "DR": []}
    for seed in range(400):
        log = drawn(200, seed, model=wrong_model)
        values["IPS"].append(bandits.importance_sampling(log).value)
        values["DR"].append(bandits.doubly_robust(log).value)
    for name, found in values.items():
        assert abs(np.mean(found) - TRUTH) < 3.5 * np.std(found) / np.sqrt(400), name


@pytest.mark.usefixtures("_fewer_replicates")
def test_intervals_cover_the_truth_and_the_difference():
    methods = {
        "IPS": bandits.importance_sampling, "SNIPS": bandits.weighted_importance_sampling, "DR": bandits.doubly_robust,
        "SNDR": bandits.self_normalised_doubly_robust,
    }  # fmt: skip
    repeats, hits, gains = 200, dict.fromkeys(methods, 0), dict.fromkeys(methods, 0)
    logged_truth = float((0.5 * LOGGING * MEANS).sum())
    for seed in range(repeats):
        log = drawn(200, seed, model=MEANS * 0.5 + 0.2)
        logged = log.logging_value()
        for name, method in methods.items():
            found = method(log)
            gain = difference(found, logged)
            hits[name] += found.interval[0] <= TRUTH <= found.interval[1]
            gains[name] += gain.interval[0] <= TRUTH - logged_truth <= gain.interval[1]
    slack = 3.5 * np.sqrt(0.95 * 0.05 / repeats)
    for name in methods:
        assert 0.95 - slack <= hits[name] / repeats <= 0.95 + slack, name
        assert 0.95 - slack <= gains[name] / repeats <= 0.95 + slack, name


@pytest.mark.usefixtures("_fewer_replicates")
def test_users_make_the_units_and_the_interval_wider():
    repeats, hits, rowwise = 150, 0, 0
    shifts = np.random.default_rng(0).normal(0, 0.3, 20_000)
    truth = float(np.mean([(0.5 * TARGET * np.clip(MEANS + shift, 0, 1)).sum() for shift in shifts]))
    for seed in range(repeats):
        log = drawn(1500, 1000 + seed, users=32)
        found = bandits.importance_sampling(log)
        alone = bandits.importance_sampling(BanditLog(log.reward, log.propensity, log.target))
        assert found.value == pytest.approx(alone.value)
        hits += found.interval[0] <= truth <= found.interval[1]
        rowwise += alone.interval[0] <= truth <= alone.interval[1]
    assert (found.unit, found.units) == ("user", 32)
    assert hits / repeats >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / repeats)
    assert rowwise / repeats < 0.85, "rows of one user are not independent"


def test_rare_positives_keep_their_level():
    """40 choices at random, a target that takes one: 3 matched clicks are expected, and often there are none."""
    repeats, hits, empty = 500, 0, 0
    for seed in range(repeats):
        generator = np.random.default_rng(seed)
        action = generator.integers(0, 40, 20_000)
        reward = generator.binomial(1, 0.006, 20_000)
        log = BanditLog(reward, np.full(20_000, 1 / 40), (action == 7).astype(float))
        found = bandits.importance_sampling(log)
        hits += found.interval[0] <= 0.006 <= found.interval[1]
        if found.matched_positives == 0:
            empty += 1
            assert found.interval[1] > 0.004, "no success seen is no proof of failure"
        assert "logged positive" in found.warning
        assert found.matched_positives == reward[action == 7].sum()
    assert hits / repeats >= 0.95
    assert empty > 5


def test_few_units_get_student():
    log = BanditLog(np.asarray([-1.0, 2.0, 0.5, 1.0]), np.full(4, 0.5), np.asarray([0.5, 1.0, 0.2, 0.0]))
    found = bandits.importance_sampling(log, 0.9)
    expected = student(log.weights * log.reward, 0.9)
    assert (found.value, found.interval) == (expected.value, pytest.approx((expected.low, expected.high)))
    assert "effective sample size" in found.warning


def test_wrong_propensities_are_noticed():
    log = drawn(2000, 3)
    assert bandits.importance_sampling(log).warning == ""
    halved = BanditLog(log.reward, log.propensity / 2, log.target)
    assert "average 2" in bandits.importance_sampling(halved).warning
    missing = BanditLog(log.reward, log.propensity, np.where(log.propensity < 0.25, 0.0, log.target))
    assert "never holds" in bandits.importance_sampling(missing).warning


def test_switch_takes_the_model_where_weights_are_extreme():
    generator = np.random.default_rng(4)
    rows = 3000
    rare = generator.random(rows) < 0.02
    propensity, target = np.where(rare, 0.002, 0.9), np.where(rare, 0.1, 0.9)
    reward = generator.normal(1.0, 1.0, rows)
    log = BanditLog(reward, propensity, target, np.full(rows, 1.0), np.full(rows, 1.0))
    full, switched = bandits.doubly_robust(log), bandits.switch_doubly_robust(log, threshold=10.0)
    assert np.ptp(switched.interval) < 0.5 * np.ptp(full.interval)
    assert "reward model alone" in switched.warning
    assert abs(switched.value - 1) < 0.1


def test_where_nothing_can_be_said_the_table_says_so():
    log = BanditLog(np.asarray([1.0, 0.0, 1.0]), np.full(3, 0.5), np.zeros(3))
    found = bandits.estimates(log)
    assert found["IPS"].value == 0
    assert found["IPS"].interval[1] >= 0
    assert np.isnan(found["SNIPS"].value)
    assert "none of the logged actions" in found["SNIPS"].warning


ROWS = np.full(4, 0.5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: BanditLog(ROWS, ROWS[:3], ROWS), r"propensity has shape \(3,\) for 4 rows"),
        (lambda: BanditLog(ROWS, ROWS * [1, 1, 0, 1], ROWS), "propensity is 0.0 in row 2"),
        (lambda: BanditLog(ROWS * [1, np.nan, 1, 1], ROWS, ROWS), "reward is nan in row 1"),
        (lambda: BanditLog(ROWS, ROWS, -ROWS), "target is -0.5 in row 0"),
        (lambda: BanditLog(ROWS, ROWS, ROWS, predicted=ROWS), "both or neither"),
        (lambda: BanditLog(ROWS[:1], ROWS[:1], ROWS[:1]), "at least two"),
        (lambda: BanditLog(ROWS, ROWS, ROWS, group=np.zeros(4, int)), "two different groups"),
        (lambda: bandits.doubly_robust(BanditLog(ROWS, ROWS, ROWS)), "needs a reward model"),
        (lambda: BanditLog.of_choices(ROWS, np.full(4, 3), ROWS, np.full((4, 2), 0.5)), "action 3 in row 0"),
        (lambda: BanditLog.of_choices(ROWS, np.zeros(4, int), ROWS, np.full((4, 2), 0.6)), "add up to 1.2"),
        (lambda: BanditLog.of_choices(ROWS, np.zeros(4, int), ROWS * 3, np.full((4, 2), 0.5)), "at most 1"),
        (
            lambda: difference(
                bandits.importance_sampling(BanditLog(ROWS, ROWS, ROWS)),
                bandits.importance_sampling(BanditLog(ROWS[:3], ROWS[:3], ROWS[:3])),
            ),
            "same log",
        ),
    ],
)
def test_what_cannot_be_used_is_said(call, words):
    with pytest.raises(BadInput, match=words):
        call()
