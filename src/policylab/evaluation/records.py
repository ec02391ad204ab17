"""Append-only records of runs: one JSON document per line, one file per system. A line once written is never changed.

A run is a `started` line, a `look` line after each look, and a `finished` or `aborted` line; a killed run leaves what it had written.
A `rehashed` line gives a finished run's code, unchanged since, in hashes of a newer kind.
Nothing heavy is imported here: the catalogue reads these files in milliseconds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policylab.errors import BadInput

try:
    import fcntl
except ImportError:  # not a POSIX system: a single write to a file opened for appending has to do
    fcntl = None


def append(path: Path, line: dict[str, Any]) -> None:
    """Add one line, in one write to a locked file, on the disk when this returns; a last line cut off by a kill is closed first."""
    text = json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError as error:
        raise BadInput(f"results cannot be written to {path}: {error.strerror}; name another folder with --out") from None
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(file).st_size
        whole = size == 0 or os.pread(file, 1, size - 1) == b"\n" if fcntl else True
        os.write(file, (text if whole else "\n" + text).encode())
        os.fsync(file)
    finally:
        os.close(file)


def read(path: Path) -> list[dict[str, Any]]:
    """Its lines in order; none where there is no file. A line that a kill cut off is no JSON and is passed over."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = []
    for row in text.split("\n"):
        try:
            line = json.loads(row)
        except ValueError:
            continue
        if isinstance(line, dict) and "run" in line and "event" in line:
            lines.append(line)
    return lines


@dataclass
class Run:
    """One run of a claim as its lines tell it. `ended` is None for a run that was killed (or is still going on)."""

    started: dict[str, Any]
    looks: list[dict[str, Any]] = field(default_factory=list)
    ended: dict[str, Any] | None = None

    @property
    def outcome(self) -> str:
        """`finished`, `aborted` or `started` (killed, or still running)."""
        return self.ended["event"] if self.ended else "started"

    @property
    def counts(self) -> bool:
        """Whether it gave the claim's verdict: finished and on the claim's own seeds and looks; a rerun never replaces one."""
        return self.outcome == "finished" and not self.started["rerun"]

    @property
    def verdict(self) -> str | None:
        """Its verdict, if it finished."""
        return self.ended["verdict"] if self.ended and self.outcome == "finished" else None


def runs(paths: Iterable[Path]) -> list[Run]:
    """The runs that these files tell of, by the time of their start; a run that two files hold (a copy) appears once."""
    found: dict[str, Run] = {}
    for path in paths:
        here: dict[str, Run] = {}
        for line in read(path):
            if line["event"] == "started":
                here[line["run"]] = Run(line)
            elif line["run"] not in here:
                continue
            elif line["event"] == "look":
                here[line["run"]].looks.append(line)
            elif line["event"] in ("finished", "aborted"):
                here[line["run"]].ended = line
            elif line["event"] == "rehashed" and (ended := here[line["run"]].ended):
                here[line["run"]].ended = ended | {name: line[name] for name in ("code", "names", "idle")}
        for name, run in here.items():
            if name not in found or found[name].ended is None:
                found[name] = run
    return sorted(found.values(), key=lambda run: run.started["time"])


def tries(history: Iterable[Run], declaration: str) -> int:
    """Which attempt this declaration is: 1 and one more for every other declaration that has had a verdict."""
    return 1 + len({run.started["declaration"] for run in history if run.counts} - {declaration})
