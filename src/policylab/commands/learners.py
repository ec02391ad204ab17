"""`policylab learners`: the learners, or all settings of one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from policylab.commands import choosing
from policylab.commands.arguments import Parser
from policylab.commands.output import Result, table
from policylab.reporting.settings import shown


def run(argv: Sequence[str]) -> tuple[argparse.Namespace, Result]:
    """List the learners, or describe one."""
    parser = Parser(
        "learners", "Without a name all learners; with one its settings, their defaults and ranges.", words="[LEARNER]"
    )
    parser.add_argument("learner", nargs="?", help="a name of the list, or your own class as mine.py:Mine")
    options = parser.read(argv)
    return options, _every() if options.learner is None else _one(options.learner)


def _every() -> Result:
    rows = choosing.listed()
    text = table(
        ("learner", "actions", "needs", "title"),
        [(row["name"], row["actions"], ", ".join(row["uses"]) or "-", row["title"]) for row in rows],
    )
    return Result({"learners": rows}, f"{text}\n\npolicylab learners NAME prints all settings of one.")


def _one(name: str) -> Result:
    cls = choosing.learner_class(name)
    rows = choosing.settings_of(cls)
    document = {
        "name": name,
        "class": cls.__name__,
        "title": getattr(cls, "title", ""),
        "actions": cls.actions,
        "uses": list(cls.uses),
        "about": cls.__doc__,
        "settings": [_documented(row) for row in rows],
    }
    lines = [(row["flag"], row["type"], shown(row["default"]), row["range"], row["help"]) for row in rows]
    head = f"{name}: {getattr(cls, 'title', '') or cls.__name__}\n\n    {(cls.__doc__ or '').strip()}\n"
    return Result(document, f"{head}\n{table(('setting', 'type', 'default', 'range', 'what'), lines)}")


def _documented(row: dict[str, Any]) -> dict[str, Any]:
    """A row of settings as JSON; an end of the range that is not there is null."""
    default = row["default"]
    plain = default is None or isinstance(default, bool | int | float | str)
    return {
        "name": row["name"],
        "flag": row["flag"],
        "type": row["type"],
        "default": default if plain else shown(default),
        "help": row["help"],
        "range": row["range"],
        **{end: row.get(end) for end in ("low", "high", "above", "below")},
    }
