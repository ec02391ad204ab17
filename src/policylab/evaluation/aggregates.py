"""Aggregate scores of several seeds on several tasks, with stratified bootstrap intervals: what rliable computes, much faster.

Scores have shape [seed, task]; a stratum is a task, whose seeds are resampled with replacement (Agarwal et al. 2021, "Deep
Reinforcement Learning at the Edge of the Statistical Precipice"). A replicate enters every aggregate only through how often each
cell of the table was drawn, so replicates are small tables of counts (a byte each): means and profiles are products with them,
and the interquartile mean is a clipped running sum over the cells in order of their score. Nothing is sorted or gathered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Real, UInt

from policylab.errors import BadInput

Scores = Real[np.ndarray, "seed task"]

# Numbers held per block of replicates: few enough to stay in the processor's cache at the usual sizes.
BLOCK = 200_000


@dataclass(frozen=True)
class Aggregate:
    """One aggregate of one method: its value on the observed scores and the bootstrap interval around it."""

    name: str
    value: float
    interval: tuple[float, float]
    level: float
    seeds: int
    tasks: int


@dataclass(frozen=True)
class Profile:
    """The share of runs whose score lies above each threshold, and a pointwise band around it."""

    thresholds: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: float


def mean(scores: Scores) -> float:
    """The mean over all seeds and tasks."""
    return float(np.mean(np.mean(_checked(scores), axis=0)))


def median(scores: Scores) -> float:
    """The median over tasks of each task's mean over seeds."""
    return float(np.median(np.mean(_checked(scores), axis=0)))


def iqm(scores: Scores) -> float:
    """The interquartile mean: the mean of all scores but the lowest and the highest quarter (rounded down to whole scores)."""
    ordered = np.sort(_checked(scores), axis=None)
    cut = len(ordered) // 4
    return float(np.mean(ordered[cut : len(ordered) - cut]))


def optimality_gap(scores: Scores, gamma: float = 1.0) -> float:
    """How far the scores stay below `gamma` on average, nothing being earned beyond it."""
    return float(gamma - np.mean(np.minimum(_checked(scores), gamma)))


def aggregate_intervals(
    scores_by_method: Mapping[str, Scores], *, replicates: int = 50_000, seed: int = 0, level: float = 0.95, gamma: float = 1.0
) -> dict[str, dict[str, Aggregate]]:
    """Mean, median, interquartile mean and optimality gap of every method with percentile intervals.

    Methods with as many seeds and tasks share their resampling, so a method's intervals are the same whoever stands beside it.
    With fewer than 30 cells prefer `statistics.interval` of the mean: the percentile bootstrap is too narrow for few seeds.

    Returns `{method: {"mean" | "median" | "iqm" | "optimality_gap": Aggregate}}`. Raises `BadInput` for scores that are not
    finite or not a table.
    """
    _require(level, replicates)
    tables = {name: _checked(scores, name) for name, scores in scores_by_method.items()}
    result: dict[str, dict[str, Aggregate]] = {}
    for shape in dict.fromkeys(table.shape for table in tables.values()):
        names = [name for name, table in tables.items() if table.shape == shape]
        draws = _aggregate_draws(np.stack([tables[name] for name in names]), replicates, seed, gamma)
        ends = _ends(draws, level)
        for row, name in enumerate(names):
            table = tables[name]
            values = (mean(table), median(table), iqm(table), optimality_gap(table, gamma))
            result[name] = {
                label: Aggregate(label, value, (float(ends[0, row, k]), float(ends[1, row, k])), level, *shape)
                for k, (label, value) in enumerate(zip(("mean", "median", "iqm", "optimality_gap"), values, strict=True))
            }
    return {name: result[name] for name in tables}


def probability_of_improvement(
    x: Real[np.ndarray, "seed_x task"],
    y: Real[np.ndarray, "seed_y task_of_y"],
    *,
    replicates: int = 2_000,
    seed: int = 0,
    level: float = 0.95,
) -> Aggregate:
    """The probability that a run of `x` beats a run of `y` on the same task, averaged over tasks; ties count one half.

    Per task this is the Mann-Whitney statistic over the number of pairs. Both sides are resampled independently, by task. A
    replicate is a quadratic form of the counts in the table of pairwise comparisons, which is made once.

    Raises `BadInput` unless both have the same tasks and finite scores.
    """
    _require(level, replicates)
    x, y = _checked(x, "x"), _checked(y, "y")
    if x.shape[1] != y.shape[1]:
        raise BadInput(f"x has {x.shape[1]} tasks and y has {y.shape[1]}: compare both on the same tasks")
    left, right = x.T[:, :, None], y.T[:, None, :]
    wins = (left > right) + 0.5 * (left == right)  # [task, seed of x, seed of y]
    pairs = wins.size
    draws = []
    block = _block(max(x.size, y.size))
    left_draws = resamplings(*x.shape, replicates, seed=(seed, 0), block=block)
    right_draws = resamplings(*y.shape, replicates, seed=(seed, 1), block=block)
    for drawn_x, drawn_y in zip(left_draws, right_draws, strict=True):
        beaten = wins @ drawn_y.astype(np.float64)
        draws.append(np.einsum("tsr,tsr->r", drawn_x.astype(np.float64), beaten) / pairs)
    low, high = _ends(np.concatenate(draws), level)
    return Aggregate(
        "probability_of_improvement", float(wins.sum() / pairs), (float(low), float(high)), level, len(x), x.shape[1]
    )


def performance_profile(
    scores: Scores,
    thresholds: Real[np.ndarray, " threshold"],
    *,
    replicates: int = 2_000,
    seed: int = 0,
    level: float = 0.95,
    of_task_means: bool = False,
) -> Profile:
    """The share of runs (or, with `of_task_means`, of tasks by their mean) with a score above each threshold, with its band."""
    _require(level, replicates)
    table = _checked(scores)
    thresholds = np.asarray(thresholds, np.float64)
    means = table.mean(axis=0)
    above = (table.T.reshape(-1) if not of_task_means else means) > thresholds[:, None]
    draws = []
    for drawn in resamplings(*table.shape, replicates, seed=(seed, 0), block=_block(max(table.size, above.size))):
        if of_task_means:
            replicate_means = (table.T[:, None, :] @ drawn.astype(np.float64))[:, 0] / len(table)  # [task, replicate]
            draws.append(np.mean(replicate_means > thresholds[:, None, None], axis=1))
        else:
            draws.append(above.astype(np.float64) @ drawn.reshape(table.size, -1).astype(np.float64) / table.size)
    low, high = _ends(np.concatenate(draws, axis=1), level)
    return Profile(thresholds, above.mean(axis=1), low, high, level)


def resamplings(
    seeds: int, tasks: int, replicates: int, *, seed: tuple[int, ...], block: int
) -> Iterator[UInt[np.ndarray, "task seed block"]]:
    """Blocks of bootstrap replicates: how often each cell was drawn when the seeds of every task are drawn with replacement.

    The counts of one task and replicate add up to `seeds`. A block has `block` replicates, the last one the rest.
    """
    generator = np.random.default_rng(seed)
    kind = _smallest_unsigned(seeds)
    for start in range(0, replicates, block):
        size = min(block, replicates - start)
        drawn = generator.integers(0, seeds, (tasks, seeds, size), dtype=kind)
        if seeds <= 64:  # comparing bytes is faster than scattering them until seeds * seeds comparisons are too many
            yield np.stack([np.sum(drawn == one, axis=1, dtype=kind) for one in range(seeds)], axis=1)
        else:
            cell = (np.arange(tasks)[:, None, None] * seeds + drawn) * size + np.arange(size)
            yield np.bincount(cell.reshape(-1), minlength=tasks * seeds * size).astype(kind).reshape(tasks, seeds, size)


def _block(numbers: int) -> int:
    """How many replicates to treat at once when each needs this many numbers."""
    return int(np.clip(BLOCK // numbers, 1, 4096))


def _aggregate_draws(
    tables: Float[np.ndarray, "method seed task"], replicates: int, seed: int, gamma: float
) -> Float[np.ndarray, "method 4 replicate"]:
    """Mean, median, interquartile mean and optimality gap of every method in every replicate."""
    methods, seeds, tasks = tables.shape
    by_task = np.moveaxis(tables, 2, 0)  # [task, method, seed]
    capped = np.moveaxis(np.minimum(tables, gamma), 1, 2).reshape(methods, -1)
    cells = np.moveaxis(tables, 1, 2).reshape(methods, -1)  # in the order of the counts
    orders = np.argsort(cells, axis=1)
    size = seeds * tasks
    cut = size // 4
    kind = _smallest_unsigned(size)
    result = np.empty((methods, 4, replicates))
    start = 0
    for drawn in resamplings(seeds, tasks, replicates, seed=(seed, 0), block=_block(max(size, tasks * methods))):
        flat = drawn.reshape(size, -1)
        real = drawn.astype(np.float64)
        means = by_task @ real / seeds  # [task, method, replicate]
        rows = result[:, :, start : start + flat.shape[1]]
        rows[:, 0] = means.mean(axis=0)
        rows[:, 1] = np.median(means, axis=0)
        rows[:, 3] = gamma - capped @ real.reshape(size, -1) / size
        for method in range(methods):
            # How many of the kept middle positions each cell fills, walking up the scores.
            passed = np.cumsum(flat[orders[method]], axis=0, dtype=kind)
            np.clip(passed, cut, size - cut, out=passed)
            passed[1:] -= passed[:-1].copy()
            passed[0] -= kind(cut)
            rows[method, 2] = cells[method, orders[method]] @ passed / (size - 2 * cut)
        start += flat.shape[1]
    return result


def _ends(draws: Float[np.ndarray, "*rest replicate"], level: float) -> Float[np.ndarray, "2 *rest"]:
    """The percentile interval over the last axis (contiguous: over a strided one it takes ten times as long)."""
    return np.percentile(draws, [50 * (1 - level), 50 * (1 + level)], axis=-1)


def _smallest_unsigned(largest: int) -> type:
    return next(kind for kind in (np.uint8, np.uint16, np.uint32) if largest <= np.iinfo(kind).max)


def _checked(scores: np.ndarray, name: str = "scores") -> np.ndarray:
    table = np.asarray(scores, np.float64)
    if table.ndim != 2 or table.size == 0:
        raise BadInput(f"{name} have shape {table.shape}: give one row per seed and one column per task")
    if not np.all(np.isfinite(table)):
        row, task = np.argwhere(~np.isfinite(table))[0]
        raise BadInput(
            f"{name} hold {table[row, task]} at seed {row}, task {task}: leave out runs without a score, for every method"
        )
    return table


def _require(level: float, replicates: int) -> None:
    if not 0 < level < 1:
        raise BadInput(f"the level of an interval is {level}: give a probability between 0 and 1, such as 0.95")
    if replicates < 1:
        raise BadInput(f"{replicates} bootstrap replicates: give at least 1, usually thousands")
