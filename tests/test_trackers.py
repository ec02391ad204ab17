"""Metrics arrive in TensorBoard's own files, read by TensorBoard itself."""

from __future__ import annotations

import pytest

from policylab.trackers import TensorBoard, scalars

ROW = {"step": 7, "seconds": 1.0, "metrics": {"loss": [1.0, 3.0]}, "evaluation": {"return": [5.0, 6.0]}}


def test_scalars_hold_the_mean_and_every_seed():
    assert dict(scalars(ROW))["train/loss"] == 2.0
    assert dict(scalars(ROW))["train/loss/seed 1"] == 3.0
    assert dict(scalars(ROW))["evaluation/return"] == 5.5
    assert dict(scalars({"step": 1, "metrics": {"loss": [2.0]}})) == {"train/loss": 2.0}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_what_was_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    TensorBoard(tmp_path)(ROW)
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    (point,) = found.Scalars("train/loss")
    assert (point.step, point.value) == (7, 2.0)
