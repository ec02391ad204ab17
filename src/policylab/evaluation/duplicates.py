"""Rows and episodes that occur twice, inside one recording or in two parts that should be strangers."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Shaped

from policylab.data.recording import Recording
from policylab.evaluation.rows import Rows, hashed, rows_of
from policylab.evaluation.suspicion import Suspicion, found, unchecked

NEAR = 3e-6  # of a column's range: how far apart near-duplicates may be
_CELLS = 1e-3


def repeated_rows(rows: Rows) -> Suspicion:
    """Steps whose state, action, reward and next state all repeat those of an earlier step, to 3e-6 of each column's range."""
    if rows.finite or not rows.sequential:
        return unchecked(
            "repeated rows", "rows repeat by nature: observations are choices or whole numbers, or single decisions"
        )
    values = _signature(rows)
    earlier = _earlier_twin(values)
    return found(
        "repeated rows", earlier >= 0, rows.row, unit="steps", allowance=0.002, least=2,
        rule=f"state, action, reward and next state within {NEAR:g} of each column's range of an earlier step's",
        meaning="steps occur more than once: data were joined twice, or an agent stood perfectly still",
    )  # fmt: skip


def repeated_episodes(rows: Rows) -> Suspicion:
    """Episodes of two steps and more with exactly the actions and observations of an earlier episode."""
    name = "repeated episodes"
    long = np.flatnonzero(rows.lengths >= 2)
    if len(long) < 2:
        return unchecked(name, "episodes are single decisions, or there is only one")
    marks = _episode_marks(rows)[long]
    repeats = ~np.isin(np.arange(len(long)), np.unique(marks, return_index=True)[1])
    natural = " (natural where the world and the policy involve no chance)" if rows.finite else ""
    return found(
        name, repeats, rows.row[rows.starts[long]], unit="episodes", allowance=0.001,
        rule="the same observations and actions, bit by bit, as an earlier episode",
        meaning=f"whole episodes occur more than once{natural}: they count twice in everything learned",
    )  # fmt: skip


def leakage(learned: Recording, kept: Recording) -> tuple[Suspicion, Suspicion]:
    """What a part kept for judging shares with the part that was learned from: near-duplicate steps, and users or prompts
    (`extra["group"]`). First rows are those of `kept`. Single decisions are compared by their episodes' full content, too.
    """
    ours, theirs = (rows_of(part, limit=2**62, seed=0) for part in (learned, kept))
    both = np.concatenate([_signature(ours), _signature(theirs)])
    shared = _earlier_twin(both, split=ours.steps)[ours.steps :] >= 0
    rows = found(
        "shared rows", shared, theirs.row, unit="steps", allowance=0.001, least=2,
        rule=f"state, action, reward and next state within {NEAR:g} of each column's range of a step of the other part",
        meaning="steps that judge are among those that were learned from",
    )  # fmt: skip
    if "group" not in learned.extra or "group" not in kept.extra:
        return rows, unchecked("shared groups", "no groups (users, prompts) are known")
    torn = np.isin(np.asarray(kept.extra["group"]), np.asarray(learned.extra["group"]))
    return rows, found(
        "shared groups", torn, theirs.row, unit="steps", rule="their group has steps in both parts",
        meaning="users or prompts that judge were also learned from",
    )  # fmt: skip


def _signature(rows: Rows) -> Float[np.ndarray, "step column"]:
    parts = [rows.observed[rows.before], rows.action]
    if rows.reward is not None:
        parts.append(rows.reward[:, None].astype(np.float32))
    if rows.sequential:
        parts.append(rows.observed[rows.before + 1])
    return np.concatenate(parts, axis=1)


def _earlier_twin(values: Float[np.ndarray, "row column"], split: int = -1) -> Int[np.ndarray, " row"]:
    """For each row an earlier one within NEAR of the range in every column, or -1. With `split`, twins are sought only between the
    rows before it and those from it on.

    Candidates share a cell of a grid of 1e-3 of the range, at one of three random offsets (the chance to be torn apart at all
    three, for 20 columns that differ by 3e-6, is under 1 in 1,000); then the difference itself is checked.
    """
    low, high = values.min(axis=0), values.max(axis=0)
    width = np.where(high > low, high.astype(np.float64) - low, 1.0)
    twin = np.full(len(values), -1)
    random = np.random.default_rng(11)
    for _ in range(3):
        grid = np.floor((values - low) / width / _CELLS + random.uniform(0, 1, values.shape[1])).astype(np.int64)
        key = hashed(grid)
        order = np.lexsort((np.arange(len(values)), key))
        for back in (1, 2, 3):
            now, then = order[back:], order[:-back]
            same = (key[now] == key[then]) & (twin[now] < 0)
            same &= (then < split) & (now >= split) if split >= 0 else True
            now, then = now[same], then[same]
            close = np.all(np.abs(values[now].astype(np.float64) - values[then]) <= NEAR * width, axis=1)
            twin[now[close]] = then[close]
    return twin


def _episode_marks(rows: Rows) -> Shaped[np.ndarray, " episode"]:
    """A 64-bit number per episode from its length and all its observations and actions in order."""
    with np.errstate(over="ignore"):
        step = np.arange(rows.steps) - np.repeat(rows.starts, rows.lengths)
        place = (2 * step + 1).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        content = np.concatenate([rows.observed[rows.before], rows.action, rows.observed[rows.before + 1]], axis=1)
        mixed = (hashed(content) ^ (place >> np.uint64(17))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(31))) * place
        return np.add.reduceat(mixed, rows.starts) + rows.lengths.astype(np.uint64)
