"""How the benchmarks write their findings: tables in Markdown, and goals that were met or missed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Goal:
    """What was to be reached, what was measured (None: nothing was), and whether that is enough."""

    text: str
    measured: str | None
    met: bool = False

    @property
    def verdict(self) -> str:
        """In one or two words."""
        return "not measured" if self.measured is None else "met" if self.met else "**missed**"


def at_least(text: str, found: dict[str, float] | None, least: float, write: str) -> Goal:
    """A goal for the median of a `spread`, shown by the format `write`."""
    return Goal(text, found and spread_text(found, write), bool(found) and found["median"] >= least)


def at_most(text: str, found: dict[str, float] | None, most: float, write: str) -> Goal:
    """As `at_least`, for what should be small."""
    return Goal(text, found and spread_text(found, write), bool(found) and found["median"] <= most)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": float(np.median(values)), "least": float(min(values)), "most": float(max(values))}


def spread_text(found: dict[str, float], write: str) -> str:
    """Median and range, each by the format `write`."""
    median, least, most = (write.format(found[name]) for name in ("median", "least", "most"))
    return f"{median} ({least} to {most})"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown."""
    line = lambda cells: "| " + " | ".join(str(cell) for cell in cells) + " |"
    return "\n".join([line(header), "|" + "---|" * len(header), *(line(row) for row in rows)])


def goal_table(goals: Sequence[Goal]) -> str:
    """Goals, what was measured, and the verdicts."""
    return table(("goal", "measured", ""), [(goal.text, goal.measured or "", goal.verdict) for goal in goals])


def versions_text(versions: dict[str, str]) -> str:
    """`name 1.2, other 3.4`."""
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def write_section(page: Path, begin: str, end: str, text: str) -> None:
    """Put `text` between the two markers of a page; ends the program with a sentence where the page has none."""
    old = page.read_text()
    if begin not in old or end not in old:
        sys.exit(f"{page} has no place for the section: write {begin} and {end} into it")
    page.write_text(f"{old.split(begin)[0]}{begin}\n{text}{end}{old.split(end)[1]}")
