"""The strongest evidence: policies are tried in the environment, and the winner is trained and tried once more."""

from __future__ import annotations

from typing import Any

import numpy as np

from policylab.errors import BadInput
from policylab.evaluation.dynamics import dynamics_of
from policylab.evaluation.statistics import Interval, interval, paired_differences, wilson
from policylab.evaluation.task_scores import REPORT_KEY, SELECTION_KEY, trials_of
from policylab.evidence.kinds import Evidence
from policylab.evidence.plan import CLONES, Plan, Problem
from policylab.experience import Trials
from policylab.progress import Progress
from policylab.reporting.page import Row, number
from policylab.runs import Run
from policylab.sources.dataset import Dataset
from policylab.task import Task
from policylab.training import train


def judge(problem: Problem, plan: Plan) -> Evidence:
    """Train every method, choose by the mean on the selection seeds, retrain the winner on fresh seeds and try it afresh."""
    task, dataset = problem.task, Dataset.of(problem.recording)
    assert task is not None
    problem.recording.spec.require(task.spec, ours="the data", theirs=task.name)
    runs, chosen_by = {}, {}
    for name, learner in plan.learners.items():
        run = train(
            learner, dataset, steps=plan.steps, seeds=plan.selection, evaluate=task, every=max(1, plan.steps // 4),
            episodes=max(5, plan.episodes // 2), progress=problem.progress,
        )  # fmt: skip
        runs[name] = run
        chosen_by[name] = trials_of(run, task, episodes=plan.episodes, key=SELECTION_KEY + problem.seed)
    selection = {name: _scores(task, trials) for name, trials in chosen_by.items()}
    winner = max(selection, key=lambda name: selection[name].mean())
    clones = [name for name in CLONES if name in selection]
    # Among equals the winner stays, so that a cloning method that wins is never compared with another one.
    baseline = max(clones, key=lambda name: (selection[name].mean(), name == winner)) if clones else None

    problem.facts["selection seeds"] = ", ".join(map(str, plan.selection))
    problem.facts["fresh seeds"] = ", ".join(map(str, plan.fresh))
    problem.facts["dynamics"] = dynamics_of(task)
    confirmed: dict[str, tuple[Run, Trials]] = {}
    for name in dict.fromkeys([winner, *([baseline] if baseline else [])]):
        run = train(plan.learners[name], dataset, steps=plan.steps, seeds=plan.fresh, progress=problem.progress)
        trials = trials_of(run, task, episodes=plan.report_episodes, key=REPORT_KEY + problem.seed)
        confirmed[name] = (run, trials)
    fresh = {name: _scores(task, trials) for name, (_, trials) in confirmed.items()}

    run, trials = confirmed[winner]
    ship = min(run.seeds)
    return Evidence(
        kind="environment",
        winner=winner,
        verdict=_verdict(winner, baseline, fresh, unit(task), _extras(confirmed[winner][1])),
        words=(
            "Every policy was tried in the environment. The numbers below come from seeds and episodes that took no part in choosing "
            f"the winner: {len(plan.fresh)} fresh trainings, {plan.report_episodes} fresh episodes each, always the last checkpoint. "
            f"The saved policy is that of seed {ship}, the lowest fresh seed, not the best one."
            + (f" {task.caution}" if task.caution else "")
        ),
        unit=unit(task),
        confirmed=(
            *(_row(name, values, winner == name, confirmed[name][1]) for name, values in fresh.items()),
            _shipped_row(task, trials.where(trials.seed == ship), ship),
        ),
        selection=tuple(_row(name, values, name == winner, chosen_by[name]) for name, values in selection.items()),
        differences=_differences(winner, baseline, fresh),
        curves={name: _curve(run) for name, run in runs.items()},
        profile={name: task.score(trials.outcome) for name, (_, trials) in confirmed.items()},
        frames=rollout_frames(run, ship, task, problem),
        shipped=(winner, run, ship),
        saved={winner: run},
    )


def unit(task: Task) -> str:
    """What a task's scores are called."""
    return f"score ({task.scale})" if task.reference else "return"


def _scores(task: Task, trials: Trials) -> np.ndarray:
    """The mean score of each seed."""
    return np.asarray([task.score(trials.outcome[trials.seed == seed]).mean() for seed in np.unique(trials.seed)])


def _extras(trials: Trials) -> dict[str, str]:
    if not np.all(np.isfinite(trials.success)):
        return {}
    reached = int(trials.success.sum())
    found = wilson(reached, len(trials))
    return {"successes": f"{reached} of {len(trials)} ({found.low:.0%} to {found.high:.0%})"}


def _row(name: str, values: np.ndarray, winner: bool, trials: Trials) -> Row:
    found = _interval(values)
    return Row(
        name, found.value, (found.low, found.high), f"{len(values)} seeds", note=_width(values), winner=winner,
        extra=_extras(trials),
    )  # fmt: skip


def _width(values: np.ndarray) -> str:
    """What to know of an interval without width."""
    return "all equal, so this interval has no width: it does not say that nothing varies" if np.ptp(values) == 0 else ""


def _interval(values: np.ndarray) -> Interval:
    if np.ptp(values) == 0:  # Student's t of equal numbers has no width; say so rather than divide by 0
        return Interval(float(values[0]), float(values[0]), float(values[0]), 0.95, len(values), "student")
    return interval(values)


def _shipped_row(task: Task, trials: Trials, seed: int) -> Row:
    scores = np.asarray(task.score(trials.outcome), float)
    found = _interval(scores)
    return Row(
        f"saved policy (seed {seed})", found.value, (found.low, found.high), f"{len(scores)} episodes",
        note="; ".join(filter(None, ("this one policy, over episodes", _width(scores)))), extra=_extras(trials),
    )  # fmt: skip


def _differences(winner: str, baseline: str | None, fresh: dict[str, np.ndarray]) -> tuple[Row, ...]:
    if baseline is None or baseline == winner:
        return ()
    (found,) = paired_differences({baseline: fresh[baseline], winner: fresh[winner]})
    words = {
        "better": "better than the baseline",
        "worse": "worse than the baseline",
        "undecided": "not decided by these seeds",
    }
    return (
        Row(f"{winner} minus {baseline}", found.difference, found.interval, f"{found.units} seeds", note=words[found.verdict]),
    )


def _verdict(winner: str, baseline: str | None, fresh: dict[str, np.ndarray], unit: str, extras: dict[str, str]) -> str:
    mine = _interval(fresh[winner])
    what, bracket, scale = unit.partition(" (")
    told = (
        f"The best method is {winner}: {what} {number(mine.value)}{bracket}{scale}, 95% interval {number(mine.low)} to "
        f"{number(mine.high)}"
    )
    if "successes" in extras:
        told += f", successes in {extras['successes']} of the fresh episodes"
    if baseline is None:
        return told + "."
    if baseline == winner:
        return told + ". It is a cloning method itself: on the selection seeds nothing that learns values did better."
    (found,) = paired_differences({baseline: fresh[baseline], winner: fresh[winner]})
    gap = f"{number(found.difference)} ({number(found.interval[0])} to {number(found.interval[1])})"
    bar = _interval(fresh[baseline]).low
    beats = "beats" if mine.value > bar else "does not beat"
    sure = {"better": "a sure gain", "worse": "a sure loss", "undecided": "not a sure gain"}[found.verdict]
    return f"{told}. It {beats} the lower bound of the best cloning baseline, {baseline}; the difference is {gap}, {sure}."


def _curve(run: Run) -> dict[str, Any]:
    rows = run.evaluations
    return {"steps": [row["step"] for row in rows], "values": np.asarray([row["evaluation"]["score"] for row in rows])}


def rollout_frames(run: Run, seed: int, task: Task, problem: Problem) -> list[np.ndarray]:
    """Frames of one episode of the shipped policy; none where the environment cannot be drawn on this machine."""
    from policylab.evaluation import frames

    bar = Progress("drawing a rollout", 1, enabled=problem.progress)
    try:
        found = frames.frames(run.policy(seed=seed).mode(), task.environment(), seed=problem.seed)
    except BadInput as reason:
        problem.facts["rollout"] = f"not drawn: {reason}"
        return []
    bar.advance(1)
    return found
