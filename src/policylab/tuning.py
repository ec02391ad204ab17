"""Tuning on equal terms: every arm gets the same number of trials, on seeds and episodes that no reported number uses."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from policylab.errors import BadInput, Diverged
from policylab.evaluation.task_scores import SELECTION_KEY, trials_of
from policylab.hyperparameters import check
from policylab.learner import Learner
from policylab.source import Source
from policylab.task import Task

FIRST_SEED = 1_000_000  # tuning seeds count from here, plus the first reported seed


class Grid:
    """All combinations of some values of some settings: `Grid(learning_rate=(1e-4, 3e-4), expectile=(0.7, 0.9))` has 4."""

    def __init__(self, **values: Sequence[Any]):
        self.values = {name: tuple(options) for name, options in values.items()}
        empty = [name for name, options in self.values.items() if not options]
        if not self.values or empty:
            raise BadInput(f"the grid has no values{f' for {empty[0]}' if empty else ''}: give at least one per setting")

    def __len__(self) -> int:
        return len(self.trials())

    def __repr__(self) -> str:
        return f"Grid({', '.join(f'{name}={options}' for name, options in self.values.items())})"

    def trials(self) -> list[dict[str, Any]]:
        """Every combination, the last setting changing fastest."""
        return [dict(zip(self.values, combination)) for combination in itertools.product(*self.values.values())]


@dataclass(frozen=True)
class Tuned:
    """What tuning did for one arm: the learner it chose and every trial with its score (None where training diverged)."""

    learner: Learner
    trials: tuple[dict[str, Any], ...]

    @property
    def chosen(self) -> dict[str, Any]:
        """The settings of the best trial."""
        return next(trial["settings"] for trial in self.trials if trial["chosen"])


def candidates(arms: Mapping[str, Learner], tune: Grid | Mapping[str, Grid]) -> dict[str, list[tuple[dict[str, Any], Learner]]]:
    """Every arm's trials: settings and the learner that has them.

    Raises `BadInput` for a setting that an arm lacks, a value out of range, an arm without grid or grids of different sizes.
    """
    grids = dict.fromkeys(arms, tune) if isinstance(tune, Grid) else dict(tune)
    for name in (*arms, *grids):
        if name not in arms or name not in grids:
            raise BadInput(
                f"the grids are of {', '.join(grids)} and the arms are {', '.join(arms)}: equal trials need a grid for each arm"
            )
    sizes = {name: len(grids[name]) for name in arms}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise BadInput(f"the arms would get different numbers of trials ({told}): give grids of one size")
    found = {}
    for name, learner in arms.items():
        known = [field.name for field in fields(learner)]  # ty: ignore[invalid-argument-type]  (learners are dataclasses)
        for setting in grids[name].values:
            if setting not in known:
                raise BadInput(
                    f"{name} has no setting {setting}: tune what all arms have, or give each arm its own grid of the same size"
                )
        # Settings are checked above by name; the type checker cannot see which fields a learner has.
        found[name] = [(trial, replace(learner, **trial)) for trial in grids[name].trials()]  # ty: ignore[invalid-argument-type]
        for _, candidate in found[name]:
            check(candidate)
    return found


def choose(
    name: str,
    trials: Sequence[tuple[dict[str, Any], Learner]],
    tasks: Mapping[str, Task],
    sources: Mapping[str, Source],
    *,
    steps: int,
    seeds: Sequence[int],
    episodes: int,
    progress: bool,
) -> Tuned:
    """Train every trial on every task and choose the one with the best mean score; the first of equals.

    A trial that diverges has no score and cannot be chosen; it counts as a trial all the same. Raises `Diverged` if all do.
    """
    rows: list[dict[str, Any]] = []
    for settings, learner in trials:
        row: dict[str, Any] = {"settings": settings, "score": None, "chosen": False}
        try:
            row["score"] = float(
                np.mean([_score(learner, tasks[task], sources[task], steps, seeds, episodes, progress) for task in tasks])
            )
        except Diverged as error:
            row["diverged"] = str(error)
        rows.append(row)
    finished = [place for place, row in enumerate(rows) if row["score"] is not None]
    if not finished:
        raise Diverged(f"every tuning trial of {name} diverged; the first: {rows[0]['diverged']}")
    best = max(finished, key=lambda place: rows[place]["score"])
    rows[best]["chosen"] = True
    return Tuned(trials[best][1], tuple(rows))


def _score(
    learner: Learner, task: Task, source: Source, steps: int, seeds: Sequence[int], episodes: int, progress: bool
) -> float:
    from policylab.training import train

    run = train(learner, source, steps=steps, seeds=seeds, progress=progress)
    return task.metric(trials_of(run, task, episodes=episodes, key=SELECTION_KEY))["score"]
