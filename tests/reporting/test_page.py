"""The report: self-contained, escaped, the numbers that were given, the same bytes for the same numbers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from policylab.reporting.page import Report, Row, number, render, write_report

FULL = Report(
    title="policylab: a <b>maze</b>",
    verdict="The best method is iql.",
    evidence="Tried in the environment.",
    unit="score (0 random, 100 expert)",
    confirmed=(
        Row("iql", 71.25, (60.5, 82.0), "5 seeds", winner=True, extra={"successes": "30 of 50 (46% to 72%)"}),
        Row("bc", 12.0, None, "5 seeds", note="copies & follows"),
    ),
    differences=(Row("iql minus bc", 59.25, (-1.0, 70.0), "5 seeds"),),
    shortlist=(("iql", "joins pieces"),),
    curves={
        "iql": {"steps": [1, 2, 3], "values": np.arange(6.0).reshape(3, 2)},
        "bc": {"steps": [1, 2, 3], "values": np.ones((3, 2))},
    },
    profile={"iql": np.linspace(0, 1, 20)},
    card="episodes 10",
    frames=[np.full((20, 30, 3), shade, np.uint8) for shade in (10, 200)],
    load='lab.load_policy("policy.safetensors")',
    repeat="policylab solve --seed 0",
    facts={"machine": "2 cores"},
)


def test_the_page_needs_nothing_but_itself(tmp_path: Path):
    page = write_report(tmp_path / "report.html", FULL).read_text()
    assert not re.search(r"""(src|href)=["']?(https?:|//|\w+\.(js|css|png))|url\(|<script""", page)
    assert page.count("data:image/png;base64,") == 2
    assert page.count("data:image/gif;base64,") == 1


def test_numbers_and_names_are_those_given_and_escaped():
    page = render(FULL)
    for shown in (
        "71.2",
        "60.5 to 82.0",
        "30 of 50 (46% to 72%)",
        "copies &amp; follows",
        "a &lt;b&gt;maze&lt;/b&gt;",
        "policylab solve --seed 0",
    ):
        assert shown in page, shown
    assert "<b>maze" not in page


def test_what_is_empty_vanishes():
    bare = render(Report("t", "No winner.", "Nothing was tried.", "nats"))
    assert "Learning curves" not in bare
    assert "<table" not in bare
    assert "<img" not in bare


def test_the_same_numbers_give_the_same_bytes():
    assert render(FULL) == render(FULL)


def test_a_profile_of_successes_and_failures_is_not_drawn():
    assert "Performance profile" not in render(Report("t", "v", "e", "u", profile={"iql": np.array([0.0, 100.0, 0.0])}))


def test_numbers_have_three_digits():
    assert [number(x) for x in (0.0, 0.01234, 12.34, 1234.0, float("nan"))] == ["0", "0.0123", "12.3", "1234", "-"]


def test_without_a_winner_none_is_marked_and_notes_stand_below_their_rows():
    rows = (Row("bc", 0.1, (0.0, 0.2), "9 users"), Row("ipw", 0.3, (-0.1, 0.7), "9 users", note="only 2 successes"))
    page = render(
        Report(
            "t", "No winner.", "e", "reward", confirmed=rows, selection=(Row("ipw", 0.5, (0.4, 0.6), "4 users", winner=True),)
        )
    )
    assert "class=winner" not in page
    assert 'class="winner"' not in page
    assert '<tr class="candidate">' in page
    assert "How the winner was chosen" not in page
    assert "How the candidate was chosen" in page
    assert '<tr class="note"><td colspan="5">only 2 successes</td></tr>' in page
    assert '<tr class="winner">' in render(FULL)
    assert "How the candidate" not in render(FULL)
