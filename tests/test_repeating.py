"""rounds: a kill between or within rounds loses at most the round under way, and the results are the same."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import policylab as lab
from policylab.errors import BadInput
from policylab.repeating import rounds

PROGRAM = """
import os, signal, sys
import policylab as lab


def step(number, previous, kill=-1):
    policy = "random" if previous is None else previous["run"]
    data = lab.collect(policy, "cartpole", 4, seed=number, keep=lambda recording: recording.returns >= recording.returns.mean())
    form = lab.Categorical(width=8, depth=1)
    run = lab.train(lab.BC(batch_size=8, policy=form), data, steps=4, seeds=[number])
    if number == kill:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"data": data, "run": run, "mean": float(data.returns.mean()), "notes": {"round": number}}


if __name__ == "__main__":
    lab.rounds(lambda number, previous: step(number, previous, kill=1), 3, sys.argv[1])
"""


def test_a_kill_loses_only_the_round_under_way(tmp_path: Path):
    (tmp_path / "program.py").write_text(PROGRAM)
    step = runpy.run_path(str(tmp_path / "program.py"))["step"]
    arguments = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "cut")]
    assert subprocess.run(arguments, capture_output=True, timeout=120, check=False).returncode == -9
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["round-000"]
    done = []

    def watched(number, previous):
        done.append(number)
        return step(number, previous)

    found, other = rounds(watched, 3, tmp_path / "cut"), rounds(step, 3, tmp_path / "whole")
    assert done == [1, 2]
    for mine, yours in zip(found, other, strict=True):
        np.testing.assert_array_equal(mine["data"].observation, yours["data"].observation)
        assert (mine["notes"], mine["mean"]) == (yours["notes"], yours["mean"])
        assert mine["run"].seeds == yours["run"].seeds
        for a, b in zip(jax.tree.leaves(mine["run"].state), jax.tree.leaves(yours["run"].state), strict=True):
            np.testing.assert_array_equal(a, b)


def test_scraps_of_a_killed_round_go_and_more_rounds_may_follow(tmp_path: Path):
    (tmp_path / ".round-000.abc").mkdir()
    seen = []

    def step(number, previous):
        seen.append((number, previous))
        return {"value": number}

    assert rounds(step, 1, tmp_path) == [{"value": 0}]
    assert rounds(step, 2, tmp_path) == [{"value": 0}, {"value": 1}]
    assert seen == [(0, None), (1, {"value": 0})]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-000", "round-001"]


@pytest.mark.parametrize(
    ("result", "words"),
    [({"x": object()}, "cannot be saved"), ({"a b": 1}, "'a b'"), ({"x": float("nan")}, "cannot be saved")],
)
def test_what_cannot_be_saved_is_one_sentence_and_leaves_nothing(tmp_path: Path, result, words):
    with pytest.raises(BadInput, match=words):
        rounds(lambda number, previous: result, 1, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_round_is_left_alone(tmp_path: Path):
    (tmp_path / "round-000").mkdir()
    with pytest.raises(BadInput, match="is no saved round"):
        lab.rounds(lambda number, previous: {}, 1, tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"kinds": 3, "values": {}}', '{"kinds": {"a": "magic"}, "values": {}}'])
def test_a_damaged_round_is_one_sentence(text, tmp_path):
    rounds(lambda number, previous: {"a": number}, 1, tmp_path)
    (tmp_path / "round-000" / "round.json").write_text(text)
    with pytest.raises(BadInput, match=r"round\.json is damaged"):
        rounds(lambda number, previous: {"a": number}, 2, tmp_path)
    assert not (tmp_path / "round-001").exists()


@pytest.mark.parametrize(
    "change", [{"columns": 3}, {"spec": []}, {"spec": {}}, {"columns": {}}, {"origin": 7}, {"columns": {"x": 1}}]
)
def test_a_damaged_recording_of_a_round_is_one_sentence(change, tmp_path):
    import json

    from tests.small import continuous_recording

    rounds(lambda number, previous: {"data": continuous_recording(episodes=2)}, 1, tmp_path)
    path = tmp_path / "round-000" / "data" / "recording.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BadInput, match=r"recording\.json"):
        rounds(lambda number, previous: {}, 2, tmp_path)
