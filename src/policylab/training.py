"""The one training loop: all seeds in one compiled program, in chunks, with checkpoints, metrics and evaluation between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from policylab import spaces
from policylab.compilation import enable_cache
from policylab.errors import BadInput, Diverged
from policylab.learner import Clock, Learner, Sometimes
from policylab.progress import Progress
from policylab.runs import PerSeed, Run, RunFolder
from policylab.settings import check, traced
from policylab.source import Source

_NEVER = np.iinfo(np.int32).max
_HOSTED_CHUNK = 64  # steps whose host-made batches are shipped to the device at once


@dataclass(frozen=True)
class Stage:
    """One program of several: a learner, its source and its number of updates; `given` adds trained things by name."""

    learner: Learner
    source: Source
    steps: int
    given: Mapping[str, Any] = field(default_factory=dict)


def train(
    learner: Learner | Run | Sequence[Stage],
    source: Source | None = None,
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
    progress: bool = False,
) -> Run:
    """Train `learner` on `source` for `steps` updates, all `seeds` at once, and return the Run.

    `seeds` is a number (0 ... n-1) or a list. `evaluate` is a task, a dict of tasks, or `measure(products, *, key) -> dict` called
    once per seed; it runs every `every` steps and at the end, a task on `episodes` episodes. `given` holds trained things by name.
    With `out`, metrics stream to `out/metrics.jsonl` and an atomic checkpoint is written every `checkpoint_every` steps (a tenth of
    the run by default); `resume=True` goes on from it and ends, to the bit, where the uninterrupted run would have. `learner` may
    be a finished Run, which goes on from its state on a new source, or a list of stages.

    Raises `BadInput` for settings out of range, data that lack what the learner needs, or a checkpoint of another run, and
    `Diverged` at the first non-finite metric, naming it, the seed and the step; the last checkpoint is kept.
    """
    options = {"seeds": seeds, "evaluate": evaluate, "every": every, "episodes": episodes, "resume": resume,
               "checkpoint_every": checkpoint_every, "trackers": trackers, "progress": progress}
    if isinstance(learner, Sequence):
        return _train_stages(learner, given=given, out=out, **options)
    if source is None:
        raise BadInput("train needs a source: a dataset, as in lab.train(lab.IQL(), task.dataset('mixed'), steps=10_000)")
    before = learner if isinstance(learner, Run) else None
    return _train_one(before.learner if before else learner, source, steps=steps, given=given, out=out, before=before, **options)


def _train_stages(stages: Sequence[Stage], *, given: Mapping[str, Any], out: str | Path | None, **options: Any) -> Run:
    run = None
    for number, stage in enumerate(stages):
        # A stage may take what earlier stages have made; what the caller gives by name comes first.
        offered = {} if run is None else {"start": PerSeed(run.products()["policy"])} | {
            name: PerSeed(product) for name, product in run.products().items()}
        taken = {name: value for name, value in {**offered, **stage.given, **given}.items() if name in stage.learner.takes}
        folder = None if out is None else Path(out) / f"stage-{number}"
        run = _train_one(stage.learner, stage.source, steps=stage.steps, given=taken, out=folder, before=None,
                         stage=number, earlier=() if run is None else (*run.earlier, run), **options)
    if run is None:
        raise BadInput("the list of stages is empty: give at least one Stage(learner, source, steps)")
    return run


def _train_one(learner: Learner, source: Source, *, steps: int, seeds: int | Sequence[int], evaluate: Any, every: int | None,
               episodes: int, given: Mapping[str, Any], out: str | Path | None, resume: bool, checkpoint_every: int | None,
               trackers: Sequence[Callable], progress: bool, before: Run | None, stage: int = 0,
               earlier: tuple[Run, ...] = ()) -> Run:
    enable_cache()
    check_fit(learner, source, steps, given)
    numbers = before.seeds if before else tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not numbers:
        raise BadInput("train needs at least one seed: give seeds=5 or a list of seed numbers")
    if before:
        stage, earlier = before.stage + 1, (*before.earlier, before)
    source = source.serve(learner.needs)
    live, keys = traced(learner), jnp.asarray(numbers, jnp.int32)
    stacked = tuple(sorted(name for name, value in given.items() if isinstance(value, PerSeed)))
    values = {name: value.value if isinstance(value, PerSeed) else value for name, value in given.items()}
    carry = _initialise(live, source, values, keys, jnp.asarray(stage), stacked)
    if before:
        carry = (jax.tree.map(jnp.copy, before.state), carry[1])

    run = Run(learner, source.spec, numbers, carry[0], stage=stage, earlier=earlier, total=steps)
    folder = None if out is None else RunFolder(Path(out), run)
    if folder and resume:
        carry = folder.resume(carry)
        run.state = carry[0]
    elif folder:
        folder.begin()
    log_every, save_every = max(1, steps // 100), checkpoint_every or max(1, steps // 10)
    bar = Progress(f"{run.name} x{len(numbers)} seeds", steps, enabled=progress)
    started = time.perf_counter()
    while run.step < steps:
        stop = min(steps, *(_next_multiple(run.step, n) for n in (log_every, save_every, every) if n))
        carry, means, broken = _chunk(live, source, carry, keys, numbers, run.step, stop, steps, stage)
        _stop_if_broken(broken, numbers)
        run.state, run.step = carry[0], stop
        row: dict[str, Any] = {"step": stop, "seconds": time.perf_counter() - started, "metrics": _listed(means)}
        if evaluate is not None and (stop == steps or (every and stop % every == 0)):
            row["evaluation"] = measure(evaluate, run, episodes)
        run.metrics.append(row)
        for tracker in trackers:
            tracker(row)
        if folder:
            folder.append(row)
            if stop % save_every == 0 or stop == steps:
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
        raise BadInput(f"{name} learns {learner.actions} actions but these are {spaces.describe(source.spec.action)}: "
                       f"choose a learner for {kind} actions (policylab learners lists them)")
    if "reward" in learner.uses and not source.rewarded:
        raise BadInput(f"{name} needs rewards and these data have none: add a reward column, or choose BC, which needs none")
    unknown = [key for key in given if key not in learner.takes]
    if unknown:
        raise BadInput(f"{name} takes no {unknown[0]!r}: it takes {', '.join(learner.takes) or 'nothing'}")


def measure(evaluate: Any, run: Run, episodes: int) -> dict[str, list[float]]:
    """Evaluate every seed's products; one list of per-seed numbers per name. Evaluation keys are those of no training step."""
    if isinstance(evaluate, Mapping):
        return {f"{prefix}/{name}": values for prefix, task in evaluate.items()
                for name, values in measure(task, run, episodes).items()}
    if not callable(evaluate):
        from policylab.evaluation.rollouts import evaluate_task

        return evaluate_task(evaluate, run, episodes=episodes)
    rows = [evaluate(run.products(seed=seed), key=jax.random.fold_in(jax.random.key(seed), _NEVER - 1)) for seed in run.seeds]
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


@partial(jax.jit, static_argnames="stacked")
def _initialise(learner: Learner, source: Source, given: dict, seeds: Int[Array, " seed"], stage: Int[Array, ""],
                stacked: tuple[str, ...]) -> tuple[PyTree, PyTree]:
    def one(seed: Int[Array, ""], given: dict) -> tuple[PyTree, PyTree]:
        learner_key, source_key = jax.random.split(_stream(seed, stage, 0))
        state = learner.init(source.spec, key=learner_key, given=given)
        return state, source.init(learner.products(state), key=source_key)

    return jax.vmap(one, in_axes=(0, {name: 0 if name in stacked else None for name in given}))(seeds, given)


def _stream(seed: Int[Array, ""], stage: Int[Array, ""], number: int) -> Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stage), number)


@partial(jax.jit, donate_argnames="carry")
def _advance(learner: Learner, source: Source, carry: tuple[PyTree, PyTree], seeds: Int[Array, " seed"], batches: PyTree,
             start: Int[Array, ""], stop: Int[Array, ""], total: Int[Array, ""], stage: Int[Array, ""]) -> tuple:
    """Updates `start` ... `stop` - 1 of all seeds; the trip count is traced, so that one compilation serves every chunk length."""

    def one(state: PyTree, source_state: PyTree, seed: Int[Array, ""], batch: PyTree, clock: Clock) -> tuple:
        draw_key, update_key = jax.random.split(jax.random.fold_in(_stream(seed, stage, 1), clock.step))
        if not source.hosted:
            source_state, batch = source.next(source_state, learner.products(state), clock=clock, key=draw_key)
        state, metrics = learner.update(state, batch, clock=clock, key=update_key)
        return state, source.tell(source_state, batch, metrics), {name: _counted(value) for name, value in metrics.items()}

    all_seeds = jax.vmap(one, in_axes=(0, 0, 0, 0, None))

    def body(step: Int[Array, ""], loop: tuple) -> tuple:
        state, source_state, sums, counts, broken = loop
        batch = jax.tree.map(lambda leaf: leaf[step - start], batches)
        state, source_state, metrics = all_seeds(state, source_state, seeds, batch, Clock(step, total))
        for name, (value, present) in metrics.items():
            sums[name] += jnp.where(present, value, 0.0)
            counts[name] += present
            broken[name] = jnp.minimum(broken[name], jnp.where(present & ~jnp.isfinite(value), step, _NEVER))
        return state, source_state, sums, counts, broken

    example = jax.tree.map(lambda leaf: leaf[0], batches)
    shapes = jax.eval_shape(all_seeds, *carry, seeds, example, Clock(start, total))[2]
    fill = lambda value, dtype: {name: jnp.full(seeds.shape, value, dtype) for name in shapes}  # noqa: E731
    loop = (*carry, fill(0.0, jnp.float32), fill(0, jnp.int32), fill(_NEVER, jnp.int32))
    state, source_state, sums, counts, broken = jax.lax.fori_loop(start, stop, body, loop)
    return (state, source_state), {name: sums[name] / jnp.maximum(counts[name], 1) for name in sums}, broken


def _counted(value: Any) -> tuple[Array, Array]:
    if isinstance(value, Sometimes):
        return value.value.astype(jnp.float32), value.present
    return jnp.asarray(value, jnp.float32), jnp.asarray(True)


def _chunk(learner: Learner, source: Source, carry: tuple, keys: Array, seeds: Sequence[int], start: int, stop: int, total: int,
           stage: int) -> tuple[tuple, dict[str, np.ndarray], dict[str, np.ndarray]]:
    if not source.hosted:
        return _to_host(_advance(learner, source, carry, keys, None, start, stop, total, stage))
    sums: dict[str, np.ndarray] = {}
    broken: dict[str, np.ndarray] = {}
    for first in range(start, stop, _HOSTED_CHUNK):
        last = min(first + _HOSTED_CHUNK, stop)
        batches = source.host_batches(range(first, last), seeds)
        carry, means, bad = _to_host(_advance(learner, source, carry, keys, batches, first, last, total, stage))
        for name in means:
            sums[name] = sums.get(name, 0.0) + means[name] * (last - first) / (stop - start)
            broken[name] = np.minimum(broken.get(name, _NEVER), bad[name])
    return carry, sums, broken


def _to_host(result: tuple) -> tuple:
    carry, means, broken = result
    return carry, jax.device_get(means), jax.device_get(broken)


def _stop_if_broken(broken: Mapping[str, np.ndarray], seeds: Sequence[int]) -> None:
    step, name = min((int(steps.min()), name) for name, steps in broken.items())
    if step < _NEVER:
        seed = seeds[int(np.argmin(broken[name]))]
        raise Diverged(f"{name} stopped being finite at step {step} with seed {seed}: lower the learning rate, check the data for "
                       f"extreme values with `policylab diagnose`, or normalise the rewards")


def _next_multiple(step: int, n: int) -> int:
    return (step // n + 1) * n


def _listed(means: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    return {name: [float(x) for x in values] for name, values in means.items()}
