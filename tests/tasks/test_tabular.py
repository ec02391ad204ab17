"""Gridworlds and other finite tasks against Gymnasium's own tables and against values worked out independently."""

from __future__ import annotations

import gymnasium
import jax
import numpy as np
import pytest

import policylab as lab
from policylab.environments import exact
from policylab.tasks import load_task
from policylab.tasks.tabular import process

NAMES = ("gridworld/rooms", "gridworld/cliff", "gridworld/lake", "gridworld/maze", "chain", "riverswim", "garnet")


def by_hand(table, policy, horizon):
    """The expected undiscounted return: the distribution over states pushed forward step by step."""
    transition = np.asarray(table.transition, np.float64)
    transition /= transition.sum(2, keepdims=True)
    reward, ended = np.asarray(table.reward, np.float64), np.asarray(table.terminal)
    where, total = np.asarray(table.initial, np.float64), 0.0
    for _ in range(horizon):
        joint = where[:, None, None] * policy[..., None] * transition
        total += (joint * reward).sum()
        where = joint.sum((0, 1)) * ~ended
    return total


@pytest.mark.parametrize("name", NAMES)
def test_reference_returns_equal_the_pushed_forward_distribution(name):
    task, table = load_task(name), process(name)
    uniform = np.full((table.states, table.choices), 1 / table.choices)
    best = exact.optimal_policy(table)
    assert task.reference["random"] == pytest.approx(by_hand(table, uniform, task.spec.horizon), rel=1e-6)
    assert task.reference["expert"] == pytest.approx(by_hand(table, best, task.spec.horizon), rel=1e-6)
    assert task.reference["expert"] <= exact.best_return(table, task.spec.horizon) + 1e-6


def test_best_returns_of_the_deterministic_ones_are_shortest_ways():
    assert load_task("gridworld/cliff").reference["expert"] == pytest.approx(-13.0)
    assert load_task("gridworld/maze").reference["expert"] == pytest.approx(-14.0)
    assert load_task("chain").reference["expert"] == pytest.approx(91.0)  # nine steps to the end, then 1 per step


@pytest.mark.parametrize(
    ("name", "simulator", "actions"),
    [
        ("gridworld/lake", gymnasium.make("FrozenLake8x8-v1", is_slippery=True), ("left", "down", "right", "up")),
        ("gridworld/cliff", gymnasium.make("CliffWalking-v1"), ("up", "right", "down", "left")),
    ],
)
def test_tables_are_gymnasiums(name, simulator, actions):
    table, theirs = process(name), simulator.unwrapped.P
    assert table.states == len(theirs)
    assert table.actions == actions
    np.testing.assert_allclose(table.initial, simulator.unwrapped.initial_state_distrib, atol=1e-6)
    for state in range(table.states):
        pit = table.layout[state // len(table.layout[0])][state % len(table.layout[0])] == "X"
        if bool(table.terminal[state]) or pit:  # there Gymnasium stays for ever, or never is
            continue
        for number in range(4):
            probability, gain = np.zeros(table.states), 0.0
            for share, following, reward, ended in theirs[state][number]:
                probability[following] += share
                gain += share * reward
                assert bool(table.terminal[following]) == ended
            np.testing.assert_allclose(table.transition[state, number], probability, atol=1e-6)
            assert float((table.transition[state, number] * table.reward[state, number]).sum()) == pytest.approx(gain, abs=1e-5)


def test_the_lake_has_gymnasiums_time_limit():
    assert load_task("gridworld/lake").spec.horizon == gymnasium.spec("FrozenLake8x8-v1").max_episode_steps
    assert load_task("cartpole").spec.horizon == gymnasium.spec("CartPole-v1").max_episode_steps
    assert load_task("pendulum").spec.horizon == gymnasium.spec("Pendulum-v1").max_episode_steps


def test_processes_without_a_goal_report_no_success():
    assert "success" not in load_task("chain").dataset("expert", steps=100).extra
    assert load_task("gridworld/cliff").dataset("expert", steps=100).extra["success"].max() == 1.0


@pytest.mark.parametrize("learner", [lab.BC, lab.DQN, lab.DiscreteBCQ, lab.DiscreteCQL, lab.QRDQN])
def test_every_learner_of_choices_learns_from_numbered_states(learner):
    """After enough updates on a two-state process the better choice is taken in both states."""
    rng = np.random.default_rng(0)
    state, action = rng.integers(0, 2, 400), rng.integers(0, 2, 400)
    if learner is lab.BC:
        action = np.where(rng.random(400) < 0.9, 1 - state, state)  # cloning takes the commoner one
    recording = lab.recording_from_steps(
        state, action, (action != state).astype(np.float32), np.ones(400, bool), spec=lab.Spec(lab.Discrete(2), lab.Discrete(2))
    )
    settings = {"batch_size": 32, "learning_rate": 1e-2}
    settings |= {"policy": lab.Categorical(width=8, depth=1)} if learner is lab.BC else {"width": 8, "depth": 1}
    settings |= {"quantiles": 4} if learner is lab.QRDQN else {}
    policy = lab.train(learner(**settings), recording, steps=150).policy().mode()
    assert [int(policy.act(np.int32(s), None, key=jax.random.key(0))[0]) for s in (0, 1)] == [1, 0]
