"""The report of a comparison: arms and differences with their intervals, every seed, what tuning tried, and how to repeat it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policylab.comparison import Comparison
from policylab.reporting import markup, panels
from policylab.reporting.markup import Section, number
from policylab.reporting.page import Report, Row, write_report
from policylab.reporting.settings import shown
from policylab.runs import versions

_WORDS = ("95% interval", "over", "IQM", "optimality gap", "p by Holm")


def report_comparison(found: Comparison, path: str | Path, *, repeat: str = "", folder: Path | None = None) -> Path:
    """Write a page about a comparison to `path`. `folder` is where its runs are, `repeat` the command that gives it again.

    Raises `BadInput` if the report's extra is not installed.
    """
    reference, *others = found.learners
    unit = "score" if found.scored else "return"
    scales = list(dict.fromkeys(found.scales))
    page = Report(
        f"policylab: {', '.join([reference, *others])}", _verdict(found), _evidence(found), unit,
        confirmed=_arms(found), level=found.level, differences=_differences(found),
        expected=("The arms", f"The last policies, over seeds{' and tasks' if len(found.tasks) > 1 else ''}; {'; '.join(scales)}."),
        paired=f"Each arm minus {reference}, paired: the same seeds and the same episodes for both. The intervals hold together with "
        f"{found.level:.0%}; verdicts follow p by Holm, which is the sharper of the two.",
        found=[_picture(found, unit), *_by_task(found), *_every_seed(found, unit)],
        background=[*_curves(found, unit), _tuning(found), _settings(found)],
        glossary=[word for word in _WORDS if found.scored or word != "optimality gap"], repeat=repeat or _call(found), facts=_facts(found, folder),
    )  # fmt: skip
    return write_report(path, page)


def _verdict(found: Comparison) -> str:
    reference = next(iter(found.learners))
    words = [f"{row.arm} is {row.verdict} ({_signed(row.difference)}, p = {row.adjusted_p:.2g})" for row in found.differences]
    return f"Against {reference}: {'; '.join(words)}."


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else '−'}{number(abs(value))}"


def _evidence(found: Comparison) -> str:
    tasks = ", ".join(f"{task} ({data})" for task, data in zip(found.tasks, found.data, strict=True))
    played = "sampling their actions" if found.action == "sampled" else "in their mode"
    words = [
        f"{len(found.learners)} arms on {tasks}: {len(found.seeds)} training seeds with {found.steps:,} updates each; the last policies "
        f"played {found.episodes} whole episodes per seed{' and task' if len(found.tasks) > 1 else ''}, {played}, the same for all arms."
    ]
    if found.tuning_seeds:
        trials = len(next(row for row in found.tuned.values() if row is not None).trials)
        words.append(f"Every arm was tuned with {trials} trials, on {len(found.tuning_seeds)} seeds and episodes of their own.")
    if len(found.seeds) < 5:
        words.append(f"{len(found.seeds)} seeds leave wide intervals: ten tell arms apart that five do not.")
    return " ".join(words)


def _arms(found: Comparison) -> tuple[Row, ...]:
    labels = {"iqm": "IQM", "median": "median", "optimality_gap": "optimality gap"}
    units = f"{len(found.seeds)} seeds{f', {len(found.tasks)} tasks' if len(found.tasks) > 1 else ''}"
    rows = []
    for name in found.learners:
        numbers = found.aggregates[name]
        extra = {words: _figure(numbers[label]) for label, words in labels.items() if label in numbers and _told(label, found)}
        rows.append(Row(name, numbers["mean"].value, numbers["mean"].interval, units, extra=extra))
    return tuple(rows)


def _told(label: str, found: Comparison) -> bool:
    return label != "median" or len(found.tasks) > 1


def _figure(figure: Any) -> str:
    return f"{number(figure.value)} [{number(figure.interval[0])}, {number(figure.interval[1])}]"


def _differences(found: Comparison) -> tuple[Row, ...]:
    rows = []
    for row in found.differences:
        better = f"a run of it beats one of {row.reference} with a probability of {_figure(found.improvement[row.arm])}"
        note = f"{row.verdict}, p = {row.adjusted_p:.2g} by Holm; {better}"
        rows.append(Row(f"{row.arm} minus {row.reference}", row.difference, row.interval, f"{row.units} seeds", note=note))
    return tuple(rows)


def _picture(found: Comparison, unit: str) -> Section:
    """Every seed of every arm: over all tasks, and task by task."""
    drawn, means, said = {}, {}, []
    if len(found.tasks) > 1:
        drawn["all tasks"] = {name: table.mean(axis=1) for name, table in found.scores.items()}
        means["all tasks"] = [
            (row["mean"].value, *row["mean"].interval) for row in (found.aggregates[name] for name in found.learners)
        ]
    by_task = {name: found.by_task(name) for name in found.learners}
    for column, task in enumerate(found.tasks):
        drawn[task] = {name: table[:, column] for name, table in found.scores.items()}
        means[task] = [(row[column].value, row[column].low, row[column].high) for row in by_task.values()]
    for name, rows in means.items():
        arms = (
            f"{arm} {number(mean)} ({number(low)} to {number(high)})" for arm, (mean, low, high) in zip(found.learners, rows)
        )
        said.append(f"{name}: {', '.join(arms)}")
    caption = f"Each dot is a training seed; the diamond is the mean, the line its {found.level:.0%} interval, uncorrected and unpaired."
    alternative = f"{unit.capitalize()}s by arm. {'; '.join(said)}"
    return Section("Every seed", markup.image(panels.scores(drawn, means, unit), "png", alternative, caption))


def _by_task(found: Comparison) -> list[Section]:
    if len(found.tasks) < 2:
        return []
    rows = []
    for name in found.learners:
        rows.append([name, *(f"{number(r.value)} [{number(r.low)}, {number(r.high)}]" for r in found.by_task(name))])
    return [Section("Task by task", markup.table(["", *found.tasks], rows, caption="Mean and interval, uncorrected."))]


def _every_seed(found: Comparison, unit: str) -> list[Section]:
    tables = []
    for column, task in enumerate(found.tasks):
        arms = [found.scores[name][:, column] for name in found.learners]
        rows = [[str(seed), *(number(float(values[place])) for values in arms)] for place, seed in enumerate(found.seeds)]
        tables.append(markup.folded(f"{unit}s of all seeds on {task}", markup.table(["seed", *found.learners], rows)))
    return [Section("", "".join(tables))]


def _curves(found: Comparison, unit: str) -> list[Section]:
    """The learning curves, task by task, if they were recorded."""
    pictures = []
    for task in found.tasks:
        # Runs that were finished without evaluations and are only read again have no points.
        curves = {name: tasks[task] for name, tasks in found.curves.items() if task in tasks and len(tasks[task].steps) > 1}
        if not curves:
            continue
        ends = (f"{name} from {number(c.values[0].mean())} to {number(c.values[-1].mean())}" for name, c in curves.items())
        caption = (
            f"{task}, in the mode of the policies as they were then, on episodes that no other number uses: a thin line for every seed, a "
            "thick one for their mean with the band of its 95% Student t interval. Nothing is decided by these curves."
        )
        pictures.append(
            markup.image(panels.arm_curves(curves, unit), "png", f"Learning curves on {task}: {'; '.join(ends)}", caption)
        )
    return [Section("Learning curves", "".join(pictures))] if pictures else []


def _tuning(found: Comparison) -> Section:
    """Every trial of every arm, so that a reader sees that all had as many."""
    if not found.tuning_seeds:
        return Section("Tuning", markup.soft("Nothing was tuned here: every arm ran with the settings that it was given."))
    seeds = ", ".join(map(str, found.tuning_seeds))
    body = markup.soft(
        f"Seeds {seeds}, and episodes that no reported number uses. The trial with the best mean was taken; its number flatters it and is "
        "not the result."
    )
    for name, tuned in found.tuned.items():
        if tuned is None:
            continue
        rows = []
        for trial in tuned.trials:
            settings = ", ".join(f"{setting}={shown(value)}" for setting, value in trial["settings"].items())
            score = f"diverged: {trial['diverged']}" if trial["score"] is None else number(trial["score"])
            rows.append([settings, score, "chosen" if trial["chosen"] else ""])
        body += markup.table([f"{name}: {len(rows)} trials", "mean", ""], rows, numbers=False)
    return Section("Tuning", body)


def _settings(found: Comparison) -> Section:
    rows = [[name, shown(learner)] for name, learner in found.learners.items()]
    caption = "With the settings that differ from the defaults, those of tuning among them."
    return Section("The arms' settings", markup.table(["arm", "learner"], rows, caption=caption, numbers=False))


def _facts(found: Comparison, folder: Path | None) -> dict[str, str]:
    facts = {
        "seeds": ", ".join(map(str, found.seeds)), "updates": f"{found.steps:,} of every run", "episodes": f"{found.episodes} per seed and task",
        "action": found.action, "dynamics": ", ".join(dict.fromkeys(found.dynamics)),
        "intervals": f"{next(iter(found.aggregates.values()))['mean'].method} for arms; differences are paired by seed",
        **{f"time of {name}": f"{seconds:,.1f} s, training and evaluation" for name, seconds in found.seconds.items()},
    }  # fmt: skip
    if folder is not None:
        facts["runs"] = f"{folder}/ARM/TASK, each with its metrics; all numbers are in {folder}/comparison.json"
    return facts | versions()


def _call(found: Comparison) -> str:
    """The call that trains and compares the reported runs again, in the settings that tuning chose."""
    arms = ", ".join(f"{name!r}: {shown(learner, python=True)}" for name, learner in found.learners.items())
    data = ", ".join(f"{task!r}: {name!r}" for task, name in zip(found.tasks, found.data, strict=True))
    more = ", sample=True" if found.action == "sampled" else ""
    more += f", level={found.level}" if found.level != 0.95 else ""
    tuned = "# the reported runs, with the settings that tuning chose\n" if found.tuning_seeds else ""
    return (
        f"{tuned}lab.compare({{{arms}}}, {list(found.tasks)}, data={{{data}}}, seeds={list(found.seeds)}, steps={found.steps}, "
        f"episodes={found.episodes}{more})"
    )
