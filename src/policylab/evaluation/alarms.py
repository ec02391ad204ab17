"""What looks wrong with a recording: each suspicion with a count, a share, the first row and how often clean data raise it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policylab.data.recording import Recording
from policylab.evaluation.robust_fit import fit, robust_scale
from policylab.evaluation.rows import Rows, Scaling, hashed, sample

SPIKE = 10.0  # robust standard deviations of a fit's residual beyond which an entry is suspect
SHARE = 0.5  # of the moving columns that must be suspect at once: a contact changes some of them, a corrupted row all
_FITTED = 20_000  # rows that the fits use


@dataclass(frozen=True)
class Suspicion:
    """`count` rows (or columns, or episodes) of `total`, the `first` of them, and the sentence to print."""

    kind: str
    count: int
    total: int
    first: int
    words: str


def suspicions(rows: Rows, recording: Recording, *, seed: int) -> tuple[Suspicion, ...]:
    """Everything that looks wrong, the most frequent kinds first."""
    found = [*_duplicates(rows), *_stuck(rows), *_propensities(recording)]
    if rows.sequential:
        found += _spikes(rows, seed)
    return tuple(found)


def _duplicates(rows: Rows) -> list[Suspicion]:
    """Episodes that stand in the data more than once, action for action; single decisions may well repeat."""
    if not rows.sequential:
        return []
    keys = hashed(np.concatenate([rows.state, rows.action], axis=1)).astype(np.uint64)
    with np.errstate(over="ignore"):
        sums = np.add.reduceat(
            keys * (1 + np.arange(len(keys), dtype=np.uint64) - rows.starts[rows.episode].astype(np.uint64)), rows.starts
        )
    _, first, counts = np.unique(sums, return_index=True, return_counts=True)
    again = int((counts - 1).sum())
    if not again:
        return []
    episode = int(rows.number[first[counts > 1].min()])
    return [Suspicion("duplicate episodes", again, len(rows.lengths), episode,
                      f"{again} of {len(rows.lengths)} episodes repeat another one exactly (first: episode {episode})")]  # fmt: skip


def _stuck(rows: Rows) -> list[Suspicion]:
    columns = (*rows.state_columns, *rows.action_columns)
    values = np.concatenate([rows.state, rows.action], axis=1)
    still = [
        column.name
        for column, spread in zip(columns, np.ptp(values, axis=0), strict=True)
        if spread == 0 and not column.choices
    ]
    if not still:
        return []
    names = ", ".join(still[:4]) + (" ..." if len(still) > 4 else "")
    return [
        Suspicion(
            "constant columns", len(still), len(columns), 0, f"{len(still)} of {len(columns)} columns never change: {names}"
        )
    ]


def _spikes(rows: Rows, seed: int) -> list[Suspicion]:
    """Rows whose next state (or reward) a smooth fit of state and action misses by more than `SPIKE` robust standard deviations."""
    chosen = sample(rows.steps, _FITTED, seed)
    if len(chosen) < 200 or rows.state.shape[1] == 0:
        return []
    states = Scaling.of(rows.observed, rows.state_columns)
    inputs = np.concatenate(
        [states(rows.state[chosen]), Scaling.of(rows.action, rows.action_columns)(rows.action[chosen])], axis=1
    )
    change = rows.observed[rows.before[chosen] + 1] - rows.observed[rows.before[chosen]]
    found = []
    wanted = {"state": change.astype(np.float64)}
    if rows.reward is not None and len(np.unique(rows.reward)) > 10:
        wanted["reward"] = rows.reward[chosen].astype(np.float64)[:, None]
    for name, outputs in wanted.items():
        outputs = outputs[:, np.ptp(outputs, axis=0) > 1e-12]
        if outputs.shape[1] == 0:
            continue
        residual = outputs - fit(inputs, outputs, seed=seed)(inputs)
        # A smooth fit errs at the ends of a reward's range: only what lies far outside that range is suspect.
        wide = np.abs(residual) > (3.0 * np.ptp(np.quantile(outputs, [0.1, 0.9], axis=0), axis=0) if name == "reward" else 0.0)
        wide &= np.abs(residual) > SPIKE * np.maximum(robust_scale(residual), 1e-6 * outputs.std(axis=0))
        suspect = np.flatnonzero(wide.mean(axis=1) > SHARE)
        if len(suspect) > 1e-3 * len(chosen):
            first = int(rows.row[chosen[suspect]].min())
            found.append(Suspicion(
                f"{name} spikes", len(suspect), len(chosen), first,
                f"{len(suspect) / len(chosen):.1%} of {len(chosen):,} rows have a {'next state' if name == 'state' else 'reward'} more than "
                f"{SPIKE:.0f} robust deviations from what state and action predict (first: row {first}): corruption, or contacts and resets",
            ))  # fmt: skip
    return found


def _propensities(recording: Recording) -> list[Suspicion]:
    """Under true propensities the mean of 1 / (number of choices * p) is 1."""
    if "propensity" not in recording.extra:
        return []
    from policylab import spaces

    if not isinstance(recording.spec.action, spaces.Discrete):
        return []
    inverse = 1.0 / (np.asarray(recording.extra["propensity"], np.float64) * recording.spec.action.n)
    error = max(inverse.std() / np.sqrt(len(inverse)), 1e-12)
    if abs(inverse.mean() - 1) <= max(4 * error, 1e-6):
        return []
    return [Suspicion("propensities", len(inverse), len(inverse), 0,
                      f"the inverse propensities average {inverse.mean():.3f} where 1 is expected: some choices are never logged, "
                      "or the propensities are not those of the logged choices")]  # fmt: skip
