"""Doubtful ends of episodes: time limits stored as terminals, terminals that the data go on after, broken chains."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from policylab.evaluation.rows import Rows, Scaling, sample
from policylab.evaluation.suspicion import Suspicion, found, unchecked


def timed_terminals(rows: Rows) -> Suspicion:
    """Terminals that all come after the same number of steps: a clock, not the process, ended these episodes."""
    name = "timed terminals"
    last = rows.starts + rows.lengths - 1
    ended = rows.terminal[last]
    if not rows.sequential or ended.sum() < 5:
        return unchecked(name, "there are fewer than five terminal steps, or only single decisions")
    longest = int(rows.lengths.max())
    at_limit = ended & (rows.lengths == longest)
    raised = at_limit.sum() >= 5 and at_limit.sum() >= 0.02 * len(ended) and longest >= 10
    spread = np.bincount(rows.lengths[ended], minlength=longest + 1)
    pile = spread[longest] >= 5 * max(1, spread[max(0, longest - 10) : longest].max(initial=0))
    return found(
        name, at_limit & raised & pile, rows.row[last], unit="episodes", least=5,
        rule=f"terminal at step {longest}, the longest episode, five times as often as at any of the ten lengths before",
        meaning=f"terminal flags at step {longest} look like a time limit; learners must bootstrap there: mark them truncated",
    )  # fmt: skip


def ignored_terminals(rows: Rows) -> Suspicion:
    """Terminal steps after which the next episode starts where they ended: no reset followed, so the process had not ended."""
    name = "ignored terminals"
    if not rows.sequential or rows.finite or len(rows.lengths) < 10:
        return unchecked(name, "the observations are choices or whole numbers, or there are fewer than ten episodes")
    values = Scaling.of(rows.observed, rows.state_columns)(rows.observed)
    first = rows.starts + np.arange(len(rows.lengths))
    end, begin = values[(first + rows.lengths)[:-1]], values[first[1:]]
    step = np.median(np.linalg.norm(values[rows.before + 1] - values[rows.before], axis=1))
    last = (rows.starts + rows.lengths - 1)[:-1]
    followed = np.diff(rows.number) == 1
    gap = np.linalg.norm(begin - end, axis=1)
    other = np.linalg.norm(begin - np.roll(end, 1, axis=0), axis=1)  # how near an unrelated end would be
    if np.quantile(other, 0.1) < 3 * step:
        return unchecked(name, "episodes end where they start, so that a missing reset would not show")
    use = rows.terminal[last] & followed
    if not use.any():
        return unchecked(name, "no step is terminal")
    return found(
        name, (gap < 2 * step)[use], rows.row[last[use]], unit="terminals", allowance=0.01, least=2,
        rule="the next episode starts within two usual steps of where this one ended, unlike after other episodes",
        meaning="the process went on after a terminal flag: the flags are not about the state, or mark something else",
    )  # fmt: skip


def random_terminals(rows: Rows, *, seed: int) -> Suspicion:
    """Terminals whose state says nothing about ending: their nearest neighbours are no more often terminal than any state."""
    name = "random terminals"
    last = np.flatnonzero(rows.terminal)
    if not rows.sequential or rows.projected or len(last) < 20 or len(last) > 0.5 * rows.steps:
        return unchecked(name, "there are fewer than 20 terminal steps, only single decisions, or images")
    scaling = Scaling.of(rows.observed, rows.state_columns)
    ends = last[sample(len(last), 2_000, seed)]
    others = np.flatnonzero(~rows.terminal)
    others = others[sample(len(others), 20 * len(ends), seed)]
    points = scaling(rows.observed[rows.before[np.concatenate([ends, others])] + 1])
    if points.shape[1] == 0:
        return unchecked(name, "the observation never changes")
    near = cKDTree(points + 1e-6 * np.random.default_rng(seed).standard_normal(points.shape)).query(points[: len(ends)], k=6)[1]
    base = len(ends) / len(points)
    alike = np.mean(near[:, 1:] < len(ends), axis=1)
    rate = float(alike.mean())
    marked = np.full(len(ends), rate < 3 * base + 0.02)
    return found(
        name, marked, rows.row[ends], unit="terminals",
        rule=f"of the 5 states nearest to a terminal one less than three times as many are terminal ({rate:.1%}) as of all ({base:.1%})",
        meaning="terminal flags do not depend on the state: random cuts, or a reason that the observation does not show",
    )  # fmt: skip


def broken_chains(rows: Rows, origin: dict[str, Any]) -> Suspicion:
    """Steps whose logged next observation is not the observation of the next row, as the reader counted them.

    Time limits without a flag give one per episode. Many in a short stretch mean corrupted next observations or missing rows.
    """
    if "breaks" not in origin:
        return unchecked("broken chains", "the data came as whole episodes")
    breaks = int(origin["breaks"])
    last = rows.starts + rows.lengths - 1
    cut = np.flatnonzero(rows.truncated[last])[:breaks]
    first = int(rows.row[last[cut[0]]]) if len(cut) and breaks else None
    return Suspicion(
        "broken chains", "steps", breaks, rows.total, first, breaks > 0.02 * rows.total,
        "the logged next observation differs from the next row's observation although no flag ended the episode",
        "next observations and observations contradict each other: corrupted states, missing or shuffled rows", 0.02,
    )  # fmt: skip
