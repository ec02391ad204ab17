"""A run is resumed on its own data and on no other, also of the same shapes."""

from __future__ import annotations

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

import policylab as lab
from policylab import fingerprints
from policylab.fingerprints import fingerprint
from policylab.policies.gaussian import Gaussian
from tests.small import continuous_recording

SMALL = lab.IQL(width=8, depth=1, batch_size=16, policy=Gaussian(width=8, depth=1))


class Stop(Exception):
    """Breaks a run off."""


def stop_late(row):
    if row["step"] > 6:
        raise Stop


@pytest.mark.parametrize("source", [lab.Dataset, lab.StreamedDataset])
def test_other_data_of_the_same_shapes_are_refused_and_the_same_go_on_to_the_bit(source, tmp_path):
    recording = continuous_recording()
    whole = lab.train(SMALL, source.of(recording), steps=10, seeds=2)
    with pytest.raises(Stop):
        lab.train(
            SMALL, source.of(recording), steps=10, seeds=2, out=tmp_path / "run", checkpoint_every=3, trackers=[stop_late]
        )
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    again = lambda data: lab.train(SMALL, source.of(data), steps=10, seeds=2, out=tmp_path / "run", resume=True)
    order = np.arange(recording.episodes)[::-1]
    others = {
        "another seed": continuous_recording(seed=1),
        "one reward differs": replace(recording, reward=np.r_[recording.reward[:-1], np.float32(3.0)]),
        "the same episodes in another order": recording.select(order),
    }
    for data in others.values():
        with pytest.raises(lab.BadInput, match="other data of the same shapes"):
            again(data)
        assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    resumed = again(continuous_recording())
    same = jax.tree.map(lambda a, b: bool(np.array_equal(np.asarray(a), np.asarray(b))), resumed.state, whole.state)
    assert jax.tree.all(same)
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["fingerprint"]) == 16


def test_a_run_that_was_saved_after_training_says_nothing_of_its_data(tmp_path):
    run = lab.train(SMALL, continuous_recording(), steps=4)
    run.save(tmp_path / "run")
    assert lab.load_run(tmp_path / "run").fingerprint == ""
    lab.train(SMALL, continuous_recording(), steps=4, out=tmp_path / "run", resume=True)


def test_the_fingerprint_tells_names_dtypes_shapes_and_content_apart():
    a = np.arange(6, dtype=np.float32)
    trees = [{"a": a}, {"b": a}, {"a": a.astype(np.int32)}, {"a": a.reshape(2, 3)}, {"a": a + 1}, {"a": a, "b": a}, {}]
    found = [fingerprint(tree) for tree in trees]
    assert len(set(found)) == len(found)
    assert fingerprint({"a": jax.numpy.asarray(a)}) == found[0]  # wherever the array lies
    assert fingerprint({"a": np.asfortranarray(a.reshape(2, 3))}) == found[3]
    assert fingerprint(jax.random.key(0)) != fingerprint(jax.random.key(1))


def test_of_large_columns_only_a_sample_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprints, "WHOLE", 1000)
    monkeypatch.setattr(fingerprints, "ROWS", 10)
    column = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (10_000, 3))
    before = fingerprint(column)
    assert before == fingerprint(np.array(column))
    for row, noticed in ((0, True), (9_999, True), (5, False)):
        column[row] = 1.0
        assert (fingerprint(column) != before) == noticed
        column[row] = 0.0
