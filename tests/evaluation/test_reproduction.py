"""Claims are recorded as they come out: append-only, aborted runs too; reruns never replace; a changed declaration is a new attempt."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from policylab.claim import Claim, Greater
from policylab.evaluation import records
from policylab.evaluation.reproduction import reproduce, reproduce_json, reproduce_text


def claim(gap: float = 3.0, **changes) -> Claim:
    """Synthetic arms that differ by `gap` standard deviations."""
    asked = changes.pop("asked", [])

    def measure(seeds):
        asked.append(list(seeds))
        noise = np.array([np.random.default_rng(seed).standard_normal(2) for seed in seeds])
        return {"ours": gap + noise[:, 0], "theirs": noise[:, 1]}

    return Claim(
        system="synthetic", says="a test", task="normal numbers", arms={"ours": "a", "theirs": "b"},
        parts=(Greater("ours", "theirs", margin=1.0),), measure=measure, budget="none", scale="machinery",
        deviation="all of it", minutes=1, **changes,
    )  # fmt: skip


def test_every_look_measures_only_new_seeds_and_stops_when_decided(tmp_path):
    asked: list[list[int]] = []
    found = reproduce(claim(0.9, asked=asked), folder=tmp_path)
    flat = [seed for seeds in asked for seed in seeds]
    assert flat == list(range(len(flat)))
    assert list(found.seeds) == flat
    assert len(found.arms["ours"]) == len(flat)
    assert reproduce(claim(8.0, asked=(quick := [])), folder=tmp_path).verdict == "supported"
    assert quick == [[0, 1, 2, 3, 4]]


def test_lines_are_appended_and_hold_what_is_needed(tmp_path):
    reproduce(claim(8.0), folder=tmp_path)
    first = (tmp_path / "synthetic.jsonl").read_text()
    reproduce(claim(-8.0), folder=tmp_path)
    text = (tmp_path / "synthetic.jsonl").read_text()
    assert text.startswith(first)
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["event"] for line in lines] == ["started", "look", "finished"] * 2
    assert lines[2]["verdict"] == "supported"
    assert lines[5]["verdict"] == "refuted"
    assert set(lines[2]["values"]) == {"ours", "theirs"}
    assert "jax" in lines[0]["versions"]
    assert "claim.py" in lines[2]["code"]


def test_an_aborted_run_is_recorded_and_a_killed_one_leaves_its_start(tmp_path):
    def broken(seeds):
        raise RuntimeError("the machine caught fire")

    with pytest.raises(RuntimeError):
        reproduce(replace(claim(), measure=broken), folder=tmp_path)
    path = tmp_path / "synthetic.jsonl"
    (run,) = records.runs([path])
    assert run.outcome == "aborted"
    assert "caught fire" in run.ended["reason"]
    path.write_text(path.read_text().splitlines()[0] + '\n{"run": "cut of')
    (run,) = records.runs([path])
    assert run.outcome == "started"
    reproduce(claim(8.0), folder=tmp_path)
    assert [run.outcome for run in records.runs([path])] == ["started", "finished"]


def test_other_seeds_are_reruns_and_do_not_count(tmp_path):
    asked: list[list[int]] = []
    found = reproduce(claim(8.0, asked=asked), seeds=6, first_seed=100, folder=tmp_path)
    assert found.rerun
    assert asked == [[100, 101, 102, 103, 104, 105]]
    (run,) = records.runs([tmp_path / "synthetic.jsonl"])
    assert not run.counts


def test_a_changed_margin_is_attempt_two_a_changed_comment_is_not(tmp_path):
    assert reproduce(claim(8.0), folder=tmp_path).attempt == 1
    assert reproduce(claim(8.0), folder=tmp_path).attempt == 1
    assert reproduce(replace(claim(8.0), parts=(Greater("ours", "theirs", margin=2.0),)), folder=tmp_path).attempt == 2


def test_the_document_is_the_one_that_is_promised(tmp_path):
    found = reproduce(claim(8.0), folder=tmp_path)
    document = json.loads(json.dumps(reproduce_json(found), allow_nan=False))
    assert {"system", "verdict", "scale", "parts", "arms", "seeds", "seconds"} <= set(document)
    assert {"kind", "difference", "interval", "verdict"} <= set(document["parts"][0])
    assert document["arms"]["ours"]["mean"] == pytest.approx(np.mean(document["arms"]["ours"]["values"]))
    assert "supported" in reproduce_text(found)
