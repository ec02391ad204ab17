"""Episode estimators against exact values of small random processes, by linear algebra and by enumeration."""

from functools import cache

import numpy as np
import pytest

from policylab.errors import BadInput
from policylab.evaluation import logged_episodes as episodes
from policylab.evaluation import statistics
from policylab.evaluation.logged_episodes import EpisodeLog
from policylab.evaluation.off_policy import difference_to_logging

DISCOUNT, HORIZON, STATES, ACTIONS = 0.9, 5, 4, 2


class Process:
    """A random finite process with stochastic or deterministic moves, whose last state ends the episode."""

    def __init__(self, seed, *, deterministic=False, gains=False):
        generator = np.random.default_rng(seed)
        self.moves = generator.dirichlet(np.ones(STATES) * 0.7, (STATES, ACTIONS))
        if deterministic:
            self.moves = np.eye(STATES)[generator.integers(0, STATES, (STATES, ACTIONS))]
        self.means = generator.random((STATES, ACTIONS)) if gains else generator.normal(size=(STATES, ACTIONS))
        self.noise = 0.0 if deterministic else 0.5
        self.gains = gains
        self.logging, self.target = (generator.dirichlet(np.full(ACTIONS, 3.0), STATES) for _ in range(2))

    def values(self, policy, steps=HORIZON):
        """Exact v[k, s] and q[k, s, a] with k steps to go; arriving in the last state ends the episode."""
        v, q = np.zeros((steps + 1, STATES)), np.zeros((steps + 1, STATES, ACTIONS))
        alive = np.arange(STATES) < STATES - 1
        for k in range(1, steps + 1):
            q[k] = self.means + DISCOUNT * self.moves @ (alive * v[k - 1])
            v[k] = (policy * q[k]).sum(axis=1)
        return v, q

    def log(self, count, seed, *, policy=None, model=None, group=None):
        """Episodes that start in state 0 and last at most `HORIZON` steps; `model` is (v, q) with k steps to go."""
        generator = np.random.default_rng(seed)
        policy = self.logging if policy is None else policy
        columns = {name: [] for name in ("reward", "propensity", "target", "predicted", "expected")}
        lengths = []
        for _ in range(count):
            state = 0
            for time in range(HORIZON):
                action = generator.choice(ACTIONS, p=policy[state])
                mean = self.means[state, action]
                reward = generator.binomial(1, mean) if self.gains else mean + self.noise * generator.normal()
                columns["reward"].append(reward)
                columns["propensity"].append(policy[state, action])
                columns["target"].append(self.target[state, action])
                if model is not None:
                    columns["predicted"].append(model[1][HORIZON - time, state, action])
                    columns["expected"].append(model[0][HORIZON - time, state])
                state = generator.choice(STATES, p=self.moves[state, action])
                if state == STATES - 1:
                    break
            lengths.append(time + 1)
        arrays = {name: np.asarray(column, float) if column else None for name, column in columns.items()}
        return EpisodeLog(**arrays, lengths=np.asarray(lengths), discount=DISCOUNT, group=group)


@cache
def simulated(count=60, repeats=250):
    """Estimates from many logs of one process, with a bad model, and the truth."""
    process = Process(1)
    v, q = process.values(process.target)
    wrong = q * 0.5 + np.random.default_rng(9).normal(size=q.shape)
    model = ((process.target * wrong).sum(axis=2), wrong)
    logs = [process.log(count, seed, model=model) for seed in range(repeats)]
    return process, float(v[HORIZON, 0]), logs


def test_point_estimates_by_hand():
    log = EpisodeLog(
        reward=np.asarray([1.0, 2.0, 3.0]), propensity=np.full(3, 0.5), target=np.asarray([1.0, 0.25, 0.75]),
        lengths=np.asarray([2, 1]), discount=0.5, predicted=np.asarray([1.5, 2.5, 2.0]), expected=np.asarray([1.0, 3.0, 2.0]),
    )  # fmt: skip
    found = episodes.estimates(log)  # rho: episode 0 has 2, then 1; episode 1 has 1.5 and keeps it
    assert found["IS"].value == pytest.approx((1 * 2 + 1.5 * 3) / 2)
    assert found["WIS"].value == pytest.approx((1 * 2 + 1.5 * 3) / 2.5)
    assert found["PDIS"].value == pytest.approx((2 * 1 + 0.5 * 1 * 2 + 1.5 * 3) / 2)
    assert found["WPDIS"].value == pytest.approx((2 * 1 + 1.5 * 3) / 3.5 + 0.5 * (1 * 2) / 2.5)
    assert found["DM"].value == pytest.approx(1.5)
    late = 3 + 0.5 * (2 - 2.5)
    first, second = 1 + 2 * (1 + 0.5 * late - 1.5), 2 + 1.5 * (3 - 2)
    np.testing.assert_allclose(found["DR"].contributions, [first, second])
    weighted = 1.5 + (2 * -0.5 + 1.5 * 1) / 3.5 + 0.5 * ((2 * 3) / 3.5 + (1 * -0.5) / 2.5)
    assert found["WDR"].value == pytest.approx(weighted)
    assert found["IS"].max_weight == 1.5
    assert found["IS"].matched_positives == 2
    assert found["IS"].effective_sample_size == pytest.approx(2.5**2 / 3.25)
    assert (found["IS"].units, found["IS"].unit) == (2, "episode")


def test_unbiased_estimators_are():
    _, truth, logs = simulated()
    for method in (episodes.importance_sampling, episodes.per_decision, episodes.doubly_robust):
        values = np.asarray([method(log).value for log in logs])
        assert abs(values.mean() - truth) < 3.5 * values.std() / np.sqrt(len(values)), method.__name__


def test_weighted_estimators_are_close_and_per_decision_is_sharper():
    _, truth, logs = simulated()
    spread = {}
    for method in (
        episodes.importance_sampling, episodes.weighted_importance_sampling, episodes.per_decision,
        episodes.weighted_per_decision, episodes.weighted_doubly_robust,
    ):  # fmt: skip
        values = np.asarray([method(log).value for log in logs])
        spread[method.__name__] = values.std()
        assert abs(values.mean() - truth) < 0.3 * values.std() + 3.5 * values.std() / np.sqrt(len(values)), method.__name__
    assert spread["per_decision"] < spread["importance_sampling"]


def test_intervals_cover_the_truth():
    _, truth, logs = simulated()
    for method in (
        episodes.importance_sampling, episodes.weighted_importance_sampling, episodes.per_decision,
        episodes.weighted_per_decision, episodes.doubly_robust, episodes.weighted_doubly_robust,
    ):  # fmt: skip
        found = [method(log) for log in logs]
        share = np.mean([one.interval[0] <= truth <= one.interval[1] for one in found])
        assert 0.89 <= share <= 0.99, (method.__name__, share)


def test_enumeration_agrees_with_per_decision_on_a_weighted_log():
    """Every possible episode once, with its probability under the logging policy as its share of the log: exact expectation."""
    process = Process(3, deterministic=True)
    v, _ = process.values(process.target)
    everything = process.log(4000, 0)
    rounded = [tuple(row) for row in np.round(everything.grid(everything.propensity), 9)]
    unique = {key: i for i, key in enumerate(rounded)}
    index = list(unique.values())
    contributions = (everything.ratios * everything.grid(everything.reward)) @ everything.discounts
    probability = np.prod(everything.grid(everything.propensity, empty=1.0), axis=1)
    assert probability[index].sum() == pytest.approx(1), "every episode occurs"
    assert probability[index] @ contributions[index] == pytest.approx(v[HORIZON, 0])
    whole = everything.weights * everything.returns
    assert probability[index] @ whole[index] == pytest.approx(v[HORIZON, 0])


def test_doubly_robust_is_exact_with_the_true_model_of_a_deterministic_process():
    process = Process(4, deterministic=True)
    v, q = process.values(process.target)
    log = process.log(20, 0, model=(v, q))
    np.testing.assert_allclose(episodes.doubly_robust(log).contributions, v[HORIZON, 0], rtol=1e-12)
    assert episodes.weighted_doubly_robust(log).value == pytest.approx(v[HORIZON, 0])
    assert episodes.direct(log).value == pytest.approx(v[HORIZON, 0])


def test_doubly_robust_with_the_true_model_is_sharper_than_per_decision():
    process = Process(1)
    log = process.log(300, 0, model=process.values(process.target))
    exact, plain = episodes.doubly_robust(log), episodes.per_decision(log)
    assert np.ptp(exact.interval) < 0.7 * np.ptp(plain.interval)


def test_on_policy_logs_estimate_their_own_mean():
    process = Process(2)
    log = process.log(200, 0, policy=process.target)
    for name in ("IS", "WIS", "PDIS", "WPDIS"):
        found = episodes.estimates(log)[name]
        assert found.value == pytest.approx(log.returns.mean())
        assert found.effective_sample_size == pytest.approx(200)
        assert np.ptp(difference_to_logging(found, log).interval) < 1e-9
    truth = process.values(process.target)[0][HORIZON, 0]
    own = log.logging_value()
    assert own.interval[0] <= truth <= own.interval[1]


def test_difference_to_logging_covers_the_true_difference():
    process, truth, logs = simulated()
    gain = truth - process.values(process.logging)[0][HORIZON, 0]
    found = [difference_to_logging(episodes.weighted_per_decision(log), log) for log in logs]
    assert 0.9 <= np.mean([one.interval[0] <= gain <= one.interval[1] for one in found]) <= 0.99


def test_grouped_episodes_are_one_unit():
    process = Process(1)
    alone = process.log(80, 0)
    twice = EpisodeLog(
        np.tile(alone.reward, 2), np.tile(alone.propensity, 2), np.tile(alone.target, 2), np.tile(alone.lengths, 2), DISCOUNT,
        group=np.tile(np.arange(80), 2), unit="user",
    )  # fmt: skip
    once, grouped = episodes.weighted_importance_sampling(alone), episodes.weighted_importance_sampling(twice)
    assert (grouped.units, grouped.unit) == (80, "user")
    assert grouped.value == pytest.approx(once.value)
    np.testing.assert_allclose(grouped.interval, once.interval), "copies add no evidence"


def test_successes_are_counted_and_a_log_without_any_stays_open():
    process = Process(5, gains=True)
    log = process.log(100, 0)
    found = episodes.importance_sampling(log)
    assert found.matched_positives == np.sum((log.weights >= 1) & (log.returns > 0))
    nothing = EpisodeLog(np.zeros(len(log.reward)), log.propensity, log.target, log.lengths)
    empty = episodes.importance_sampling(nothing)
    assert empty.matched_positives == 0
    assert "0 logged positives" in empty.warning


def test_long_horizons_are_said_to_say_nothing():
    steps = 3000
    reward = np.ones(2 * steps)
    far = EpisodeLog(reward, np.full(2 * steps, 0.25), np.ones(2 * steps), np.asarray([steps, steps]))
    table = episodes.estimates(far)
    assert np.isnan(table["IS"].value)
    assert "overflows at step 511" in table["IS"].warning
    other = np.where(np.arange(2 * steps) % steps == 4, 0.0, 1.0)
    never = EpisodeLog(reward, np.full(2 * steps, 0.99), other, np.asarray([steps, steps]))
    assert episodes.estimates(never)["PDIS"].value == pytest.approx(sum(0.99 ** -(t + 1) for t in range(4)))
    with pytest.raises(BadInput, match="as far as step 4"):
        episodes.weighted_per_decision(never)


STEP = np.full(4, 0.5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: EpisodeLog(STEP, STEP, STEP, np.asarray([2, 1])), "3 steps for 4 rows"),
        (lambda: EpisodeLog(STEP, STEP, STEP, np.asarray([4, 0])), "at least one step"),
        (lambda: EpisodeLog(STEP, STEP * 0, STEP, np.asarray([2, 2])), "propensity is 0.0 in row 0"),
        (lambda: EpisodeLog(STEP, STEP, STEP, np.asarray([2, 2]), discount=1.5), "discount is 1.5"),
        (lambda: EpisodeLog(STEP, STEP, STEP, np.asarray([2, 2]), group=np.asarray([1, 1])), "different groups"),
        (lambda: episodes.doubly_robust(EpisodeLog(STEP, STEP, STEP, np.asarray([2, 2]))), "needs a value model"),
    ],
)
def test_what_cannot_be_used_is_said(call, words):
    with pytest.raises(BadInput, match=words):
        call()


@pytest.fixture(autouse=True)
def _fewer_replicates(monkeypatch):
    """Coverage hardly depends on the number of replicates, the time of a simulation does."""
    monkeypatch.setattr(statistics, "REPLICATES", 600)
