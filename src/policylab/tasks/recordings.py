"""A task's dataset by name, or one sentence about the name."""

from __future__ import annotations

import difflib
import inspect

from policylab.data.recording import Recording
from policylab.errors import BadInput
from policylab.progress import Progress
from policylab.task import Task


def task_recording(
    task: Task, dataset: str | None, *, steps: int = 0, seed: int = 0, learning: int = 0, progress: bool = False
) -> Recording:
    """One of a task's datasets, made on first use and cached. `learning` bounds the training of the learner that makes it,
    where one does. Raises `BadInput` for a missing or unknown name."""
    require_dataset(task, dataset)
    title = f"{task.name}/{dataset}"
    more = {"learning": learning} if learning else {}
    if learning and "learning" not in inspect.signature(task.dataset).parameters:
        raise BadInput(
            f"nothing learns for the datasets of {task.name}, which come from a scripted pilot: leave --learning out"
        )
    return task.dataset(str(dataset), steps=steps, seed=seed, progress=Making(title) if progress else None, **more)


class Making:
    """A progress bar that starts with the first news of how much there is to make."""

    def __init__(self, title: str):
        self.title = title
        self.bar: Progress | None = None

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` steps are made."""
        self.bar = self.bar or Progress(self.title, total)
        self.bar.advance(done)


def require_dataset(task: Task, dataset: str | None) -> None:
    """Raise `BadInput` unless the task has a dataset of that name."""
    known = ", ".join(task.datasets)
    if not known:
        raise BadInput(f"{task.name} has no datasets of its own: bring one with --data PATH")
    if dataset is None:
        raise BadInput(f"which dataset of {task.name}? Give --dataset with one of {known}")
    if dataset not in task.datasets:
        close = difflib.get_close_matches(dataset, task.datasets, 1)
        raise BadInput(
            f"{task.name} has no dataset {dataset!r}: {f'did you mean {close[0]}?' if close else f'choose one of {known}'}"
        )
