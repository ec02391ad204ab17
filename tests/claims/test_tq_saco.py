"""The parts of the dataset-perspective experiment that its numbers rest on."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import sklearn.linear_model
import sklearn.model_selection

from policylab.claims.offline import tq_saco as study
from policylab.environments.finite import gridworld
from policylab.environments.time_limit import TimeLimit
from policylab.experience import Window


@pytest.fixture(scope="module")
def corridor():
    """Six cells in a row from S to G: at most 20 steps per episode, 1 at the goal."""
    return TimeLimit(gridworld(("S....G",)), 20)


@pytest.fixture(scope="module")
def data(corridor):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "STEPS", 1_000)
        patch.setattr(study, "WARM_UP", 50)
        collect = jax.jit(lambda key: study.collected(corridor, replace(study.BEHAVIOUR, learning_rate=0.01, width=8), key))
        return jax.device_get(collect(jax.random.key(3)))


def test_datasets_are_consecutive_steps_of_the_kinds_they_are_named_after(data):
    kinds = dict(zip(study.KINDS, range(5), strict=True))
    assert data.action.shape == (5, 1_000)
    on = ~(data.terminal | data.truncated)[:, :-1]
    assert np.array_equal(data.observation[:, 1:][on], data.next_observation[:, :-1][on])
    assert (data.observation[:, 1:][~on] == 0).all()  # every episode starts at S
    moves = np.array([0, 1, 0, -1])[data.action]
    assert np.array_equal(data.next_observation, np.clip(data.observation + moves, 0, 5))
    assert np.array_equal(data.reward == 1.0, data.terminal)
    share = np.bincount(data.action[kinds["random"]], minlength=4) / 1_000
    np.testing.assert_allclose(share, 0.25, atol=0.06)
    expert, noisy, replay = (data.action[kinds[name]] for name in ("expert", "noisy", "replay"))
    assert (expert == 1).all()
    assert 0.80 < np.mean(noisy == 1) < 0.90  # 80% by itself and a quarter of the random choices
    assert np.mean(replay[:200] == 1) < 0.45 < np.mean(replay[-200:] == 1)
    mixed = kinds["mixed"]
    for name in ("observation", "action", "reward", "next_observation", "terminal"):
        whole = getattr(data, name)
        assert np.array_equal(whole[mixed, :800], whole[kinds["random"], :800])
        assert np.array_equal(whole[mixed, 800:], whole[kinds["expert"], :200])
    assert (data.terminal | data.truncated)[mixed, 799]


def test_quality_and_coverage_are_those_of_counting_by_hand(corridor, data):
    tq, saco = study.qualities(data, corridor.spec, low=0.25, high=1.0)
    pairs = [{(int(s), int(a)) for s, a in zip(data.observation[k], data.action[k], strict=True)} for k in range(5)]
    np.testing.assert_allclose(saco, [len(found) / len(pairs[2]) for found in pairs])
    assert len(pairs[4]) == 5
    assert saco[2] == 1.0
    returns = []
    for k in range(5):
        total, finished = 0.0, []
        for t in range(1_000):
            total += float(data.reward[k, t])
            if data.terminal[k, t] or data.truncated[k, t]:
                finished.append(total)
                total = 0.0
        returns.append(np.mean(finished))
    np.testing.assert_allclose(tq, (np.array(returns) - 0.25) / 0.75, rtol=1e-6)
    assert tq[4] == 1.0


def test_cells_of_continuous_states_are_a_hundred_per_dimension_of_the_replay():
    random = np.random.default_rng(0)
    states = random.uniform(-1.0, 1.0, (5, 400, 4)).astype(np.float32)
    states[0] *= 0.1  # a narrow dataset falls into few cells of the replay's range
    action = random.integers(0, 2, (5, 400)).astype(np.int32)
    ends = np.zeros((5, 400), bool)
    ends[:, -1] = True
    after = np.concatenate([states[:, 1:], states[:, :1]], axis=1)
    one, flag = np.ones((5, 400), np.float32), np.ones((5, 400), bool)
    columns = (states, action, one, after, ends, ~flag, flag, np.ones((5, 400), np.int32))
    window = jax.device_get(Window(*map(jnp.asarray, columns)))
    spec = study.worlds()[0][0].spec
    _, saco = study.qualities(window, spec, 0.0, 1.0)
    low, high = states[2].min(axis=0).astype(np.float64), states[2].max(axis=0).astype(np.float64)
    counts = []
    for k in range(5):
        cell = np.floor((states[k].astype(np.float64) - low) / (high - low) * 100)
        cell = np.where(states[k] > high, 100, np.clip(cell, -1, 99))
        counts.append(len({(*row, a) for row, a in zip(cell.tolist(), action[k].tolist(), strict=True)}))
    np.testing.assert_allclose(saco, np.array(counts) / counts[2])


def test_scores_are_the_highest_moving_average():
    returns = np.array([[0.0, 9.0, 0.0, 6.0, 6.0, 3.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    np.testing.assert_allclose(study.best_average(returns), [5.0, 1.0])


def test_left_out_variance_and_slopes_are_those_of_scikit_learn():
    random = np.random.default_rng(1)
    tq, saco = random.normal(size=(2, 15))
    value = 0.3 * tq + 0.8 * saco + 0.3 * random.normal(size=15)
    design = np.stack([tq, saco], axis=1)
    model, folds = sklearn.linear_model.LinearRegression(), sklearn.model_selection.LeaveOneOut()
    np.testing.assert_allclose(study.slopes(value, tq, saco), model.fit(design, value).coef_, rtol=1e-9)
    for causes in ((tq,), (tq, saco)):
        guess = sklearn.model_selection.cross_val_predict(model, np.stack(causes, axis=1), value, cv=folds)
        blind = (value.sum() - value) / 14
        expected = 100 * (1 - np.sum((value - guess) ** 2) / np.sum((value - blind) ** 2))
        np.testing.assert_allclose(study.explained(value, *causes), expected, rtol=1e-9)
    np.testing.assert_allclose(study.correlation(value, saco), scipy.stats.pearsonr(value, saco).statistic, rtol=1e-9)
    assert study.correlation(np.ones(15), saco) == study.explained(np.ones(15), saco) == 0.0


def test_statistics_tell_who_follows_what():
    random = np.random.default_rng(2)
    tq, saco = random.uniform(size=(2, 4, 3, 5))
    noise = lambda: 0.05 * random.normal(size=tq.shape)
    columns = {"tq": tq, "saco": saco, "bc": tq + noise(), "dqn": saco + noise()}
    columns |= {"cql": tq + saco + noise(), "bcq": tq + 0.5 * saco + noise()}
    found = study.statistics(columns)
    assert all(values.shape == (4,) for values in found.values())
    assert (found["bc/correlation with TQ"] > 0.9).all()
    assert (found["dqn/correlation with SACo"] > 0.9).all()
    assert (np.abs(found["dqn/correlation with TQ"]) < 0.7).all()
    assert (found["TQ and SACo/dqn"] > found["TQ alone/dqn"] + 50).all()
    assert (found["TQ and SACo/bc"] < found["TQ alone/bc"] + 5).all()
    np.testing.assert_allclose(found["bcq/slope in SACo"], 0.5, atol=0.2)
    assert min(found[f"{name}/slope in {cause}"].min() for name in ("cql", "bcq") for cause in ("TQ", "SACo")) > 0.2


def test_cloning_learns_the_expert_and_scores_its_returns(corridor, data, monkeypatch):
    monkeypatch.setattr(study, "STEPS", 1_000)
    monkeypatch.setattr(study, "UPDATES", 200)
    monkeypatch.setattr(study, "CHECKS", 2)
    learner = replace(study.LEARNERS["bc"], learning_rate=0.01)
    expert = jax.tree.map(lambda leaf: jnp.asarray(leaf[4]), data)
    score = jax.jit(lambda rows, key: study.scores(corridor, learner, rows, key, horizon=20))
    returns = np.asarray(score(expert, jax.random.key(0)))
    assert returns.shape == (2,)
    assert returns[-1] == 1.0
