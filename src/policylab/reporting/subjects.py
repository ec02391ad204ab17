"""`report`: one function for a page about a policy, a run or a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, overload

from policylab.comparison import Comparison
from policylab.data.recording import Recording
from policylab.environment import Environment
from policylab.errors import BadInput
from policylab.evaluation.occasional import occasional
from policylab.experience import Trials
from policylab.policy import Policy
from policylab.reporting.compared import report_comparison
from policylab.reporting.evaluated import report_evaluation
from policylab.reporting.trained import Background, report_training
from policylab.runs import Run
from policylab.source import Source
from policylab.sources.dataset import Dataset
from policylab.task import Task


@overload
def report(subject: Comparison | Run, where: str | Path) -> Path: ...
@overload
def report(subject: Run, where: Recording | Source, path: str | Path) -> Path: ...
@overload
def report(
    subject: Policy | Run,
    where: Task | Environment,
    path: str | Path,
    *,
    episodes: int = 20,
    seed: int = 0,
    sample: bool = False,
    horizon: int = 0,
    trials: Trials | None = None,
    repeat: str = "",
) -> Path: ...
def report(subject: Any, where: Any, path: str | Path | None = None, **settings: Any) -> Path:
    """Write a page to a file, with everything in it, and return its place.

    `report(policy, task, "page.html")` lets a policy, a planner or all seeds of a run play `episodes` whole episodes each, in a task or an
    environment, and tells what they earn, with an interval over the seeds of a run or the episodes of a single policy, one episode as a film,
    and what there is inside: how a diffusion policy makes an action of noise, which plans a planner tries, the tree of its search, the
    archive of quality-diversity. Of a run it tells how it was trained, too. `sample` lets policies sample instead of playing their mode;
    `trials` are episodes that were played already; `seed` draws the starts; `horizon` cuts the episodes.

    `report(run, "page.html")` plays nothing: it tells what the run holds, its last evaluation and its curves with every seed. Give what it
    learned from, `report(run, recording, "page.html")`, to see inside its policy, and to know which metrics only some updates report.

    `report(comparison, "page.html")` tells what `compare` found, with every seed and every trial of tuning.

    Raises `BadInput` where policy and environment do not fit, or if the report's extra is not installed.
    """
    if path is None:
        if not isinstance(subject, Comparison | Run) or not isinstance(where, str | Path):
            raise BadInput('a page needs a place: lab.report(policy, task, "page.html"), or lab.report(run, "page.html")')
        _require_none(settings)
        return report_comparison(subject, where) if isinstance(subject, Comparison) else report_training(subject, where)
    if isinstance(subject, Comparison):
        raise BadInput('a comparison was played already: lab.report(comparison, "page.html") is all')
    if isinstance(where, Task | Environment):
        return report_evaluation(subject, where, path, **settings)
    if not isinstance(subject, Run) or not isinstance(where, Recording | Source):
        raise BadInput(
            f"a page about a {type(subject).__name__} on a {type(where).__name__} cannot be made: give a task or an environment to play in, "
            "or with a run what it learned from"
        )
    _require_none(settings)
    source = Dataset.of(where) if isinstance(where, Recording) else where
    recording = where if isinstance(where, Recording) else None
    name = recording.name if recording is not None and recording.name else ""
    return report_training(
        subject, path,
        Background(learned_from=name, facts=about_data(where), recording=recording, rare=occasional(subject.learner, source)),
    )  # fmt: skip


def _require_none(settings: Mapping[str, Any]) -> None:
    if settings:
        raise BadInput(f"{next(iter(settings))} is of episodes to play, and none are: give a task or an environment as well")


def about_data(source: Source | Recording) -> dict[str, str]:
    """What is learned from, in facts for a page."""
    if not isinstance(source, Recording):
        return {"source": type(source).__name__}
    rewards = "" if source.reward is not None else ", no rewards"
    return {"recorded": f"{source.episodes:,} episodes, {source.steps:,} steps{rewards}"}
