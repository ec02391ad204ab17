"""The one training loop: all seeds in one compiled program, in chunks, with checkpoints, metrics and evaluation between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from policylab import spaces
from policylab.compilation import enable_cache
from policylab.data.recording import Recording
from policylab.environments.hosted import explained
from policylab.errors import BadInput, Diverged
from policylab.hyperparameters import check, traced
from policylab.learner import Learner
from policylab.program import NEVER, advance, initialise, resume
from policylab.progress import Progress
from policylab.runs import PerSeed, Run, RunFolder
from policylab.source import Source
from policylab.sources.dataset import Dataset


@dataclass(frozen=True)
class Stage:
    """One program of several: a learner, its source and its number of updates; `given` adds trained things by name."""

    learner: Learner
    source: Source | Recording
    steps: int
    given: Mapping[str, Any] = field(default_factory=dict)


def train(
    learner: Learner | Run | Sequence[Stage],
    source: Source | Recording | None = None,
    *,
    steps: int = 0,
    seeds: int | Sequence[int] = 1,
    evaluate: Any = None,
    every: int | None = None,
    episodes: int = 20,
    given: Mapping[str, Any] = {},
    out: str | Path | None = None,
    resume: bool = False,
    checkpoint_every: int | None = None,
    trackers: Sequence[Callable[[dict[str, Any]], None]] = (),
    until: Callable[[Mapping[str, Any]], bool] | None = None,
    progress: bool = False,
) -> Run:
    """Train `learner` on `source` for `steps` updates, all `seeds` at once, and return the Run. A Recording is a source, too.

    `seeds` is a number (0 ... n-1) or a list. `evaluate` is a task, a dict of tasks, or `measure(products, *, key) -> dict` called
    once per seed; it runs every `every` steps and at the end, a task on `episodes` episodes. `given` holds trained things by name.
    With `out`, metrics stream to `out/metrics.jsonl` and an atomic checkpoint is written every `checkpoint_every` steps (a tenth of
    the run by default); `resume=True` goes on from it and ends, to the bit, where the uninterrupted run would have. (Simulators that
    cannot be stored begin new episodes then, and the next row of metrics says so: `fresh_episodes`.) `until(row)` is asked of every row
    of metrics and ends the run where it says True. `learner` may be a finished Run, which goes on from its state on a new source, or a
    list of stages.

    Raises `BadInput` for settings out of range, data that lack what the learner needs, or a checkpoint of another run or data, and
    `Diverged` at the first non-finite metric, naming it, the seed and the step; the last checkpoint is kept.
    """
    if resume and out is None:
        raise BadInput("resume needs the folder of the run: give out= as well")
    options = Options(seeds, evaluate, every, episodes, resume, checkpoint_every, tuple(trackers), until, progress)
    if isinstance(learner, Sequence):
        return _train_stages(learner, given, out, options)
    if source is None:
        raise BadInput("train needs a source: a dataset, as in lab.train(lab.IQL(), task.dataset('mixed'), steps=10_000)")
    before = None
    if isinstance(learner, Run):
        before, learner = learner, learner.learner
    return _train_one(Stage(learner, source, steps, given), out, options, before=before)


@dataclass(frozen=True)
class Options:
    """How to train, whatever is trained: the arguments of `train` by the same names."""

    seeds: int | Sequence[int]
    evaluate: Any
    every: int | None
    episodes: int
    resume: bool
    checkpoint_every: int | None
    trackers: tuple[Callable[[dict[str, Any]], None], ...]
    until: Callable[[Mapping[str, Any]], bool] | None
    progress: bool

    def enough(self, row: Mapping[str, Any]) -> bool:
        """Whether the run ends with this row of metrics."""
        return self.until is not None and self.until(row)

    def seed_numbers(self) -> tuple[int, ...]:
        """The list of seeds; raises `BadInput` if it is empty or repeats itself."""
        numbers = tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)
        if not numbers or len(set(numbers)) < len(numbers) or min(numbers) < 0:
            raise BadInput(f"seeds is {self.seeds!r}: give how many, at least 1, or a list of different numbers from 0 on")
        return numbers


def _train_stages(stages: Sequence[Stage], given: Mapping[str, Any], out: str | Path | None, options: Options) -> Run:
    run, offered = None, {}
    for number, stage in enumerate(stages):
        # A stage may take what the stages before it have made, the latest of each name; what the caller gives by name comes first.
        taken = {name: value for name, value in {**offered, **stage.given, **given}.items() if name in stage.learner.takes}
        folder = None if out is None else Path(out) / f"stage-{number}"
        run = _train_one(replace(stage, given=taken), folder, options, after=run)
        offered |= {name: PerSeed(product) for name, product in run.products().items()}
        if "policy" in offered:
            offered["start"] = offered["policy"]
    if run is None:
        raise BadInput("the list of stages is empty: give at least one Stage(learner, source, steps)")
    return run


def _train_one(
    stage: Stage, out: str | Path | None, options: Options, *, before: Run | None = None, after: Run | None = None
) -> Run:
    """One program. `before` is a run whose state goes on here, `after` the run of the stage before this one."""
    enable_cache()
    learner, steps = stage.learner, stage.steps
    source = Dataset.of(stage.source) if isinstance(stage.source, Recording) else stage.source
    check_fit(learner, source, steps, stage.given)
    seeds = before.seeds if before else options.seed_numbers()
    parent = before or after
    number, earlier = (parent.stage + 1, (*parent.earlier, parent)) if parent else (0, ())

    source = source.serve(learner.needs)
    live, keys = traced(learner), jnp.asarray(seeds, jnp.int32)
    differing = tuple(sorted(name for name, value in stage.given.items() if isinstance(value, PerSeed)))
    given = {name: value.value if isinstance(value, PerSeed) else value for name, value in stage.given.items()}
    if before:
        before.spec.require(source.spec, ours="the run", theirs="the source")
    with explained():
        carry = initialise(live, source, given, keys, jnp.asarray(number), differing, before.state if before else None)
    if before:  # its arrays are its own: those of the carry are given away, chunk by chunk
        carry = (jax.tree.map(jnp.copy, before.state), carry[1])

    run = Run(learner, source.spec, seeds, carry[0], stage=number, earlier=earlier, total=steps)
    if out is not None:
        run.fingerprint = source.fingerprint()
    folder, anew = None if out is None else RunFolder(Path(out), run), False
    if folder and options.resume:
        carry = folder.resume(carry)
        anew = run.step > 0 and not source.restorable
        if anew:
            with explained():
                carry = resume(live, source, carry, keys, jnp.asarray(number), jnp.asarray(run.step))
        run.state = carry[0]
    elif folder:
        folder.begin()

    log_every, save_every = max(1, steps // 100), options.checkpoint_every or max(1, steps // 10)
    bar = Progress(f"{run.name}, {len(seeds)} seeds", steps, enabled=options.progress)
    started = time.perf_counter()
    ended = bool(run.metrics) and options.enough(run.metrics[-1])  # so that a run that was resumed ends where it did
    while run.step < steps and not ended:
        stop = min(steps, *(_next_multiple(run.step, n) for n in (log_every, save_every, options.every) if n))
        with explained():
            carry, means, broken = advance(live, source, carry, keys, seeds, run.step, stop, steps, number)
        _stop_if_broken(broken, seeds)
        run.state, run.step = carry[0], stop
        row: dict[str, Any] = {"step": stop, "seconds": time.perf_counter() - started, "metrics": _listed(means)}
        if anew:  # the run says where it is not the uninterrupted one
            row["fresh_episodes"], anew = True, False
        if options.evaluate is not None and (stop == steps or (options.every and stop % options.every == 0)):
            row["evaluation"] = measure(options.evaluate, run, options.episodes)
        run.metrics.append(row)
        for tracker in options.trackers:
            tracker(row)
        ended = options.enough(row)
        if folder:
            folder.append(row)
            if stop % save_every == 0 or stop == steps or ended:
                folder.checkpoint(carry)
        bar.advance(stop, {name: float(np.mean(value)) for name, value in means.items()})
    run.source_state = carry[1]
    return run


def check_fit(learner: Learner, source: Source, steps: int, given: Mapping[str, Any]) -> None:
    """Raise `BadInput` with one sentence if this learner cannot learn from this source."""
    check(learner)
    name = type(learner).__name__
    if steps < 1:
        raise BadInput(f"steps is {steps}: give the number of updates, at least 1")
    kind = "discrete" if isinstance(source.spec.action, spaces.Discrete) else "continuous"
    if learner.actions not in ("any", kind):
        raise BadInput(
            f"{name} learns {learner.actions} actions but these are {spaces.describe(source.spec.action)}: "
            f"choose a learner for {kind} actions (policylab learners lists them)"
        )
    if "reward" in learner.uses and not source.rewarded:
        raise BadInput(f"{name} needs rewards and these data have none: add a reward column, or choose BC, which needs none")
    if learner.on_policy and not source.on_policy:
        raise BadInput(
            f"{name} learns only from what its policy does now, and a {type(source).__name__} is no such source: "
            f"give it lab.Rollout(environment) (--online on the command line), or choose a learner of logged steps"
        )
    unknown = [key for key in given if key not in learner.takes]
    if unknown:
        raise BadInput(f"{name} takes no {unknown[0]!r}: it takes {', '.join(learner.takes) or 'nothing'}")


def measure(evaluate: Any, run: Run, episodes: int) -> dict[str, list[float]]:
    """Evaluate every seed's products; one list of per-seed numbers per name. Evaluation keys are those of no training step."""
    if isinstance(evaluate, Mapping):
        return {
            f"{prefix}/{name}": values
            for prefix, task in evaluate.items()
            for name, values in measure(task, run, episodes).items()
        }
    if not callable(evaluate):
        from policylab.evaluation.task_scores import evaluate_task

        return evaluate_task(evaluate, run, episodes=episodes)
    rows = [evaluate(run.products(seed=seed), key=jax.random.fold_in(jax.random.key(seed), NEVER - 1)) for seed in run.seeds]
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def _stop_if_broken(broken: Mapping[str, np.ndarray], seeds: Sequence[int]) -> None:
    step, name = min((int(steps.min()), name) for name, steps in broken.items())
    if step < NEVER:
        seed = seeds[int(np.argmin(broken[name]))]
        raise Diverged(
            f"{name} stopped being finite at step {step} with seed {seed}: lower the learning rate, check the data for "
            f"extreme values with `policylab diagnose`, or normalise the rewards"
        )


def _next_multiple(step: int, n: int) -> int:
    return (step // n + 1) * n


def _listed(means: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    return {name: [float(x) for x in values] for name, values in means.items()}
