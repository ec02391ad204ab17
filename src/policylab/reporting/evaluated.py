"""The report of an evaluation: what a policy earns, how it moves, and what goes on inside of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from policylab.environment import Environment
from policylab.errors import BadInput
from policylab.evaluation.dynamics import dynamics_of
from policylab.evaluation.frames import frames
from policylab.evaluation.rollouts import evaluate
from policylab.evaluation.statistics import interval, wilson
from policylab.evaluation.task_scores import REPORT_KEY, modes
from policylab.experience import Trials
from policylab.policy import Policy
from policylab.reporting import markup
from policylab.reporting.insides import insides, insightful, middle_of_an_episode
from policylab.reporting.markup import Section
from policylab.reporting.page import Report, Row, number, write_report
from policylab.reporting.trained import Background, about
from policylab.runs import Run, versions
from policylab.task import Task


def report_evaluation(
    policy: Policy | Run,
    where: Task | Environment,
    path: str | Path,
    *,
    episodes: int = 20,
    seed: int = 0,
    sample: bool = False,
    horizon: int = 0,
    trials: Trials | None = None,
    repeat: str = "",
) -> Path:
    """Let a policy, a planner or all seeds of a run play `episodes` whole episodes each and write a page about it to `path`.

    The page holds the mean with its interval (over the seeds of a run, over the episodes of a single policy), a run's learning curve,
    one episode as a film, and what there is inside: how a diffusion policy makes an action of noise, which plans a planner tries, the
    tree of its search, the archive of quality-diversity. `sample` lets policies sample instead of playing their mode. Give `trials`
    where the episodes were played already. Raises `BadInput` where policy and environment do not fit.
    """
    task = where if isinstance(where, Task) else None
    environment = where.environment() if isinstance(where, Task) else where
    if isinstance(policy, Run):
        many = policy.products()["policy"]
        many = many if sample else modes(many)
    else:
        many = jax.tree.map(lambda leaf: leaf[None], policy if sample else policy.mode())
    seeds = policy.seeds if isinstance(policy, Run) else (0,)
    name = policy.name if isinstance(policy, Run) else type(policy).__name__
    if trials is None:
        key = jax.random.fold_in(jax.random.key(REPORT_KEY), seed)
        trials = evaluate(many, environment, episodes=episodes, seeds=seeds, key=key, horizon=horizon, name=name)
    else:
        name = str(trials.policy[0])
    one = policy.policy() if isinstance(policy, Run) else policy
    products = policy.products(seed=seeds[0]) if isinstance(policy, Run) else {}
    facts: dict[str, str] = {"action": "sampled" if sample else "the mode"}
    if task is not None:
        facts["dynamics"] = dynamics_of(task)
    moment = middle_of_an_episode(one, environment, seed=seed, horizon=horizon) if insightful(one) else None
    pictures, missing = insides(one, moment, products, key=jax.random.key(seed))
    facts |= {f"no picture {count + 1}": sentence for count, sentence in enumerate(missing)}
    film, facts = _film(one if sample else one.mode(), environment, seed, horizon, facts)
    graded = isinstance(task, Task) and bool(task.reference)
    score = task.score if task is not None and graded else np.asarray
    unit = f"score ({task.scale})" if task is not None and graded else "return"
    rows = _rows(trials, score, name, seeds)
    place = task.name if task is not None else environment.spec.environment or type(environment).__name__
    page = Report(
        f"policylab: {name} on {place}",
        _verdict(rows[0], name, place, unit),
        f"{f'{len(seeds)} training seeds' if len(seeds) > 1 else 'One policy'}, {len(trials) // len(seeds)} whole episodes"
        + (" each." if len(seeds) > 1 else ".")
        + (f" {task.caution}" if task is not None and task.caution else ""),
        unit, confirmed=rows, curves=_curves(policy, name, unit), profile={name: np.asarray(score(trials.outcome), float)},
        expected=("What it earns", "Nothing was learned from these episodes or chosen by them."),
        frames=film, insides=pictures, repeat=repeat, facts={**facts, **versions()}, every_seed=True,
        glossary=("95% interval", "over"),
        found=_every_seed(trials, score, seeds, unit), background=about(policy, Background()) if isinstance(policy, Run) else (),
    )  # fmt: skip
    return write_report(path, page)


def _every_seed(trials: Trials, score: Any, seeds: tuple[int, ...], unit: str) -> list[Section]:
    """What each seed of a run earned, if there are several."""
    if len(seeds) < 2:
        return []
    scores = np.asarray(score(trials.outcome), float)
    rows = [[str(one), number(float(scores[trials.seed == one].mean()))] for one in seeds]
    return [Section("", markup.folded("every seed", markup.table(["seed", unit.partition(" (")[0]], rows)))]


def _film(
    policy: Policy, environment: Environment, seed: int, horizon: int, facts: Mapping[str, str]
) -> tuple[list[np.ndarray], dict[str, str]]:
    """Frames of one episode, and the facts; none where the environment cannot be drawn here, and the facts say so."""
    try:
        return frames(policy, environment, seed=seed, horizon=horizon), dict(facts)
    except BadInput as reason:
        return [], {**facts, "rollout": f"not drawn: {reason}"}


def _rows(trials: Trials, score: Any, name: str, seeds: tuple[int, ...]) -> tuple[Row, ...]:
    """The policy's line: over seeds where there are several, else over episodes."""
    scores = np.asarray(score(trials.outcome), float)
    values = np.asarray([scores[trials.seed == one].mean() for one in seeds]) if len(seeds) > 1 else scores
    ends = None
    if len(values) > 1 and np.ptp(values) > 0:
        found = interval(values)
        ends = (found.low, found.high)
    units = f"{len(values)} {'seeds' if len(seeds) > 1 else 'episodes'}"
    row = Row(name, float(values.mean()), ends, units)
    if np.all(np.isfinite(trials.success)):
        reached = int(trials.success.sum())
        rate = wilson(reached, len(trials))
        row = replace(row, extra={"successes": f"{reached} of {len(trials)} ({rate.low:.0%} to {rate.high:.0%})"})
    return (row,)


def _verdict(row: Row, name: str, place: str, unit: str) -> str:
    what, bracket, scale = unit.partition(" (")
    told = f"{name} on {place}: {what} {number(row.value)}{bracket}{scale}"
    return told + (f", 95% interval {number(row.interval[0])} to {number(row.interval[1])}." if row.interval else ".")


def _curves(policy: Policy | Run, name: str, unit: str) -> dict[str, dict[str, Any]]:
    """A run's evaluations on its way, if it has several in this unit."""
    wanted = "return" if unit == "return" else "score"
    rows = [row for row in policy.evaluations if wanted in row["evaluation"]] if isinstance(policy, Run) else []
    if len(rows) < 2:
        return {}
    return {name: {"steps": [row["step"] for row in rows], "values": np.asarray([row["evaluation"][wanted] for row in rows])}}
