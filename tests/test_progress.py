"""What is left is told by the pace of this very run."""

from __future__ import annotations

import re

import pytest

from policylab import progress
from policylab.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def left(capsys) -> list[int]:
    return [int(seconds) for seconds in re.findall(r"(\d+) s left", capsys.readouterr().err)]


def test_a_run_that_goes_on_does_not_count_what_was_done_before(clock, capsys):
    bar = Progress("sac", 1000)
    clock[0] += 30.0  # compiled meanwhile
    bar.advance(500)
    assert left(capsys) == [], "nothing is known yet"
    for step in (600, 700, 1000):
        clock[0] += 20.0 * (1 if step < 1000 else 3)
        bar.advance(step)
    assert left(capsys) == [80, 60, 0]


def test_a_single_piece_of_work_ends_without_a_forecast(clock, capsys):
    Progress("the dataset card", 1).advance(1)
    assert "100%" in capsys.readouterr().err
