"""Settings of learners and forms, as a user would write them, and those that are not the defaults."""

from __future__ import annotations

import dataclasses
from typing import Any


def shown(value: Any, *, python: bool = False) -> str:
    """A value as a user would type it on the command line, or in Python; forms with the settings that differ from their own defaults."""
    if isinstance(value, bool):
        return str(value) if python else str(value).lower()
    if isinstance(value, float):
        return repr(value) if python else f"{value:g}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = [
            f"{field.name}={shown(getattr(value, field.name), python=python)}"
            for field in dataclasses.fields(value)
            if not _default(field, getattr(value, field.name))
        ]
        name = type(value).__name__
        ours = python and type(value).__module__.startswith("policylab.")
        return f"{'lab.' if ours else ''}{name}({', '.join(changed)})"
    return repr(value) if python else str(value)


def differing(value: Any) -> list[tuple[str, str, str, str]]:
    """(name, value, default, what it is) of every setting that is not its default, in the order in which they are declared."""
    from policylab.hyperparameters import describe

    rows = []
    for field, row in zip(dataclasses.fields(value), describe(type(value)), strict=True):
        given = getattr(value, field.name)
        if not _default(field, given):
            none = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            rows.append((field.name, shown(given), "none" if none else shown(row["default"]), row["help"]))
    return rows


def every(value: Any) -> list[tuple[str, str, str]]:
    """(name, value, what it is) of every setting."""
    from policylab.hyperparameters import describe

    return [(row["name"], shown(getattr(value, row["name"])), row["help"]) for row in describe(type(value))]


def _default(field: dataclasses.Field, given: Any) -> bool:
    default = field.default
    if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    try:
        return bool(given == default)
    except (TypeError, ValueError):  # arrays have no one answer
        return given is default
