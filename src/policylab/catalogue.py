"""The catalogue of all systems: what each one's last verdict is, derived from the files that exist and the results on record.

Nothing is imported but the standard library: `policylab systems` answers at once."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from policylab import claims
from policylab.evaluation import provenance, records

PACKAGE = Path(__file__).resolve().parent
# The probability that the looks give a wrong verdict on one part of each kind (simulated in the tests; `exact` involves no chance).
WRONG = {"greater": 0.024, "relation": 0.024, "equivalent": 0.048, "calibrated": 0.048, "exact": 0.0}
RATE = 0.05  # the false discovery rate of Benjamini and Hochberg's procedure


@cache
def cards() -> tuple[dict[str, Any], ...]:
    """What the systems are: n, id, title, family, kind and fit, in order."""
    return tuple(json.loads((PACKAGE / "catalogue.json").read_text(encoding="utf-8")))


def meant(system: str, known: Iterable[str]) -> str:
    """The sentence for a system that has no claim: a misspelling, or one that is still to come."""
    if system in {card["id"] for card in cards()}:
        return f"{system!r} has no claim yet: those that have one are {', '.join(sorted(known)) or 'none so far'}"
    close = difflib.get_close_matches(system, [card["id"] for card in cards()], n=1)
    hint = f"did you mean {close[0]!r}?" if close else "policylab systems lists them all"
    return f"there is no system {system!r}: {hint}"


def result_folders(folder: str | Path = "results", package: Path = PACKAGE) -> list[Path]:
    """Where results are read: those the package ships (`results/` inside an installed wheel, beside `src/` in a clone), then `folder`,
    by default `results` in the working directory, where `reproduce` writes."""
    clone = package.parents[1] / "results"
    shipped = (
        clone if package.parent.name == "src" and (package.parents[1] / "pyproject.toml").exists() else package / "results"
    )
    return list(dict.fromkeys([shipped.resolve(), Path(folder).resolve()]))


def history(system: str, folder: str | Path = "results", package: Path = PACKAGE) -> list[records.Run]:
    """Every run of a system's claim on record, oldest first."""
    return records.runs(place / f"{system}.jsonl" for place in result_folders(folder, package))


def systems(folder: str | Path = "results", package: Path = PACKAGE) -> list[dict[str, Any]]:
    """One row per system: id, title, family, status, verdict, scale, stale, attempt.

    `status` is `works` (its claim, as now declared, has a verdict), `partial` (a claim or an implementation of that name exists) or
    `absent`. `stale`: the code has changed since the verdict. `attempt` counts declarations that have had a verdict, None without
    a claim. A system's own claim and looks alone count; reruns never do."""
    files, built = claims.find(package), _implementations(package)
    return [_row(card, files.get(card["id"]), card["id"] in built, folder, package) for card in cards()]


def _row(card: Mapping[str, Any], file: Path | None, built: bool, folder: str | Path, package: Path) -> dict[str, Any]:
    row = {name: card[name] for name in ("id", "title", "family")}
    row |= {"status": "partial" if file or built else "absent", "verdict": None, "scale": None, "stale": False, "attempt": None}
    if file is None:
        return row
    runs = history(card["id"], folder, package)
    declaration = _declaration(file, runs, package)
    row["attempt"] = records.tries(runs, declaration)
    current = [run for run in runs if run.counts and run.started["declaration"] == declaration]
    if current:
        last = current[-1].ended
        stale = bool(provenance.changed(last, package))
        row |= {"status": "works", "verdict": last["verdict"], "scale": last["scale"], "stale": stale}
    return row


def _declaration(file: Path, runs: Sequence[records.Run], package: Path) -> str:
    """The hash of a claim as now declared: that of its last run if its file is unchanged since, else read from its text."""
    name = file.relative_to(package).as_posix()
    for run in reversed(runs):
        if run.ended and name in run.ended.get("code", {}) and not provenance.changed(run.ended, package, only=name):
            return run.started["declaration"]
    try:
        declared = provenance.declared_in(file.read_text(encoding="utf-8"))
    except SyntaxError:
        return ""
    return provenance.declaration_hash(declared) if declared else ""


def _implementations(package: Path) -> set[str]:
    """The names of all modules, as ids: a system whose file exists somewhere is at least partly there."""
    return {file.stem.replace("_", "-") for file in package.rglob("*.py") if file.parent != package}


def summary(rows: Sequence[Mapping[str, Any]], folder: str | Path = "results", package: Path = PACKAGE) -> dict[str, Any]:
    """Counts by status, and verdicts by scale; of those that test a finding (scale paper or analogue): how many verdicts chance alone
    may have made false, at most and on average, and how many survive Benjamini and Hochberg's procedure at 5%."""
    works = [row for row in rows if row["status"] == "works"]
    tested, false, p = [row for row in works if row["scale"] != "machinery"], 0.0, []
    for row in tested:
        last = [run for run in history(row["id"], folder, package) if run.counts][-1].ended
        false += sum(WRONG[part["kind"]] for part in last["parts"])
        p.append(1.0 if last["p"] is None else last["p"])
    return {
        "status": dict(Counter(row["status"] for row in rows)),
        "verdicts": {
            scale: dict(Counter(row["verdict"] for row in works if row["scale"] == scale))
            for scale in ("paper", "analogue", "machinery")
        },
        "stale": sum(row["stale"] for row in rows),
        "tested": len(tested),
        "false_by_chance": round(false, 3),
        "survive": survivors(p),
    }


def survivors(p: Sequence[float], rate: float = RATE) -> int:
    """How many of these p-values Benjamini and Hochberg (1995) reject at a false discovery rate; an inconclusive verdict counts as 1."""
    ranked = sorted(p)
    return max((k for k, value in enumerate(ranked, 1) if value <= k * rate / len(ranked)), default=0)


def systems_json(folder: str | Path = "results") -> dict[str, Any]:
    """The document of `policylab systems --json`."""
    rows = systems(folder)
    return {"systems": rows, "summary": summary(rows, folder)}


def footer(counts: Mapping[str, Any]) -> list[str]:
    """The summary in sentences."""
    status = counts["status"]
    lines = [
        f"{sum(status.values())} systems: "
        + ", ".join(f"{status.get(name, 0)} {name}" for name in ("works", "partial", "absent"))
    ]
    for scale, verdicts in counts["verdicts"].items():
        if verdicts:
            lines.append(
                f"{scale}: " + ", ".join(f"{number} {verdict}" for verdict, number in sorted(verdicts.items(), reverse=True))
            )
    if counts["stale"]:
        lines.append(f"{counts['stale']} older than their code (marked *): run policylab reproduce again")
    if counts["tested"]:
        lines.append(
            f"of {counts['tested']} verdicts on findings at most {counts['false_by_chance']:.2g} are expected to be false by chance; "
            f"{counts['survive']} survive Benjamini-Hochberg at 5%"
        )
    return lines


def systems_table(rows: Sequence[Mapping[str, Any]], width: int = 100) -> str:
    """The rows as text for a terminal: what works first, then what is partly there, then the rest, by family; titles cut to `width`."""
    header = ("system", "family", "status", "verdict", "scale", "title")
    order = ("works", "partial", "absent")
    body = [
        (row["id"], row["family"], row["status"], _verdict(row), row["scale"] or "", row["title"])
        for row in sorted(rows, key=lambda row: (order.index(row["status"]), row["family"]))
    ]
    widths = [max(len(line[column]) for line in (header, *body)) for column in range(5)]
    room = max(12, width - sum(widths) - 10)
    cut = [(*line[:5], line[5] if len(line[5]) <= room else line[5][: room - 1].rstrip() + "…") for line in (header, *body)]
    return "\n".join(
        "  ".join(cell.ljust(size) for cell, size in zip(line, (*widths, 0), strict=True)).rstrip() for line in cut
    )


def systems_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The systems that are there, as a Markdown table for the README."""
    lines = ["| system | what | status | verdict | scale |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['id']} | {row['title'].replace('|', '/')} | {row['status']} | {_verdict(row)} | {row['scale'] or ''} |"
        for status in ("works", "partial")
        for row in rows
        if row["status"] == status
    ]
    return "\n".join(lines)


def _verdict(row: Mapping[str, Any]) -> str:
    if row["verdict"] is None:
        return ""
    attempt = f" (attempt {row['attempt']})" if row["attempt"] > 1 else ""
    return row["verdict"] + ("*" if row["stale"] else "") + attempt
