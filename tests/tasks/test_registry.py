"""Every task by name: what it is, and datasets that are made once and in the order that their names promise."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import policylab as lab
from policylab.errors import BadInput
from policylab.evaluation.dynamics import scale_of
from policylab.tasks import TASKS, load_task, reference, task_names

BY_LEARNING = ("hopper", "halfcheetah", "walker2d")
MAZES = ("pointmaze/umaze", "pointmaze/medium", "pointmaze/large")
COMPILED = ("pendulum", "gridworld/cliff")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Datasets of this file are kept in a folder of their own, across its tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "tasks"))


@pytest.mark.parametrize("name", task_names())
def test_every_task_loads_and_says_what_it_is(name):
    task = lab.load_task(name)
    assert (task.name, task.title) == (name, TASKS[name][1])
    assert task.spec.horizon > 0
    assert task.reference["random"] < task.reference["expert"]
    np.testing.assert_allclose(task.score(np.array([task.reference["random"], task.reference["expert"]])), [0.0, 100.0])
    assert float(task.score(task.reference["expert"])) == pytest.approx(100.0)
    if name.startswith("text/"):
        assert not task.datasets
    elif name in BY_LEARNING:
        assert list(task.datasets) == ["random", "medium", "medium-replay", "expert"]
    else:
        assert list(task.datasets) == ["random", "mixed", "replay", "noisy", "expert"]


@pytest.mark.parametrize("name", COMPILED)
def test_datasets_are_in_order_deterministic_and_cached(name, monkeypatch):
    task = load_task(name)
    recordings = {recipe: task.dataset(recipe, steps=2_000) for recipe in ("random", "mixed", "expert")}
    score = {recipe: float(task.score(recording.returns).mean()) for recipe, recording in recordings.items()}
    assert score["random"] < score["mixed"] < score["expert"] + 1e-9
    assert score["random"] < 20
    assert score["expert"] > 80
    for recording in recordings.values():
        assert 2_000 <= recording.steps < 2_000 + 2 * task.spec.horizon
        assert recording.spec.action == task.spec.action
        assert recording.origin["task"] == name
    monkeypatch.setattr("policylab.tasks.scripted.collect", None)  # nothing is played again
    again = load_task(name).dataset("mixed", steps=2_000)
    np.testing.assert_array_equal(again.action, recordings["mixed"].action)


def test_the_same_seed_makes_the_same_dataset_again_and_another_seed_another(monkeypatch, tmp_path):
    task = load_task("cartpole")
    first, other = task.dataset("mixed", steps=500), task.dataset("mixed", steps=500, seed=1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    second = task.dataset("mixed", steps=500)
    np.testing.assert_array_equal(first.action, second.action)
    np.testing.assert_array_equal(first.observation, second.observation)
    assert other.steps != first.steps or not np.array_equal(first.observation, other.observation)


@pytest.mark.parametrize("name", MAZES)
def test_maze_datasets_are_deterministic_and_in_order(name):
    task = load_task(name)
    assert task.score(task.dataset("random", steps=400).returns).mean() < 20
    assert task.score(task.dataset("expert", steps=400).returns).mean() > 80
    mixed = task.dataset("mixed", steps=400)
    assert 400 <= mixed.steps <= 400 + task.spec.horizon
    starts, ends = (np.asarray(mixed.observation["achieved_goal"])[rows] for rows in maze_ends(mixed))
    free = {task.maze.cell(*place) for place in starts.tolist()}
    assert len(free) > 1  # not only from the task's own starts
    goal = task.maze.goal
    whole = [
        task.maze.cell(*a) in task.maze.cells("r") and task.maze.cell(*b) == goal
        for a, b in zip(starts.tolist(), ends.tolist())
    ]
    assert not any(whole)


def maze_ends(recording):
    first = recording.observation_rows[recording.starts]
    return first, first + recording.lengths


def test_reference_returns_are_measured_on_a_seed_of_their_own():
    found = reference.measure("pendulum", size=1)
    task = load_task("pendulum")
    assert set(found) == {"random", "expert"}
    for recipe, (mean, error, episodes) in found.items():
        assert episodes == 100
        assert abs(mean - task.reference[recipe]) < 4 * error + 1.0
    with pytest.raises(BadInput, match="hopper has no pilot"):
        reference.measure("hopper")


def test_locomotion_carries_d4rl_references_and_never_calls_a_score_d4rls():
    published = {"hopper": (-20.272305, 3234.3), "halfcheetah": (-280.178953, 12135.0), "walker2d": (1.629008, 4592.3)}
    for name, (random, expert) in published.items():
        task = load_task(name)
        assert dict(task.reference) == {"random": random, "expert": expert}
        np.testing.assert_allclose(task.score(np.array([expert / 2 + random / 2])), [50.0])
        assert scale_of(task).startswith("score: D4RL's scale, other dynamics, ")
        assert task.spec.environment.endswith("-v5")
        assert task.spec.horizon == 1000


def test_a_wrong_name_is_one_sentence():
    with pytest.raises(BadInput, match="did you mean cartpole"):
        load_task("cartpol")
    with pytest.raises(BadInput, match="no dataset 'best'"):
        load_task("cartpole").dataset("best")
    with pytest.raises(BadInput, match="-3 steps cannot be"):
        load_task("cartpole").dataset("expert", steps=-3)
    with pytest.raises(BadInput, match="has no dataset 'best'"):
        load_task("pointmaze/umaze").dataset("best")


def test_a_recording_of_a_task_trains_and_is_evaluated_there():
    task = load_task("cartpole")
    run = lab.train(lab.BC(batch_size=16), task.dataset("mixed", steps=500), steps=5, evaluate=task, episodes=2)
    assert set(run.evaluations[-1]["evaluation"]) == {"return", "score"}
    action, _ = run.policy().mode().act(np.zeros(4, np.float32), None, key=jax.random.key(0))
    assert int(action) in (0, 1)
