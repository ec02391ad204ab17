"""The registry of tasks: names and titles here, modules imported when a task is loaded."""

from __future__ import annotations

import difflib
import importlib

from policylab.errors import BadInput

# family -> the names of its tasks; `policylab.tasks.FAMILY.load(name)` makes one.
FAMILIES = {
    "pointmaze": ("umaze", "medium", "large"),
}


def task_names() -> tuple[str, ...]:
    """The names of all tasks, such as `pointmaze/umaze`."""
    return tuple(f"{family}/{name}" if name else family for family, names in FAMILIES.items() for name in names)


def load_task(name: str):
    """The task of that name. Raises `BadInput` if there is none."""
    if name not in task_names():
        close = difflib.get_close_matches(name, task_names(), 1)
        hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(task_names())}"
        raise BadInput(f"there is no task {name!r}: {hint}")
    family, _, member = name.partition("/")
    return importlib.import_module(f"policylab.tasks.{family}").load(member)
