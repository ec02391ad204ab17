"""`compare`: several learners on equal terms, with the statistics that such a comparison can bear."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from policylab.comparison import Comparison, Curve
from policylab.errors import BadInput
from policylab.evaluation.dynamics import dynamics_of, scale_of
from policylab.evaluation.task_scores import REPORT_KEY, trials_of
from policylab.hyperparameters import traced
from policylab.learner import Learner
from policylab.runs import Run
from policylab.source import Source
from policylab.task import Task
from policylab.training import check_fit, train
from policylab.tuning import FIRST_SEED, Grid, Tuned, candidates, choose


def compare(
    arms: Mapping[str, Learner],
    tasks: Sequence[Task | str],
    *,
    data: Mapping[str, Any] | str | None = None,
    seeds: int | Sequence[int] = 10,
    steps: int = 50_000,
    episodes: int = 50,
    tune: Grid | Mapping[str, Grid] | None = None,
    tuning_seeds: int = 3,
    tuning_episodes: int | None = None,
    level: float = 0.95,
    sample: bool = False,
    every: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
) -> Comparison:
    """Train every arm on every task with the same data, updates and seeds, and compare their last policies.

    `tasks` are tasks or their names; `data` names the dataset of all of them, or maps a task's name to a dataset's name, a
    path, a Recording or a Source. Policies play their mode (or `sample`) on `episodes` episodes per seed, the same ones for
    every arm and seed. With `tune` every arm first gets the same number of trials, on `tuning_seeds` seeds and on episodes of
    their own; one setting is chosen per arm for all tasks. With `every` the modes of the reported runs' policies are evaluated
    every so many updates, too, on episodes that no other number uses: learning curves, which decide nothing. With `out` every
    run is kept in `out/ARM/TASK`, and `resume` goes on there. The first arm is the one that the others are compared with.

    Raises `BadInput` before anything is trained if an arm cannot learn from these data, fewer than 2 seeds, or tasks whose
    scores have no common scale; `Diverged` if a reported run does.
    """
    numbers = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    places = _tasks(tasks)
    tuning = tuple(range(FIRST_SEED + max(numbers, default=0) + 1, FIRST_SEED + max(numbers, default=0) + 1 + tuning_seeds))
    _check(arms, places, numbers, tuning, episodes, tune)
    trials = {} if tune is None else candidates(arms, tune)
    sources = {name: _source(task, data, progress) for name, task in places.items()}
    for name, learner in arms.items():
        for source in sources.values():
            check_fit(learner, source, steps, {})
            _check_policy(name, learner, source)

    chosen: dict[str, Tuned | None] = dict.fromkeys(arms)
    for name in trials:
        options = {"steps": steps, "seeds": tuning, "episodes": tuning_episodes or episodes, "progress": progress}
        chosen[name] = choose(name, trials[name], places, sources, **options)

    metrics: dict[str, list[dict[str, np.ndarray]]] = {}
    curves: dict[str, dict[str, Curve]] = {}
    seconds: dict[str, float] = {}
    finals = {name: learner if (won := chosen[name]) is None else won.learner for name, learner in arms.items()}
    for name, learner in finals.items():
        started, metrics[name], curves[name] = time.perf_counter(), [], {}
        for task_name, task in places.items():
            folder = None if out is None else Path(out) / name.replace("/", "-") / task_name.replace("/", "-")
            run = train(
                learner, sources[task_name], steps=steps, seeds=numbers, out=folder, resume=resume, progress=progress,
                evaluate=None if every is None else task, every=every, episodes=episodes,
            )  # fmt: skip
            if every is not None:
                curves[name][task_name] = _curve(run)
            metrics[name].append(_per_seed(run, task, episodes, not sample))
        seconds[name] = time.perf_counter() - started
    return Comparison(
        learners=finals,
        tuned=chosen,
        tasks=tuple(places),
        scales=tuple(scale_of(task) for task in places.values()),
        dynamics=tuple(dynamics_of(task) for task in places.values()),
        scored=all(task.reference for task in places.values()),
        data=tuple(_data_name(name, data) for name in places),
        seeds=numbers,
        tuning_seeds=tuning if trials else (),
        steps=steps,
        episodes=episodes,
        action="sampled" if sample else "mode",
        level=level,
        metrics={
            name: {metric: np.stack([row[metric] for row in rows], axis=1) for metric in rows[0]}
            for name, rows in metrics.items()
        },
        seconds=seconds,
        curves=curves if every is not None else {},
    )


def _tasks(tasks: Sequence[Task | str]) -> dict[str, Task]:
    from policylab.tasks import load_task

    found = [load_task(task) if isinstance(task, str) else task for task in tasks]
    if not found or len({task.name for task in found}) < len(found):
        raise BadInput(f"the tasks are {', '.join(task.name for task in found) or 'none'}: give at least one, each once")
    return {task.name: task for task in found}


def _check(
    arms: Mapping[str, Learner],
    tasks: Mapping[str, Task],
    seeds: Sequence[int],
    tuning: Sequence[int],
    episodes: int,
    tune: Any,
) -> None:
    if len(arms) < 2:
        raise BadInput(f"{len(arms)} arm given: a comparison needs a first arm and at least one more")
    if len(set(seeds)) < max(2, len(seeds)) or min(seeds) < 0:
        raise BadInput(f"the seeds are {list(seeds)}: give at least 2 different numbers from 0 on, better 10")
    if episodes < 1:
        raise BadInput(f"episodes is {episodes}: give at least 1 per seed")
    if tune is not None and not tuning:
        raise BadInput("tuning_seeds is 0: tuning needs seeds of its own, at least 1")
    unscored = [name for name, task in tasks.items() if not task.reference]
    if len(tasks) > 1 and unscored:
        raise BadInput(
            f"{unscored[0]} has no reference returns, so its returns cannot be averaged with scores of other tasks: compare on "
            f"it alone"
        )


def _source(task: Task, data: Mapping[str, Any] | str | None, progress: bool) -> Source:
    from policylab.data.loading import load
    from policylab.data.recording import Recording
    from policylab.sources.dataset import Dataset
    from policylab.tasks.recordings import task_recording

    given = data.get(task.name) if isinstance(data, Mapping) else data
    if given is None and isinstance(data, Mapping):
        raise BadInput(f"there are no data for {task.name}: name them, as in data={{{task.name!r}: 'mixed'}}")
    if given is None and len(task.datasets) == 1:
        given = next(iter(task.datasets))
    if isinstance(given, Source):
        given.spec.require(task.spec, ours="the data", theirs=task.name)
        return given
    if isinstance(given, Recording):
        given.spec.require(task.spec, ours="the data", theirs=task.name)
        return Dataset.of(given)
    if given is None or given in task.datasets or not Path(given).expanduser().exists():
        return Dataset.of(task_recording(task, given if given is None else str(given), progress=progress))
    return Dataset.of(load(given, environment=task.spec))


def _data_name(task: str, data: Mapping[str, Any] | str | None) -> str:
    given = data.get(task) if isinstance(data, Mapping) else data
    return str(given) if isinstance(given, str | Path) else getattr(given, "name", "") or "its data"


def _check_policy(name: str, learner: Learner, source: Source) -> None:
    live = traced(learner)
    offered = jax.eval_shape(lambda key: live.products(live.init(source.spec, key=key)), jax.random.key(0))
    if "policy" not in offered:
        raise BadInput(f"{name} learns no policy: it offers {', '.join(offered)}; compare learners that do")


def _curve(run: Run) -> Curve:
    rows = run.evaluations
    values = np.asarray([row["evaluation"]["score"] for row in rows], float)
    return Curve(np.asarray([row["step"] for row in rows], int), values.reshape(len(rows), len(run.seeds)))


def _per_seed(run: Run, task: Task, episodes: int, mode: bool) -> dict[str, np.ndarray]:
    trials = trials_of(run, task, episodes=episodes, key=REPORT_KEY, mode=mode)
    rows = [task.metric(trials.where(trials.seed == seed)) for seed in run.seeds]
    return {metric: np.asarray([row[metric] for row in rows]) for metric in rows[0]}
