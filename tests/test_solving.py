"""solve: every kind of data gets the strongest evidence that it allows, a report, and policies that load and act."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import policylab as lab
from policylab.evidence.fitted import discounted_returns, start_values
from policylab.evidence.plan import make_plan, seconds_of, shortlist
from policylab.learners.offline.fqe import FQE
from policylab.registry import LEARNERS
from policylab.solving import solve
from tests.small import continuous_recording, discrete_recording

QUICK = {"budget": "1s", "progress": False}


def bandit(rows: int = 300, *, clear: bool = True):
    """One-step decisions under a uniform logging policy; where `clear`, the right choice earns 1 and can be read off the state."""
    recording = discrete_recording(episodes=rows, length=1)
    reward = recording.reward if clear else (np.arange(rows) % 97 == 0).astype(np.float32)
    return replace(recording, reward=reward, extra={"propensity": np.full(rows, 1 / 3, np.float32)})


def test_rewards_and_propensities_give_off_policy_estimates_and_perhaps_a_winner(tmp_path: Path):
    found = solve(bandit(6000), out=tmp_path / "clear", methods=["reward-regression"], budget="60s", progress=False)
    assert found.evidence.kind == "off-policy"
    assert found.winner == "reward-regression"
    row = found.to_json()["differences"][0]
    assert row["interval"][0] > 0.2  # chance earns 1/3, the right choice 1
    assert int(row["matched positives"]) > 100


def test_few_successes_give_no_winner_but_every_policy(tmp_path: Path):
    found = solve(bandit(600, clear=False), out=tmp_path / "rare", methods=["reward-regression", "ipw"], **QUICK)
    assert found.winner is None
    assert found.policy is None
    assert set(found.policies) == {"reward-regression", "ipw"}
    assert "No winner" in found.report.read_text()
    observation = np.zeros(4, np.float32)
    for path in found.policies.values():
        action, _ = lab.load_policy(path).mode().act(observation, None, key=jax.random.key(0))
        assert 0 <= int(action) < 3


def test_rewards_alone_are_judged_by_fitted_q_and_called_unverified(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("policylab.evidence.plan.SELECTION_SEEDS", 2)
    found = solve(continuous_recording(length=5), out=tmp_path / "out", methods=["bc", "percent-bc"], **QUICK)
    assert found.evidence.kind == "fitted-q"
    assert found.winner is None
    assert [row.note for row in found.evidence.confirmed] == ["what was really earned", "unverified", "unverified"]


def test_demonstrations_alone_give_likelihoods_and_a_plan(tmp_path: Path):
    found = solve(continuous_recording(reward=False), out=tmp_path / "out", **QUICK)
    assert found.evidence.kind == "likelihood"
    assert found.winner is None
    assert "blind trial" in found.report.read_text()
    assert json.loads((tmp_path / "out" / "result.json").read_text())["winner"] is None


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path):
    documents = []
    for name in ("a", "b"):
        document = solve(bandit(300), out=tmp_path / name, methods=["ipw"], **QUICK).to_json()
        documents.append({key: document[key] for key in ("confirmed", "selection", "differences", "verdict")})
    assert documents[0] == documents[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "solve needs data"),
        ({"task": "pointmaze/umaze", "dataset": "no-such"}, "has no dataset 'no-such'"),
        ({"dataset": "mixed"}, "belongs to a task"),
        ({"data": "missing.csv"}, "missing.csv"),
        ({"data": "RECORDING", "methods": ["dream"]}, "there is no learner 'dream'"),
        ({"data": "RECORDING", "budget": "soon"}, "is no time"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(tmp_path: Path, options, words):
    options = {key: continuous_recording() if value == "RECORDING" else value for key, value in options.items()}
    with pytest.raises(lab.BadInput, match=words):
        solve(**options, out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(lab.BadInput, match="is not empty"):
        solve(continuous_recording(), out=tmp_path, **QUICK)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_the_plan_depends_on_facts_alone_and_uses_separate_seeds():
    recording = continuous_recording()
    advised = [
        ("dream", "does not exist here"),
        ("iql", "a"),
        ("cql", "slow"),
        ("bc", "b"),
        ("td3-bc", "c"),
        ("percent-bc", "d"),
        ("awac", "e"),
    ]
    reasons = shortlist(advised, most=4)
    assert [name for name, _ in reasons] == ["bc", "percent-bc", "iql", "td3-bc"]
    assert {name for name, _ in reasons} <= set(LEARNERS)
    plans = [make_plan(recording, reasons, budget=seconds_of(budget), seed=3) for budget in ("10min", "600s", "1h")]
    assert plans[0] == plans[1]
    assert plans[2].steps >= plans[0].steps
    assert not set(plans[0].selection) & set(plans[0].fresh)


def test_fitted_q_evaluation_finds_the_value_of_a_one_step_policy():
    """In one-step episodes Q(s, a) is the reward itself: 1 for the right choice and 0 for others."""
    recording = bandit(3000)
    start = lab.train(lab.RewardRegression(learning_rate=1e-2, depth=1, width=32), lab.Dataset.of(recording), steps=300)
    policy = start.policy().mode()
    run = lab.train(FQE(width=32, depth=1, learning_rate=1e-2), lab.Dataset.of(recording), steps=1000, given={"policy": policy})
    observation = jax.random.normal(jax.random.key(1), (200, 4))
    critic = run.critic()
    value = jax.vmap(lambda o: critic.score(o, policy.act(o, None, key=jax.random.key(0))[0]))(observation).mean()
    chosen = jax.vmap(lambda o: policy.act(o, None, key=jax.random.key(0))[0])(observation)
    true = np.mean(np.asarray(chosen) == np.asarray(observation)[:, :3].argmax(1))
    assert abs(float(value) - true) < 0.1


def test_discounted_returns_by_hand():
    recording = continuous_recording(episodes=2, length=3)
    reward = np.asarray(recording.reward)
    by_hand = [reward[0] + 0.99 * reward[1] + 0.99**2 * reward[2], reward[3] + 0.99 * reward[4] + 0.99**2 * reward[5]]
    np.testing.assert_allclose(discounted_returns(recording), by_hand, rtol=1e-5)


def test_the_judge_of_rewards_alone_looks_to_the_end_of_the_episode_whatever_the_budget():
    """One reward per step: the value at the start is the sum of the discounts, here of 30 steps, and not of the first few."""
    recording = continuous_recording(episodes=20, length=30)
    clock = np.tile(np.arange(31, dtype=np.float32) / 30, 20)
    recording = replace(
        recording,
        observation=np.stack([clock, clock, clock], axis=1),
        reward=np.ones(recording.steps, np.float32),
        terminal=np.arange(recording.steps) % 30 == 29,
        truncated=np.zeros(recording.steps, bool),
    )
    dataset = lab.Dataset.of(recording)
    run = lab.train(lab.BC(policy=lab.Deterministic(width=8, depth=1), batch_size=32), dataset, steps=10)
    plan = make_plan(recording, (("bc", "as a baseline"),), budget=1.0, seed=0)
    values = start_values(run, dataset, recording, plan)
    assert values.shape == (1, 20)
    np.testing.assert_allclose(values, sum(0.99**t for t in range(30)), rtol=0.15)
