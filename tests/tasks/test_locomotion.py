"""The user's own D4RL-style file for a locomotion task: solved, evaluated, and never called a D4RL score."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest

from policylab import cli
from policylab.tasks import load_task


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Six short episodes of Hopper-v5 under random torques, in D4RL's layout."""
    simulator = load_task("hopper").environment().host.build()
    rng, rows = np.random.default_rng(0), []
    for episode in range(6):
        observation, _ = simulator.reset(seed=episode)
        for _ in range(60):
            action = rng.uniform(-1, 1, 3).astype(np.float32)
            following, reward, terminal, _, _ = simulator.step(action)
            rows.append((observation, action, reward, terminal, following))
            observation = following
            if terminal:
                break
    simulator.close()
    names = ("observations", "actions", "rewards", "terminals", "next_observations")
    path = tmp_path_factory.mktemp("hopper") / "my.hdf5"
    with h5py.File(path, "w") as target:
        for name, column in zip(names, zip(*rows, strict=True), strict=True):
            target[name] = np.array(column, np.float32 if name != "terminals" else bool)
        target["timeouts"] = np.zeros(len(rows), bool)
    return path


def test_solve_on_ones_own_hopper_data_names_the_scale(file, small, tmp_path, capsys):
    command = f"solve --task hopper --data {file} --methods bc --budget 1s --out {tmp_path}/out --json"
    assert cli.main(shlex.split(command)) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["unit"] == "score (D4RL's scale, other dynamics)"
    assert document["winner"] == "bc"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "D4RL&#x27;s scale, other dynamics" in page
    assert "no D4RL scores" in page
    assert "Hopper-v5 on MuJoCo" in page
    assert "= expert" not in page
    assert cli.main(shlex.split(f"evaluate {tmp_path}/out/policy.safetensors --task hopper --episodes 2")) == 0
    assert "D4RL's scale, other dynamics, Hopper-v5 on MuJoCo" in capsys.readouterr().out


def test_data_of_another_robot_are_refused_in_one_sentence(file, tmp_path, capsys):
    assert cli.main(shlex.split(f"solve --task walker2d --data {file} --budget 1s --out {tmp_path}/out")) == 2
    assert "Box(11)" in capsys.readouterr().err
    assert cli.main(shlex.split(f"solve --task hopper --dataset mixed --out {tmp_path}/out")) == 2
    assert "has no dataset 'mixed'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
