"""How much of the world a recording has seen, and how well it was done: the measures on the dataset card.

Sources: TQ and SACo by Schweighofer et al. 2022, "A Dataset Perspective on Offline Reinforcement Learning" (arXiv 2111.04714);
action divergence, transition and state diversity after Belkhale, Cui & Sadigh 2023, "Data Quality in Imitation Learning" (arXiv
2306.02437), with nearest neighbours, a dynamics fit and a k-NN entropy as estimators.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special
from jaxtyping import Float, Int, Shaped
from scipy.spatial import cKDTree

from policylab.evaluation.robust_fit import fit
from policylab.evaluation.rows import Rows, Scaling, hashed, sample

BINS = 100  # per continuous column (Schweighofer et al.)
NEIGHBOURS = 8_000  # rows among which neighbours are searched


@dataclass(frozen=True)
class Coverage:
    """The measures of one recording; None where it has not what a measure needs.

    `unique_share`: distinct (state, action) pairs over steps, 100 bins per continuous column over the range of the data.
    `saco`: distinct pairs over those of the reference, both at `saco_steps` steps. `tq`: (mean return - low) / (high - low) on the
    scale `tq_scale`. `action_divergence`: half the mean squared difference of the actions of nearest neighbours of different
    episodes over the variance of all actions: 0 where the state decides the action, 1 where it says nothing.
    `transition_diversity`: share of the variance of state changes that state and action leave open (dynamics fit and neighbours).
    `state_entropy`: of the states in standard deviations, in nats (`entropy_kind` differential), or of the distinct states
    (`entropy_kind` discrete). `effective_dimension`: participation ratio of the states' covariance, at most `state_width`, the
    number of columns that vary.
    `distinct_states` counts the cells of the states alone. `rows` says how many rows the neighbour measures used.
    """

    unique_pairs: int
    unique_share: float
    distinct_states: int
    saco: float | None
    saco_steps: int
    tq: float | None
    tq_scale: tuple[float, float] | None
    action_divergence: float | None
    transition_diversity: float | None
    state_entropy: float | None
    entropy_kind: str
    effective_dimension: float
    state_width: int
    return_modes: int | None
    rows: int


def cells(
    rows: Rows, low: Float[np.ndarray, " column"], high: Float[np.ndarray, " column"], *, bins: int = BINS
) -> Int[np.ndarray, "step column"]:
    """The cell of every (state, action) pair: `bins` per number between `low` and `high`, one cell beyond each end; choices as
    they are. Columns of the state come first."""
    values = np.concatenate([rows.state, rows.action], axis=1)
    columns = (*rows.state_columns, *rows.action_columns)
    found = np.empty(values.shape, np.int64)
    for i, column in enumerate(columns):
        width = max(float(high[i]) - float(low[i]), 1e-30)
        if column.choices:
            found[:, i] = values[:, i]
        else:
            place = (values[:, i].astype(np.float64) - low[i]) / width * bins
            inside = np.minimum(np.floor(np.clip(place, -1, bins)), bins - 1)
            found[:, i] = np.where(place > bins * (1 + 1e-6), bins, inside) + 1
    return found


def count_unique(values: Shaped[np.ndarray, "row column"]) -> int:
    """The number of distinct rows, exact but for collisions of 64-bit hashes (below one in a million for 1e6 rows).

    HyperLogLog, which the paper used, would save memory only beyond some 1e8 rows.
    """
    return len(np.unique(hashed(values)))


def value_range(rows: Rows) -> tuple[Float[np.ndarray, " column"], Float[np.ndarray, " column"]]:
    """The smallest and largest value of each state and action column."""
    low = np.concatenate([rows.observed.min(axis=0), rows.action.min(axis=0)]).astype(np.float64)
    return low, np.concatenate([rows.observed.max(axis=0), rows.action.max(axis=0)]).astype(np.float64)


def state_action_coverage(rows: Rows, reference: Rows, *, seed: int) -> tuple[float, int]:
    """SACo and the number of steps at which both were counted (the smaller of both; rows drawn at random)."""
    low, high = value_range(reference)
    size = min(rows.steps, reference.steps)
    ours, theirs = (cells(part, low, high)[sample(part.steps, size, seed)] for part in (rows, reference))
    return count_unique(ours) / count_unique(theirs), size


def trajectory_quality(returns: Float[np.ndarray, " episode"], low: float, high: float) -> float:
    """TQ: 0 where the mean return is `low` (a random policy's), 1 where it is `high` (the best known policy's)."""
    return float((returns.mean() - low) / (high - low))


def action_divergence(rows: Rows, *, seed: int, neighbours: int = 4, size: int = NEIGHBOURS) -> float | None:
    """Half the mean squared difference to the actions of the nearest states of other episodes, over the actions' variance.

    None for fewer than two episodes or constant actions.
    """
    chosen = sample(rows.steps, size, seed)
    states = Scaling.of(rows.observed, rows.state_columns)(rows.state[chosen])
    actions = Scaling.of(rows.action, rows.action_columns)(rows.action[chosen])
    episode = rows.episode[chosen]
    spread = actions.var(axis=0, ddof=1).sum() if len(actions) > 1 else 0.0
    if spread == 0 or states.shape[1] == 0 or len(np.unique(episode)) < 2:
        return None
    states = states + 1e-9 * np.random.default_rng(seed).standard_normal(states.shape)  # ties in random order
    tree, pending = cKDTree(states), np.arange(len(chosen))
    total = count = 0.0
    for reach in (2 * neighbours, 16 * neighbours, 128 * neighbours):  # further where an episode's own steps come first
        reach = min(reach + 1, len(chosen))
        near = tree.query(states[pending], k=reach)[1]
        other = episode[near] != episode[pending][:, None]
        rank = np.cumsum(other, axis=1)
        done = (rank[:, -1] >= neighbours) | (reach == len(chosen)) | (reach > 64 * neighbours)
        use = other & (rank <= neighbours) & done[:, None]
        row, place = np.nonzero(use)
        total += np.sum((actions[pending[row]] - actions[near[row, place]]) ** 2)
        count += len(row)
        pending = pending[~done]
        if len(pending) == 0:
            break
    return float(total / count / 2 / spread) if count else None


def transition_diversity(rows: Rows, *, seed: int) -> float | None:
    """Share of the variance of the state changes that stays open: given state and action (ridge on random features, held out) and,
    up to 12 columns, given also the nearest neighbour's residual, which knows of walls that the smooth fit does not.

    None for one-step experience, for random projections of images and where nothing changes.
    """
    if not rows.sequential or rows.projected:
        return None
    scaling = Scaling.of(rows.observed, rows.state_columns)
    chosen = sample(rows.steps, 40_000, seed)
    now, then = scaling(rows.observed[rows.before[chosen]]), scaling(rows.observed[rows.before[chosen] + 1])
    change = then - now
    spread = change.var(axis=0)
    if spread.sum() == 0:
        return None
    inputs = np.concatenate([now, Scaling.of(rows.action, rows.action_columns)(rows.action[chosen])], axis=1)
    found = fit(inputs, change, seed=seed, robust=False)
    left = np.sum((1 - found.explained) * spread)
    if inputs.shape[1] <= 12:
        near = sample(len(inputs), NEIGHBOURS, seed)
        inputs, residual = inputs[near], change[near] - found(inputs[near])
        twin = cKDTree(inputs).query(inputs, k=2)[1][:, 1]
        left = min(left, np.mean(np.sum((residual - residual[twin]) ** 2, axis=1)) / 2)
    return float(np.clip(left / spread.sum(), 0, None))


def state_entropy(states: Float[np.ndarray, "row column"], *, neighbours: int = 4) -> float:
    """Kozachenko & Leonenko's (1987) estimate of the differential entropy in nats: psi(n) - psi(k) + log volume of the unit ball
    + d * mean log distance to the k-th neighbour. The rows must be distinct and more than `neighbours`."""
    size, width = states.shape
    distance = cKDTree(states).query(states, k=neighbours + 1)[0][:, -1]
    ball = width / 2 * np.log(np.pi) - scipy.special.gammaln(width / 2 + 1)
    psi = scipy.special.digamma
    return float(psi(size) - psi(neighbours) + ball + width * np.mean(np.log(np.maximum(distance, 1e-12))))


def discrete_entropy(codes: Shaped[np.ndarray, " row"]) -> float:
    """The entropy of the observed frequencies in nats, with Miller's correction (distinct - 1) / (2 n)."""
    counts = np.unique(codes, return_counts=True)[1]
    share = counts / counts.sum()
    return float(-np.sum(share * np.log(share)) + (len(counts) - 1) / (2 * counts.sum()))


def effective_dimension(states: Float[np.ndarray, "row column"]) -> float:
    """Participation ratio (sum of eigenvalues)^2 / sum of their squares of the covariance: 1 on a line, d in a round cloud."""
    if states.shape[1] == 0:
        return 0.0
    values = np.linalg.eigvalsh(np.atleast_2d(np.cov(states.T)))
    return float(values.sum() ** 2 / np.sum(values**2)) if values.max() > 0 else 0.0


def measure(
    rows: Rows,
    returns: Float[np.ndarray, " episode"] | None,
    *,
    scale: tuple[float, float] | None,
    reference: Rows | None,
    modes: int | None,
    seed: int,
) -> Coverage:
    """All measures. `scale` holds the returns that mean TQ 0 and 1, `reference` the data of an online run, where known."""
    found = cells(rows, *value_range(rows))
    pairs, width = count_unique(found), len(rows.state_columns)
    distinct = count_unique(found[:, :width])
    saco, steps = (None, 0) if reference is None else state_action_coverage(rows, reference, seed=seed)
    chosen = sample(rows.steps, NEIGHBOURS, seed)
    raw = rows.state[chosen]
    states = Scaling.of(rows.observed, rows.state_columns)(raw)
    _, first = np.unique(hashed(raw), return_index=True)
    entropy, kind = None, "differential"
    if len(first) < 0.8 * len(raw):
        entropy, kind = discrete_entropy(hashed(raw)), "discrete"
    elif len(first) > 8 and states.shape[1]:
        entropy = state_entropy(states[first])
    return Coverage(
        unique_pairs=pairs,
        unique_share=pairs / rows.steps,
        distinct_states=distinct,
        saco=saco,
        saco_steps=steps,
        tq=None if returns is None or scale is None else trajectory_quality(returns, *scale),
        tq_scale=None if returns is None else scale,
        action_divergence=action_divergence(rows, seed=seed),
        transition_diversity=transition_diversity(rows, seed=seed),
        state_entropy=entropy,
        entropy_kind=kind,
        effective_dimension=effective_dimension(states) if len(states) > 1 else 0.0,
        state_width=states.shape[1],
        return_modes=modes,
        rows=len(chosen),
    )
