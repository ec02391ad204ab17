"""The report as one HTML file that needs nothing else: no network, no other file, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from policylab.checkpoints import write_atomically
from policylab.reporting.figures import animation, learning_curves, performance_profile
from policylab.reporting.insides import Picture
from policylab.reporting.markup import Section, image, number, pairs, paragraphs
from policylab.reporting.markup import text as _text
from policylab.reporting.panels import Curve, arm_curves
from policylab.reporting.style import STYLE


@dataclass(frozen=True)
class Row:
    """One line of the score table; `interval` is that of `value`, `units` says over what (5 seeds, 312 users)."""

    method: str
    value: float
    interval: tuple[float, float] | None
    units: str
    note: str = ""
    winner: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Everything that a report can hold; what is empty is left out.

    `evidence` says in words what kind of evidence this is and how far it carries. `confirmed` are the numbers to believe (fresh
    seeds and episodes, or rows that neither learned nor selected), `selection` those that picked the winner and are therefore
    flattering. `curves` maps a method to `steps` [point] and `values` [point, seed]; `profile` a method to its scores.
    """

    title: str
    verdict: str
    evidence: str
    unit: str
    confirmed: tuple[Row, ...] = ()
    selection: tuple[Row, ...] = ()
    differences: tuple[Row, ...] = ()
    shortlist: tuple[tuple[str, str], ...] = ()
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    profile: Mapping[str, np.ndarray] = field(default_factory=dict)
    card: str = ""
    card_picture: bytes = b""
    frames: Sequence[np.ndarray] = ()
    insides: Sequence[Picture] = ()
    expected: tuple[str, str] | None = None  # heading and caption of `confirmed` where nothing was chosen
    paired: str = "Paired: the same seeds and the same episodes (or rows) for both. An interval that holds 0 decides nothing."
    level: float = 0.95
    every_seed: bool = False  # whether learning curves show single seeds, too
    found: Sequence[Section] = ()  # stand below the numbers to believe
    background: Sequence[Section] = ()  # stand below the pictures
    glossary: Sequence[str] | None = None  # which words are explained; None: those of solve
    plan: str = ""
    load: str = ""
    repeat: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


def write_report(path: str | Path, report: Report) -> Path:
    """Write the page, atomically. Raises `BadInput` if the report's extra is not installed."""
    write_atomically(Path(path), render(report).encode())
    return Path(path)


def render(report: Report) -> str:
    """The page as text."""
    won = any(row.winner for row in report.confirmed)
    heading, caption = report.expected or (
        ("What to expect", "Measured afresh: nothing here took part in choosing the winner.") if won
        else ("What can be said", "No policy learned from, or was chosen by, the rows behind these numbers.")
    )  # fmt: skip
    parts = [
        f"<h1>{_text(report.title)}</h1>",
        f'<p class="verdict">{_text(report.verdict)}</p>',
        f"<p>{_text(report.evidence)}</p>",
        _scores(heading, report.confirmed, report.unit, caption, level=report.level),
        _scores(
            "Differences", [replace(row, extra={}) for row in report.differences], f"difference in {report.unit}", report.paired,
            level=report.level,
        ),
        *map(str, report.found),
        _picture(
            "A rollout of the winner" if won else "A rollout", animation(report.frames) if len(report.frames) else b"", "gif",
            "One episode of the saved policy, from a start that was not used for selection." if report.selection
            else "One episode of the policy.",
        ),
        *(_picture(picture.title, picture.content, "png", picture.caption) for picture in report.insides),
        _scores(
            f"How the {'winner' if won else 'candidate'} was chosen", report.selection, report.unit,
            f"The {'winner' if won else 'candidate'} has the highest mean here. These numbers flatter whoever is chosen, so they "
            "are not the result.", "winner" if won else "candidate",
        ),
        _picture("Learning curves", _curves(report), "png", _about_curves(report)),
        _picture(
            "Performance profile", performance_profile(report.profile, report.unit) if _graded(report.profile) else b"", "png",
            "The share of fresh episodes that end above each score: higher is better everywhere.",
        ),
        *map(str, report.background),
        _shortlist(report.shortlist),
        f"<h2>The data</h2><pre>{_text(report.card)}</pre>" if report.card else "",
        _picture("", report.card_picture, "png", "Where the data have been, and what they hold."),
        f"<h2>What to do next</h2>{paragraphs(report.plan)}" if report.plan else "",
        f"<h2>Load and run {'the' if won else 'a'} policy</h2><pre class=wrap>{_text(report.load)}</pre>" if report.load else "",
        f"<h2>Repeat all of this</h2><pre class=wrap>{_text(report.repeat)}</pre>" if report.repeat else "",
        _facts(report.facts),
        _explained(_OF_SOLVE if report.glossary is None else report.glossary),
    ]  # fmt: skip
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(report.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _several(curves: Mapping[str, Mapping[str, Any]]) -> bool:
    return any(len(curve["steps"]) > 1 for curve in curves.values())


def _graded(profile: Mapping[str, np.ndarray]) -> bool:
    """Whether scores are more than success and failure, of which a profile shows nothing new."""
    return bool(profile) and len(np.unique(np.concatenate([np.ravel(scores) for scores in profile.values()]))) > 2


def _curves(report: Report) -> bytes:
    if not _several(report.curves):
        return b""
    if not report.every_seed:
        return learning_curves(report.curves, report.unit)
    known = {name: Curve(np.asarray(row["steps"]), np.asarray(row["values"], float)) for name, row in report.curves.items()}
    return arm_curves(known, report.unit)


def _about_curves(report: Report) -> str:
    if all(np.shape(curve["values"])[1] < 2 for curve in report.curves.values()):
        return "One seed: another might go another way."
    thin = "; thin lines are single seeds" if report.every_seed else ""
    return f"Mean over the {'selection ' if report.selection else ''}seeds{thin}; the band is a 95% Student t interval of that mean."


def _scores(title: str, rows: Sequence[Row], unit: str, caption: str, mark: str = "winner", *, level: float = 0.95) -> str:
    """A table of rows; a note stands below its row, over the whole width. `mark` is the class of the rows that are `winner`."""
    if not rows:
        return ""
    ends = [end for row in rows for end in (*(row.interval or ()), row.value) if np.isfinite(end)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    extras = list(dict.fromkeys(name for row in rows for name in row.extra))
    head = ["", _short(unit), f"{level:.0%} interval", "", "over", *extras]
    lines = []
    for row in rows:
        interval = f"{number(row.interval[0])} to {number(row.interval[1])}" if row.interval else "-"
        cells = [(_text(row.method), ""), (number(row.value), "number"), (interval, "number"), (_bar(row, low, high), "")]
        cells += [(_text(row.units), "number"), *((_text(row.extra.get(name, "-")), "number") for name in extras)]
        filled = "".join(
            f'<td{f" class={kind}" if kind else ""} data-label="{_text(name)}">{content}</td>'
            for name, (content, kind) in zip(head, cells, strict=True)
        )
        classes = " ".join(filter(None, (mark if row.winner else "", "noted" if row.note else "")))
        lines.append(f'<tr class="{classes}">{filled}</tr>' if classes else f"<tr>{filled}</tr>")
        if row.note:
            lines.append(f'<tr class="note"><td colspan="{len(head)}">{_text(row.note)}</td></tr>')
    header = "".join(f'<th scope="col">{_text(name)}</th>' for name in head)
    return (
        f'<h2>{_text(title)}</h2><p class="soft">{_text(caption)} Unit: {_text(unit)}.</p><div class="scroll"><table>'
        f"<thead><tr>{header}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _short(unit: str) -> str:
    """The unit's first words, for the head of a column; the caption has all of it."""
    return unit.split(" (")[0].split(" per ")[0]


def _bar(row: Row, low: float, high: float) -> str:
    def place(value: float) -> float:
        return round(4 + 136 * (value - low) / max(high - low, 1e-12), 1)

    if row.interval is None or not np.all(np.isfinite([*row.interval, row.value])):
        return ""
    zero = f'<line class="zero" x1="{place(0)}" x2="{place(0)}" y1="0" y2="18"/>' if low < 0 < high else ""
    return (
        f'<svg class="bar" viewBox="0 0 144 18" role="img" aria-label="{number(row.interval[0])} to {number(row.interval[1])}">'
        f'{zero}<line x1="{place(row.interval[0])}" x2="{place(row.interval[1])}" y1="9" y2="9"/>'
        f'<circle cx="{place(row.value)}" cy="9" r="4"/></svg>'
    )


def _picture(title: str, content: bytes, kind: str, caption: str) -> str:
    return str(Section(title, image(content, kind, title or caption, caption))) if content else ""


def _shortlist(rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return ""
    lines = "".join(f'<tr><td>{_text(name)}</td><td class="reason">{_text(reason)}</td></tr>' for name, reason in rows)
    return (
        '<h2>Why these methods</h2><div class="scroll"><table><thead><tr><th scope="col">method</th><th scope="col">reason</th></tr>'
        f"</thead><tbody>{lines}</tbody></table></div>"
    )


def _facts(facts: Mapping[str, str]) -> str:
    return str(Section("How this was made", pairs(facts))) if facts else ""


def _explained(words: Sequence[str]) -> str:
    if not words:
        return ""
    rows = "\n".join(f"<dt>{_text(word)}</dt><dd>{_text(_GLOSSARY[word])}</dd>" for word in words)
    return str(Section("How to read this", f'<dl class="soft">\n{rows}\n</dl>'))


_GLOSSARY = {
    "95% interval": (
        "A range that would hold the true mean in about 95 of 100 repetitions. Below 30 independent units it is Student's t, "
        "from 30 on a bootstrap. It may reach beyond what can be, such as a negative share of clicks: then the data say little."
    ),
    "over": (
        "What was averaged. Seeds are whole trainings from other random numbers; episodes of one seed are not independent "
        "evidence about the method."
    ),
    "selection": "Whatever picks a winner flatters it, so selection numbers are shown but not reported as the result.",
    "matched positives": (
        "Logged successes on which the new policy would do what was logged. With few of them an off-policy estimate knows "
        "little, whatever its interval says."
    ),
    "SNIPS": (
        "The logged rewards, weighted by how much more often than the logging policy the new one would have made the logged "
        "choice, over the sum of these weights."
    ),
    "effective sample size": "How many rows an importance-weighted average is worth.",
    "IQM": (
        "The interquartile mean: the mean of the middle half of all scores, which one lucky or unlucky seed does not move "
        "(Agarwal et al. 2021)."
    ),
    "optimality gap": "How far scores stay below 100 on the average, those above counted as 100: less is better.",
    "p by Holm": (
        "How likely differences as large as this one are where there is none, corrected for how many arms are compared: all verdicts "
        "together are right with the probability that the intervals name."
    ),
}
_OF_SOLVE = ("95% interval", "over", "selection", "matched positives", "SNIPS", "effective sample size")
