"""What a comparison found: scores per seed and task, aggregates, paired differences; as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from policylab import registry
from policylab.evaluation import aggregates
from policylab.evaluation.small_samples import jackknife, probability_interval
from policylab.evaluation.statistics import BOOTSTRAP_FROM, Difference, Interval, interval, paired_differences
from policylab.learner import Learner
from policylab.tuning import Tuned

GAMMA = 100.0  # what counts as solved on the 0-100 scale, for the optimality gap


@dataclass(frozen=True)
class Figure:
    """A number with the interval around it, and how that was made."""

    value: float
    interval: tuple[float, float]
    level: float
    method: str

    def __str__(self) -> str:
        return f"{_figure(self.value)} [{_figure(self.interval[0])}, {_figure(self.interval[1])}]"


@dataclass(frozen=True)
class Curve:
    """Scores [point, seed] after so many updates, on episodes of their own; they decide nothing."""

    steps: Int[np.ndarray, " point"]
    values: Float[np.ndarray, "point seed"]


@dataclass(frozen=True)
class Comparison:
    """Arms on equal terms. `metrics[arm][metric]` has shape [seed, task]; `score` is on the tasks' 0-100 scale where they have
    one (see `scales`), else the return. `curves[arm][task]` are there if they were asked for. The first arm is the reference."""

    learners: Mapping[str, Learner]
    tuned: Mapping[str, Tuned | None]
    tasks: tuple[str, ...]
    scales: tuple[str, ...]
    dynamics: tuple[str, ...]
    scored: bool
    data: tuple[str, ...]
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    steps: int
    episodes: int
    action: str
    level: float
    metrics: Mapping[str, Mapping[str, np.ndarray]]
    seconds: Mapping[str, float]
    curves: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict)

    @property
    def scores(self) -> dict[str, np.ndarray]:
        """[seed, task] of every arm."""
        return {name: np.asarray(metrics["score"], np.float64) for name, metrics in self.metrics.items()}

    @cached_property
    def differences(self) -> tuple[Difference, ...]:
        """Every other arm minus the first, paired by seed and averaged over tasks, Holm-corrected over arms."""
        return paired_differences(self.scores, self.level)

    @cached_property
    def aggregates(self) -> dict[str, dict[str, Figure]]:
        """`mean`, `median`, `iqm` and, on the 0-100 scale, `optimality_gap` of every arm.

        From 30 scores per arm on the intervals are stratified bootstraps (Agarwal et al. 2021), below jackknives with Student's t.
        """
        statistics = {
            "mean": aggregates.mean,
            "median": aggregates.median,
            "iqm": aggregates.iqm,
            "optimality_gap": lambda table: aggregates.optimality_gap(table, GAMMA),
        }
        names = [name for name in statistics if self.scored or name != "optimality_gap"]
        if len(self.seeds) * len(self.tasks) >= BOOTSTRAP_FROM:
            drawn = aggregates.aggregate_intervals(self.scores, level=self.level, gamma=GAMMA)
            return {
                arm: {name: Figure(rows[name].value, rows[name].interval, self.level, "stratified bootstrap") for name in names}
                for arm, rows in drawn.items()
            }
        return {
            arm: {
                name: Figure(statistics[name](table), jackknife(statistics[name], table, self.level), self.level, "jackknife")
                for name in names
            }
            for arm, table in self.scores.items()
        }

    @cached_property
    def improvement(self) -> dict[str, Figure]:
        """The probability that a run of the arm beats a run of the first arm on a task, for every arm but the first."""
        reference, *tables = self.scores.values()
        found = {}
        for name, table in zip(list(self.scores)[1:], tables):
            drawn = aggregates.probability_of_improvement(table, reference, level=self.level)
            if table.size >= BOOTSTRAP_FROM:
                found[name] = Figure(drawn.value, drawn.interval, self.level, "stratified bootstrap")
            else:
                ends = probability_interval(drawn.value, *table.shape, self.level)
                found[name] = Figure(drawn.value, ends, self.level, "variance bound of van Dantzig")
        return found

    def by_task(self, arm: str) -> list[Interval]:
        """The mean score and its interval on every task, uncorrected."""
        return [interval(column, self.level) for column in self.scores[arm].T]

    def to_json(self) -> dict[str, Any]:
        """Everything: terms of the comparison, tuning, scores per seed, aggregates, differences."""
        return {
            "reference": next(iter(self.learners)),
            "seeds": list(self.seeds),
            "steps": self.steps,
            "episodes": self.episodes,
            "action": self.action,
            "checkpoint": "last",
            "level": self.level,
            "tuning_seeds": list(self.tuning_seeds),
            "tasks": [
                {"name": name, "data": data, "scale": scale, "dynamics": dynamics}
                for name, data, scale, dynamics in zip(self.tasks, self.data, self.scales, self.dynamics)
            ],
            "arms": {name: self._arm(name) for name in self.learners},
            "differences": [asdict(row) for row in self.differences],
            "probability_of_improvement": {name: asdict(row) for name, row in self.improvement.items()},
        }

    def _arm(self, name: str) -> dict[str, Any]:
        tuned = self.tuned[name]
        return {
            "learner": registry.to_json(self.learners[name]),
            "tuning": None
            if tuned is None
            else [{**row, "settings": registry.to_json(row["settings"])} for row in tuned.trials],
            "seconds": self.seconds[name],
            "aggregates": {label: asdict(row) for label, row in self.aggregates[name].items()},
            "tasks": {
                task: {
                    "score": asdict(self.by_task(name)[column]),
                    "values": {metric: table[:, column].tolist() for metric, table in self.metrics[name].items()},
                    **self._curve(name, task),
                }
                for column, task in enumerate(self.tasks)
            },
        }

    def _curve(self, name: str, task: str) -> dict[str, Any]:
        curve = self.curves.get(name, {}).get(task)
        return {} if curve is None else {"curve": {"steps": curve.steps.tolist(), "score": curve.values.tolist()}}

    def __str__(self) -> str:
        reference = next(iter(self.learners))
        lines = [
            f"{len(self.learners)} arms on {_listed(self.tasks, self.data)}: {len(self.seeds)} seeds, {self.steps:,} updates each, "
            f"last policies ({self.action}), {self.episodes} episodes per seed",
            *dict.fromkeys(self.scales),
        ]
        if self.tuning_seeds:
            trials = len(next(row for row in self.tuned.values() if row is not None).trials)
            lines.append(f"tuned with {trials} trials per arm on {len(self.tuning_seeds)} seeds and episodes of their own")
            lines += [f"  {name}: {_settings(row.chosen)}" for name, row in self.tuned.items() if row is not None]
        labels = {"iqm": "IQM", "mean": "mean", "median": "median", "optimality_gap": "optimality gap"}
        shown = [
            label for label in labels if label in self.aggregates[reference] and (label != "median" or len(self.tasks) > 1)
        ]
        header = ["arm", *(labels[label] for label in shown), "difference", "P(better)", "verdict"]
        rows = [[reference, *(str(self.aggregates[reference][label]) for label in shown), "", "", "reference"]]
        for row in self.differences:
            difference = str(Figure(row.difference, row.interval, row.level, ""))
            rows.append(
                [
                    row.arm,
                    *(str(self.aggregates[row.arm][label]) for label in shown),
                    difference,
                    str(self.improvement[row.arm]),
                    f"{row.verdict} (p = {row.adjusted_p:.2g})",
                ]
            )
        lines += ["", _table(header, rows)]
        if len(self.tasks) > 1:
            means = [[name, *(str(_of(found)) for found in self.by_task(name))] for name in self.learners]
            lines += ["", "mean score by task:", _table(["arm", *self.tasks], means)]
        method = self.aggregates[reference]["mean"].method
        lines += [
            "",
            f"intervals at {self.level:.0%}: {method} for aggregates; differences are paired by seed, their intervals hold together, "
            "p by Holm",
        ]
        return "\n".join(lines)


def _of(found: Interval) -> Figure:
    return Figure(found.value, (found.low, found.high), found.level, found.method)


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in settings.items())


def _listed(tasks: tuple[str, ...], data: tuple[str, ...]) -> str:
    return ", ".join(f"{task} ({name})" for task, name in zip(tasks, data))


def _figure(number: float) -> str:
    return f"{number:,.1f}" if 10 <= abs(number) < 1e6 else f"{number:.2f}" if abs(number) < 10 else f"{number:.3g}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)
