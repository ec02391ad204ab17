"""collect: any policy in any environment, into every format and back; what is kept is counted."""

from __future__ import annotations

import json
import shlex

import jax
import numpy as np
import pytest

import policylab as lab
from policylab import cli
from policylab.commands.collect import FORMATS
from policylab.data.loading import load, save
from policylab.errors import BadInput

TASKS = ("gridworld/maze", "cartpole", "pendulum")


@pytest.fixture(scope="module", params=TASKS)
def played(request):
    return lab.load_task(request.param), lab.collect("random", request.param, 3, seed=4)


def test_whole_episodes_of_a_random_policy(played):
    task, recording = played
    assert recording.episodes == 3
    ends = np.cumsum(recording.lengths) - 1
    assert (recording.terminal | recording.truncated)[ends].all()
    assert not (recording.terminal | recording.truncated)[np.setdiff1d(np.arange(recording.steps), ends)].any()
    assert recording.origin["seed"] == 4
    assert recording.origin["policy"] == "UniformRandom"
    again = lab.collect(lab.UniformRandom(task.spec.action), task, 3, seed=4)
    np.testing.assert_array_equal(again.action, recording.action)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_keeps_what_was_played(played, format, tmp_path):
    task, recording = played
    suffix = {"d4rl": ".hdf5", "npz": ".npz"}.get(format, "")
    found = load(save(recording, tmp_path / f"data{suffix}", format), environment=task.spec)
    assert found.episodes == 3
    assert found.spec.action == task.spec.action
    assert found.spec.observation == task.spec.observation
    for column in ("observation", "action", "reward", "terminal", "lengths"):
        np.testing.assert_allclose(getattr(found, column), getattr(recording, column), rtol=1e-6)


def test_what_is_kept_is_counted():
    longer = lambda recording: recording.lengths > 20
    recording = lab.collect("random", "cartpole", 20, keep=longer)
    assert (recording.lengths > 20).all()
    assert recording.origin["episodes_played"] == 20
    assert recording.origin["episodes_kept"] == recording.episodes < 20
    with pytest.raises(BadInput, match="none of 20 episodes was kept"):
        lab.collect("random", "cartpole", 20, keep=lambda recording: recording.lengths > 5_000)
    with pytest.raises(BadInput, match="True or False for each of 20"):
        lab.collect("random", "cartpole", 20, keep=lambda recording: True)


def test_runs_play_and_the_horizon_cuts():
    task = lab.load_task("cartpole")
    run = lab.train(lab.BC(batch_size=16, policy=lab.Categorical(width=8, depth=1)), lab.collect("random", task, 3), steps=3)
    recording = lab.collect(run, task, steps=12, horizon=4, mode=True)
    assert recording.lengths.max() <= 4
    assert recording.steps >= 12
    with pytest.raises(BadInput, match="either a number of episodes or a number of steps"):
        lab.collect(run, task)
    with pytest.raises(BadInput, match="either a number of episodes or a number of steps"):
        lab.collect(run, task, -3, steps=3)
    with pytest.raises(BadInput, match="Box"):
        lab.collect(run, "pendulum", 1)
    with pytest.raises(BadInput, match="no policy at nowhere"):
        lab.collect("nowhere", task, 1)


def test_the_command_collects_for_tasks_and_gymnasium_ids(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, path in (("--task cartpole", "cart"), ("--environment CartPole-v1", "gym.npz")):
        assert cli.main(shlex.split(f"collect random {words} --episodes 2 --out {path} --json")) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["episodes"] == 2
        assert lab.load_data(path, environment="CartPole-v1").steps == document["steps"]
    assert cli.main(shlex.split("collect nobody --task cartpole --episodes 2 --out other")) == 2
    assert "the word random" in capsys.readouterr().err


def test_random_is_evaluated_like_any_policy(capsys):
    assert cli.main(shlex.split("evaluate random --task riverswim --episodes 20 --json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["action"] == "sampled"
    assert abs(document["score"]["mean"]) < 30
    assert document["success"] is None


def test_a_saved_policy_collects_from_python_and_the_command(tmp_path, capsys):
    task = lab.load_task("gridworld/maze")
    run = lab.train(lab.BC(batch_size=16, policy=lab.Categorical(width=8, depth=1)), lab.collect("random", task, 2), steps=3)
    path = run.save_policy(tmp_path / "policy.safetensors")
    direct = lab.collect(str(path), task, 2, seed=1)
    assert cli.main(shlex.split(f"collect {path} --task gridworld/maze --episodes 2 --seed 1 --out {tmp_path}/own")) == 0
    capsys.readouterr()
    np.testing.assert_array_equal(load(tmp_path / "own").action, direct.action)
    assert jax.tree.leaves(direct.observation)[0].dtype.kind == "i"


def test_an_environment_without_time_limit_needs_a_horizon(tmp_path, capsys):
    with pytest.raises(BadInput, match="has no time limit"):
        lab.collect("random", "CliffWalking-v1", 2)
    recording = lab.collect("random", "CliffWalking-v1", 2, horizon=7)
    assert recording.lengths.tolist() == [7, 7]
    assert recording.truncated[[6, 13]].all()
    assert cli.main(shlex.split("evaluate random --environment CliffWalking-v1 --horizon 7 --episodes 2 --json")) == 0
    assert json.loads(capsys.readouterr().out)["length"]["mean"] == 7
    assert cli.main(shlex.split("evaluate random --task cartpole --horizon 7 --episodes 2")) == 2
    assert "its own time limit" in capsys.readouterr().err
    words = f"collect random --environment CliffWalking-v1 --horizon 7 --episodes 2 --out {tmp_path}/cliff"
    assert cli.main(shlex.split(words)) == 0
    assert load(tmp_path / "cliff").steps == 14
