"""A run's evaluations and metrics over its updates, as parts of a page."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from policylab.evaluation.occasional import told
from policylab.reporting import markup, panels
from policylab.reporting.markup import Section, number
from policylab.runs import Run


def evaluation_curves(run: Run) -> list[Section]:
    """The evaluations on the way, every seed a line."""
    rows = [(row["step"], without_copies(row["evaluation"])) for row in run.evaluations]
    if len(rows) < 2:
        return []
    names = [name for name in rows[-1][1] if all(name in found for _, found in rows)]
    names = [
        name for name in names if not (name.endswith("return") and f"{name[:-6]}score" in names)
    ]  # a score is a return on a scale
    steps = np.asarray([step for step, _ in rows])
    drawn = {name: panels.Curve(steps, np.asarray([found[name] for _, found in rows], float)) for name in names}
    caption = f"Evaluations on the way, in the mode of the policies as they were then{_lines(run)}."
    content = panels.curves(drawn)
    return [Section("Evaluation while it learned", markup.image(content, "png", _alternative(drawn, "evaluation"), caption))]


def metric_sections(run: Run, rare: Collection[str] | None) -> list[Section]:
    """What the updates reported, every seed a line; of all stages that are in memory."""
    sections = []
    for stage in (*run.earlier, run):
        drawn, unsure = metric_curves(stage, rare if stage is run else None)
        if not drawn:
            continue
        caption = f"Means over the updates between two points{_lines(stage)}."
        if unsure:
            caption += f" Points at which {', '.join(unsure)} is exactly 0 in every seed are left out: most likely no update reported it there."
        if len(drawn) > panels.MOST:
            caption += f" {panels.MOST} of {len(drawn)} metrics are shown; metrics.jsonl has all."
        title = f"What {stage.name} reported" if run.earlier else "What the updates reported"
        content = panels.curves(drawn)
        sections.append(Section(title, markup.image(content, "png", _alternative(drawn, "metrics"), caption)))
    return sections


def metric_curves(run: Run, rare: Collection[str] | None) -> tuple[dict[str, panels.Curve], tuple[str, ...]]:
    """Every metric of a run as a curve, with gaps where `rare` ones were not reported; without knowing which these are, those are taken
    for it that are exactly 0 in every seed at some points and not at others, and named."""
    steps = np.asarray([row["step"] for row in run.metrics])
    names = list(dict.fromkeys(name for row in run.metrics for name in row["metrics"]))
    none, drawn, unsure = [np.nan] * len(run.seeds), {}, []
    for name in names:
        values = np.asarray([row["metrics"].get(name) or none for row in run.metrics], float)
        quiet = np.all(values == 0.0, axis=1)
        if rare is None and quiet.any() and not quiet.all():
            unsure.append(name)
        if (rare is not None and name in rare) or name in unsure:
            values = np.where(quiet[:, None], np.nan, values)
        if np.isfinite(values).any():
            drawn[name] = panels.Curve(steps, values)
    return drawn, tuple(unsure)


def silent(run: Run, rare: Collection[str] | None) -> list[str]:
    """The metrics that no update reported."""
    reported = {name for row in run.metrics for name in told(row["metrics"], rare or ())}
    return sorted({name for row in run.metrics for name in row["metrics"]} - reported)


def _lines(run: Run) -> str:
    return ": a thin line for every seed, a thick one for their mean" if len(run.seeds) > 1 else ", of the one seed"


def without_copies(found: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation without scores that are the return by another name, as they are where a task has no scale."""
    copies = [name for name in found if name.endswith("score") and found.get(f"{name[:-5]}return") == found[name]]
    return {name: values for name, values in found.items() if name not in copies}


def _alternative(drawn: Mapping[str, panels.Curve], what: str) -> str:
    """The picture in words: where each curve began and ended."""
    ends = []
    for name, curve in drawn.items():
        means = curve.values[np.isfinite(curve.values).all(axis=1)].mean(axis=1)
        if len(means):
            ends.append(f"{name} from {number(float(means[0]))} to {number(float(means[-1]))}")
    return f"{what.capitalize()} over updates: {'; '.join(ends)}"
