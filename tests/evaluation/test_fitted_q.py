"""Fitted Q evaluation against exact values of tables, plain iteration, least squares by hand and simulation."""

import numpy as np
import pytest

from policylab.errors import BadInput
from policylab.evaluation import fitted_q, statistics

DISCOUNT, STATES, ACTIONS = 0.9, 5, 3


class Process:
    """A random finite process; arriving in the last state ends an episode."""

    def __init__(self, seed):
        generator = np.random.default_rng(seed)
        self.moves = generator.dirichlet(np.ones(STATES) * 0.6, (STATES, ACTIONS))
        self.means = generator.normal(size=(STATES, ACTIONS))
        self.logging, self.target = (generator.dirichlet(np.full(ACTIONS, 2.0), STATES) for _ in range(2))

    def values(self, policy):
        """Exact q by linear algebra."""
        alive = np.arange(STATES) < STATES - 1
        under = np.einsum("sax,x,xb->saxb", self.moves, alive, policy).reshape(STATES * ACTIONS, STATES * ACTIONS)
        return np.linalg.solve(np.eye(STATES * ACTIONS) - DISCOUNT * under, self.means.reshape(-1)).reshape(STATES, ACTIONS)

    def log(self, episodes, seed, steps=8, noise=0.5):
        """Columns of logged episodes from state 0, cut after `steps`."""
        generator = np.random.default_rng(seed)
        state = np.zeros(episodes, int)
        alive, rows = np.ones(episodes, bool), []
        for _ in range(steps):
            action = (generator.random((episodes, 1)) > np.cumsum(self.logging[state], axis=1)).sum(axis=1)
            reward = self.means[state, action] + noise * generator.normal(size=episodes)
            following = (generator.random((episodes, 1)) > np.cumsum(self.moves[state, action], axis=1)).sum(axis=1)
            following = np.minimum(following, STATES - 1)
            rows.append((state, action, reward, following, following == STATES - 1, alive))
            alive = alive & (following < STATES - 1)
            state = following
        columns = [np.stack(column, axis=1) for column in zip(*rows, strict=True)]
        inside = columns.pop()
        return (*(column[inside] for column in columns), inside.sum(axis=1))


def whole_table(process):
    """Transitions in exact proportion: every pair with its true distribution (rounded to 1/2000) and its mean reward."""
    state, action, reward, following = [], [], [], []
    moves = np.round(process.moves * 2000).astype(int)
    for s in range(STATES):
        for a in range(ACTIONS):
            for x in range(STATES):
                count = moves[s, a, x]
                state += [s] * count
                action += [a] * count
                reward += [process.means[s, a]] * count
                following += [x] * count
    process.moves = moves / moves.sum(axis=2, keepdims=True)
    state, following = np.asarray(state), np.asarray(following)
    lengths = np.ones(len(state), int)
    return state, np.asarray(action), np.asarray(reward), following, following == STATES - 1, lengths


def test_equal_to_the_exact_value_on_data_of_full_coverage():
    process = Process(0)
    columns = whole_table(process)
    found = fitted_q.tabular(*columns, process.target, discount=DISCOUNT)
    exact = process.values(process.target)
    np.testing.assert_allclose(found.weights, exact, rtol=1e-10)
    starts = (process.target * exact).sum(axis=1)[columns[0]]
    assert found.estimate.value == pytest.approx(starts.mean())


@pytest.mark.parametrize("horizon", [1, 4, 400])
def test_with_a_horizon_it_is_plain_iteration(horizon):
    process = Process(1)
    state, action, reward, following, terminal, lengths = process.log(60, 0)
    found = fitted_q.tabular(
        state, action, reward, following, terminal, lengths, process.target, discount=DISCOUNT, horizon=horizon
    )
    q = np.zeros((STATES, ACTIONS))
    for _ in range(horizon):
        aims = reward + DISCOUNT * ~terminal * (process.target * q).sum(axis=1)[following]
        q = np.asarray([[aims[(state == s) & (action == a)].mean() if np.any((state == s) & (action == a)) else 0.0
                         for a in range(ACTIONS)] for s in range(STATES)])  # fmt: skip
    np.testing.assert_allclose(found.weights, q, atol=1e-10)
    if horizon == 400:
        forever = fitted_q.tabular(state, action, reward, following, terminal, lengths, process.target, discount=DISCOUNT)
        np.testing.assert_allclose(forever.weights, q, atol=1e-10)
        np.testing.assert_allclose(forever.estimate.contributions, found.estimate.contributions, atol=1e-8)


def test_contributions_are_what_leaving_an_episode_out_changes():
    process = Process(1)
    columns = process.log(400, 0)
    lengths = columns[-1]
    ends = np.cumsum(lengths)
    for horizon in (0, 3):
        found = fitted_q.tabular(*columns, process.target, discount=DISCOUNT, horizon=horizon).estimate
        jackknife = []
        for episode in range(12):
            keep = np.ones(ends[-1], bool)
            keep[ends[episode] - lengths[episode] : ends[episode]] = False
            rest = fitted_q.tabular(
                *(column[keep] for column in columns[:-1]), np.delete(lengths, episode), process.target, discount=DISCOUNT,
                horizon=horizon,
            ).estimate  # fmt: skip
            jackknife.append(found.value + 399 * (found.value - rest.value))
        np.testing.assert_allclose(found.contributions[:12], jackknife, atol=0.1 * found.contributions.std())
        assert found.contributions.mean() == pytest.approx(found.value)


def test_intervals_cover_the_truth(monkeypatch):
    monkeypatch.setattr(statistics, "REPLICATES", 600)
    process = Process(2)
    truth = float((process.target * process.values(process.target)).sum(axis=1)[0])
    hits, values, repeats = 0, [], 250
    for seed in range(repeats):
        found = fitted_q.tabular(*process.log(400, seed), process.target, discount=DISCOUNT).estimate
        hits += found.interval[0] <= truth <= found.interval[1]
        values.append(found.value)
    assert 0.95 - 4 * np.sqrt(0.95 * 0.05 / repeats) <= hits / repeats <= 0.99
    small = fitted_q.tabular(*process.log(80, 0), process.target, discount=DISCOUNT).estimate
    assert "effective sample size" in small.warning, "80 episodes say little about pairs that were seen once"
    assert abs(np.mean(values) - truth) < 0.4 * np.std(values)


def test_linear_features_of_a_table_give_the_table():
    process = Process(1)
    state, action, reward, following, terminal, lengths = process.log(300, 0)
    one_hot = np.eye(STATES * ACTIONS)
    choices = np.zeros((STATES, STATES * ACTIONS))
    for s in range(STATES):
        choices[s, s * ACTIONS : (s + 1) * ACTIONS] = process.target[s]
    starts = state[np.cumsum(lengths) - lengths]
    for horizon in (0, 5):
        table = fitted_q.tabular(
            state, action, reward, following, terminal, lengths, process.target, discount=DISCOUNT, horizon=horizon
        )
        found = fitted_q.linear(
            one_hot[state * ACTIONS + action], choices[following], reward, terminal, choices[starts], lengths, discount=DISCOUNT,
            horizon=horizon, ridge=1e-12,
        )  # fmt: skip
        assert found.estimate.value == pytest.approx(table.estimate.value, rel=1e-6)
        np.testing.assert_allclose(found.estimate.contributions, table.estimate.contributions, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.estimate.interval, table.estimate.interval, rtol=1e-5)


def test_a_linear_quadratic_value_is_found_exactly():
    """x' = 0.9 x + u with reward -x^2, logged under random u, evaluated under u = 0: v(x) = -x^2 / (1 - discount 0.81)."""
    generator = np.random.default_rng(0)
    x, u = generator.normal(size=(2, 400))
    following = 0.9 * x + u
    features = np.stack([np.ones(400), x**2, x * u, u**2], axis=1)
    ahead = np.stack([np.ones(400), following**2, 0 * x, 0 * x], axis=1)
    starts = np.stack([np.ones(400), x**2, 0 * x, 0 * x], axis=1)
    found = fitted_q.linear(features, ahead, -(x**2), np.zeros(400, bool), starts, np.ones(400, int), discount=0.8, ridge=0.0)
    scale = -1 / (1 - 0.8 * 0.81)
    np.testing.assert_allclose(found.weights, [0, scale, 0.8 * scale * 1.8, 0.8 * scale], atol=1e-9)
    assert found.estimate.value == pytest.approx(scale * np.mean(x**2))


def test_weights_are_ratios_of_visits_and_missing_pairs_are_reported():
    process = Process(1)
    columns = process.log(2000, 0, noise=0.0)
    own = fitted_q.tabular(*columns, process.logging, discount=1.0, horizon=8).estimate
    assert own.max_weight < 2
    assert own.effective_sample_size > 0.95 * 2000, "the target is the logging policy: it visits what the log visits"
    assert "unverified" in own.warning
    keep = columns[1] != 1
    ends = np.cumsum(columns[-1])
    lengths = np.asarray([part.sum() for part in np.split(keep, ends[:-1])])
    rest = [column[keep] for column in columns[:-1]]
    missing = fitted_q.tabular(*rest, lengths[lengths > 0], process.target, discount=DISCOUNT)
    assert "never logged" in missing.estimate.warning
    np.testing.assert_allclose(missing.weights[:, 1], 0, atol=1e-12)


def test_divergence_of_the_iteration_is_said():
    """Two states of features 1 and 2, the classic example of off-policy divergence (Tsitsiklis & Van Roy 1997)."""
    features, ahead = np.asarray([[1.0], [1.0], [2.0]]), np.asarray([[2.0], [2.0], [2.0]])
    found = fitted_q.linear(
        features, ahead, np.zeros(3), np.zeros(3, bool), np.ones((3, 1)), np.ones(3, int), discount=0.95, ridge=0.0
    )
    assert "diverge" in found.estimate.warning


TWO = np.asarray([0, 0])
HALF = np.full((2, 2), 0.5)
FALSE = np.zeros(2, bool)
ONES = np.ones(2, int)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fitted_q.tabular(TWO + 2, TWO, TWO, TWO, FALSE, ONES, HALF, discount=0.9), "state is 2 in row 0"),
        (lambda: fitted_q.tabular(TWO, TWO, TWO, TWO, FALSE, ONES, HALF * 2, discount=0.9), "probabilities in state 0"),
        (lambda: fitted_q.tabular(TWO, TWO, TWO, TWO, FALSE, ONES, HALF, discount=1.2), "discount 1.2"),
        (lambda: fitted_q.tabular(TWO, TWO[:1], TWO, TWO, FALSE, ONES, HALF, discount=0.9), "1 actions for 2 states"),
        (lambda: fitted_q.tabular(TWO, TWO, TWO, TWO, FALSE[:1], ONES, HALF, discount=0.9), "terminal has 1 rows"),
        (lambda: fitted_q.tabular(TWO, TWO, TWO, TWO, FALSE, ONES * 2, HALF, discount=0.9), "4 steps for 2 rows"),
        (
            lambda: fitted_q.tabular(TWO, TWO, TWO, TWO, FALSE, ONES, np.asarray([[1.0, 0], [1.0, 0]]), discount=1.0),
            "every way must end",
        ),
        (
            lambda: fitted_q.linear(np.full((2, 1), np.nan), np.ones((2, 1)), TWO, FALSE, np.ones((2, 1)), ONES, discount=0.9),
            "features hold a value",
        ),
        (
            lambda: fitted_q.linear(
                np.ones((2, 2)), np.ones((2, 2)), TWO, FALSE, np.ones((2, 2)), ONES, discount=0.9, ridge=0.0
            ),
            "must differ",
        ),
    ],
)
def test_what_cannot_be_used_is_said(call, words):
    with pytest.raises(BadInput, match=words):
        call()
