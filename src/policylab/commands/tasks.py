"""`policylab tasks`: the tasks, or one with its datasets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from policylab.commands.arguments import Parser
from policylab.commands.output import Result, table


def run(argv: Sequence[str]) -> tuple[argparse.Namespace, Result]:
    """List the tasks, or describe one."""
    parser = Parser("tasks", "Without a name all tasks; with one its spaces, datasets and reference returns.", words="[TASK]")
    parser.add_argument("task", nargs="?", help="a name of the list")
    options = parser.read(argv)
    return options, _every() if options.task is None else _one(options.task)


def _every() -> Result:
    from policylab.tasks import TASKS

    rows = [(name, title) for name, (_, title) in TASKS.items()]
    text = (
        table(("task", "what it is"), rows)
        + "\n\npolicylab tasks NAME prints the spaces, datasets and reference returns of one."
    )
    return Result({"tasks": [{"name": name, "title": title} for name, title in rows]}, text)


def _one(name: str) -> Result:
    from policylab.tasks import load_task

    task = load_task(name)
    from policylab import spaces  # heavy: after the name is known to be right

    spec = task.spec
    document = {
        "name": task.name,
        "title": task.title,
        "environment": spec.environment,
        "observation": spaces.describe(spec.observation),
        "action": spaces.describe(spec.action),
        "horizon": spec.horizon,
        "control_rate": spec.control_rate,
        "datasets": dict(task.datasets),
        "reference": dict(task.reference),
        "scale": task.scale if task.reference else None,
    }
    lines = [
        f"{task.name}: {task.title}",
        f"  environment  {spec.environment}",
        f"  observation  {document['observation']}",
        f"  action       {document['action']}",
        f"  horizon      {spec.horizon} steps" + (f" at {spec.control_rate:g} per second" if spec.control_rate else ""),
    ]
    if task.reference:
        lines.append(
            "  reference    "
            + ", ".join(f"{who} {value:g}" for who, value in task.reference.items())
            + f" (return); {task.scale}"
        )
    lines.append(
        "\n" + table(("dataset", "what it is"), list(task.datasets.items()))
        if task.datasets
        else "\nno datasets: bring one with --data PATH"
    )
    return Result(document, "\n".join(lines))
