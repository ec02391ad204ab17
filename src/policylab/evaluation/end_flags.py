"""Doubtful ends of episodes: time limits stored as terminals, terminals that the data go on after, broken chains."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int
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


def ignored_terminals(rows: Rows, *, seed: int) -> Suspicion:
    """Terminal steps after which the next episode starts where they ended: no reset followed, so the process had not ended."""
    name = "ignored terminals"
    if not rows.sequential or rows.finite or len(rows.lengths) < 10:
        return unchecked(name, "the observations are choices or whole numbers, or there are fewer than ten episodes")
    last, gap, chance, step = _gaps(rows, seed, rows.starts + rows.lengths)
    use = rows.terminal[last]
    if use.sum() < 5:
        return unchecked(name, "fewer than five steps are terminal and followed by another episode")
    near = min(2 * step, float(np.quantile(chance, 0.01)))
    return found(
        name, (gap < near)[use], rows.row[last[use]], unit="terminals", allowance=3 * float((chance < near).mean()) + 0.02, least=3,
        rule="the next episode starts within two usual steps of where this one ended and closer to it than 99% of unrelated ones",
        meaning="the process went on after a terminal flag: the flags are not about the state, or mark something else",
    )  # fmt: skip


def _gaps(rows: Rows, seed: int, end: Int[np.ndarray, " episode"]) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """For every episode that the next one of the recording follows: its last step, how far the next one's first observation is
    from observation `end` (counted without the extra row per episode) of this one and of an unrelated one, and the usual step."""
    values = Scaling.of(rows.observed, rows.state_columns)(rows.observed)
    number = np.arange(len(rows.lengths))
    follows = np.flatnonzero(np.diff(rows.number) == 1)
    begin, place = values[(rows.starts + number)[1:][follows]], values[(end + number)[:-1]]
    stranger = place[np.random.default_rng(seed).permutation(len(place))][follows]
    step = float(np.median(np.linalg.norm(values[rows.before + 1] - values[rows.before], axis=1)))
    last = (rows.starts + rows.lengths - 1)[follows]
    return last, np.linalg.norm(begin - place[follows], axis=1), np.linalg.norm(begin - stranger, axis=1), step


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


def broken_chains(rows: Rows, origin: dict[str, Any], *, seed: int) -> Suspicion:
    """Steps whose logged next observation is not the observation of the next row, as the reader counted them.

    Time limits without a flag give one per episode, harmlessly. It is suspicious when they are more than 2% of the steps, or when
    the next row goes on from where the step began, so that nothing but the logged next observation is wrong.
    """
    name = "broken chains"
    if "breaks" not in origin:
        return unchecked(name, "the data came as whole episodes")
    breaks = int(origin["breaks"])
    goes_on, first = 0.0, None
    if breaks and rows.sequential and len(rows.lengths) >= 10:
        last, gap, chance, step = _gaps(rows, seed, rows.starts + rows.lengths - 1)
        cut = rows.truncated[last]
        near = (gap < 3 * step) & cut
        goes_on = float(near.sum() - 3 * (chance < 3 * step)[cut].sum() - 2) / breaks
        first = int(rows.row[last[near if near.any() else cut]].min(initial=rows.total)) if cut.any() else None
    raised = breaks > 0.02 * rows.total or (breaks >= 5 and goes_on > 0.1)
    return Suspicion(
        name, "steps", breaks, rows.total, first, raised,
        "the logged next observation is not the next row's observation, without a flag, at more than 2% of the steps or although the "
        "next row goes on from there",
        "next observations and observations contradict each other: corrupted states, missing or shuffled rows", 0.02,
    )  # fmt: skip
