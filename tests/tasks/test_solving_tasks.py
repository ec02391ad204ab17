"""`policylab solve` on tasks with choices: the whole way to a report with a picture and a policy that plays."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

import policylab as lab
from policylab import cli


@pytest.mark.parametrize(("task", "successes"), [("gridworld/maze", True)])
def test_solve_evaluate_and_collect(task, successes, small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recording = lab.load_task(task).dataset("mixed", steps=600)
    assert recording.episodes > 1
    lab.save_data(recording, "mixed")
    assert cli.main(shlex.split(f"solve --task {task} --data mixed --methods bc --budget 1s --out out --json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["winner"] == "bc"
    assert document["unit"] == "score (0 = random, 100 = expert)"
    assert ("successes in" in document["verdict"]) == successes
    page = Path("out/report.html").read_text()
    assert "A rollout of the winner" in page
    assert "data:image/gif" in page
    assert cli.main(shlex.split(f"evaluate out/policy.safetensors --task {task} --episodes 3 --json")) == 0
    assert (json.loads(capsys.readouterr().out)["success"] is not None) == successes
    assert cli.main(shlex.split(f"collect out/policy.safetensors --task {task} --episodes 3 --out again.npz")) == 0
    assert lab.load_data("again.npz", environment=lab.load_task(task).spec).episodes == 3


def test_coverage_of_finite_tasks_counts_the_choices_that_were_tried(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recording = lab.collect("random", "riverswim", 30)
    reasons = {row.learner: row.reason for row in lab.diagnose(recording).advice}
    seen = np.asarray(recording.observation)[recording.observation_rows]
    pairs = len(np.unique(seen * 2 + recording.action))
    share = pairs / (2 * len(np.unique(seen)))
    assert f"{share:.0%} of the choices were tried in the {len(np.unique(seen))} states" in reasons["dqn"]
