"""The page at the end of a long command: where it goes, and one sentence where it cannot be written."""

from __future__ import annotations

import argparse
import errno
import sys
from pathlib import Path

import pytest

from policylab.commands.paging import place_of_page, repeated, written
from policylab.errors import BadInput

FULL = OSError(errno.ENOSPC, "No space left on device", "runs/x/.report.html.abc")


@pytest.mark.parametrize(
    "reason", [BadInput("pip install it"), FULL, PermissionError(13, "Permission denied"), ValueError("a\n b")]
)
def test_a_page_that_fails_is_one_sentence(reason):
    def page(place):
        raise reason

    place, line = written(page, Path("runs/x/report.html"), "the run is whole in runs/x")
    assert place is None
    assert line.startswith("no report was written (")
    assert line.endswith("); the run is whole in runs/x")
    assert "\n" not in line
    assert (reason.strerror if isinstance(reason, OSError) else str(reason).split()[0]) in line


def test_a_page_that_was_not_wanted_is_not_missed():
    assert written(lambda place: None, None, "") == (None, "")
    assert written(lambda place: None, Path("a.html"), "") == ("a.html", "report: a.html")


def test_repeating_starts_anew_in_another_folder():
    argv = ["iql", "--out", "runs/a", "--resume", "--steps", "5", "--report=x.html", "--json", "--policy", "Gaussian(width=8)"]
    assert (
        repeated("train", argv, Path("runs/a"))
        == "policylab train iql --steps 5 --policy 'Gaussian(width=8)' --out runs/a-again"
    )
    assert repeated("compare", ["bc", "iql", "--report", "x.html"], None) == "policylab compare bc iql"


def test_places(tmp_path, monkeypatch):
    asked = lambda **given: argparse.Namespace(**{"report": None, "no_report": False, "resume": False} | given)
    assert place_of_page(asked(), Path("runs/a")) == Path("runs/a/report.html")
    assert place_of_page(asked(), None) is None
    assert place_of_page(asked(no_report=True), Path("runs/a")) is None
    there = tmp_path / "page.html"
    assert place_of_page(asked(report=str(there)), Path("runs/a")) == there
    there.write_text("")
    assert place_of_page(asked(report=str(there), resume=True), None) == there
    with pytest.raises(BadInput, match="exists already"):
        place_of_page(asked(report=str(there)), None)
    with pytest.raises(BadInput, match=r"end it in \.html"):
        place_of_page(asked(report="page.pdf"), None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(BadInput, match="pip install"):
        place_of_page(asked(report=str(tmp_path / "other.html")), None)
