"""Fitted Q evaluation on linear features or tables: the value of a policy from transitions, without any propensities.

Each iteration regresses r + discount * continues * v(next state) on the features of the logged pairs, where v is the mean of q
over the target policy's actions (Le, Voloshin & Yue 2019; with linear features and no horizon its fixed point is LSTD-Q, Lagoudakis
& Parr 2003, computed here in one solve). The interval is that of its influence function, summed by episode: asymptotically what
refitting on bootstrapped episodes gives (Hao et al. 2021), at the cost of one more solve. Each row's influence is divided by one
minus its leverage, without which pairs that were seen a few times would look certain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Bool, Float, Int, Real

from policylab.errors import BadInput
from policylab.evaluation.off_policy import Estimate, caution_about_size, estimate_of, matches, require_column, require_group

Matrix = Any  # a NumPy array, or scipy's sparse one for a table: their types have no name in common
NEVER_LOGGED = 0.01  # share of the target's time on pairs without data from which the estimate warns


@dataclass(frozen=True)
class FittedQ:
    """A fitted action-value function: `weights` per feature ([state, action] from `tabular`), and the estimate of the value."""

    weights: np.ndarray
    estimate: Estimate


def tabular(
    state: Int[np.ndarray, " row"],
    action: Int[np.ndarray, " row_of_action"],
    reward: Real[np.ndarray, " row_of_reward"],
    next_state: Int[np.ndarray, " row_of_next"],
    terminal: Bool[np.ndarray, " row_of_terminal"],
    lengths: Int[np.ndarray, " episode"],
    target: Float[np.ndarray, "state action"],
    *,
    discount: float,
    horizon: int = 0,
    group: Int[np.ndarray, " episode"] | None = None,
    unit: str = "episode",
    level: float = 0.95,
) -> FittedQ:
    """Fitted Q evaluation of the policy `target` (rows of probabilities) on logged transitions of a finite process.

    Episodes stand one after the other with `lengths` steps; `next_state` of a truncated step is what followed it. `horizon` is
    how many steps the value counts (0: all). Pairs that were never logged have value 0; the estimate warns when the target
    policy would spend more than 1% of its discounted time there, and says how much.

    Raises `BadInput` for codes outside the table, rows of `target` that are no probabilities, or a value that is infinite
    because the discount is 1 and the target policy can go on for ever.
    """
    states, actions = target.shape
    for name, column, size in (("state", state, states), ("next_state", next_state, states), ("action", action, actions)):
        wrong = np.flatnonzero((column < 0) | (column >= size))
        if len(wrong):
            raise BadInput(f"{name} is {column[wrong[0]]} in row {wrong[0]}: the table has {size}, numbered from 0")
    wrong = np.flatnonzero(~(np.abs(target.sum(axis=1) - 1) < 1e-4) | (target.min(axis=1) < 0))
    if len(wrong):
        raise BadInput(f"the target policy's probabilities in state {wrong[0]} are negative or don't add up to 1")
    size = states * actions
    if len(state) != len(action):
        raise BadInput(f"{len(action)} actions for {len(state)} states: all columns have one row per step")
    pair = np.asarray(state, np.int64) * actions + action
    choices = scipy.sparse.csr_array(  # [state, pair]: the features of a state under the target policy
        (target.reshape(-1), np.arange(size), np.arange(states + 1) * actions), shape=(states, size)
    )
    features = scipy.sparse.csr_array((np.ones(len(pair)), pair, np.arange(len(pair) + 1)), shape=(len(pair), size))
    counts = np.bincount(pair, minlength=size)
    starts = _starts(lengths, len(pair))
    fitted = _fit(
        features, choices[next_state], np.asarray(reward, np.float64), terminal, choices[np.asarray(state)[starts]], lengths,
        (counts == 0).astype(np.float64), discount, horizon, group, unit, level,
    )  # fmt: skip
    return FittedQ(fitted.weights.reshape(states, actions), fitted.estimate)


def linear(
    features: Float[np.ndarray, "row feature"],
    next_features: Float[np.ndarray, "row feature"],
    reward: Real[np.ndarray, " row"],
    terminal: Bool[np.ndarray, " row"],
    start_features: Float[np.ndarray, "episode feature"],
    lengths: Int[np.ndarray, " episode"],
    *,
    discount: float,
    horizon: int = 0,
    ridge: float = 1e-6,
    group: Int[np.ndarray, " episode"] | None = None,
    unit: str = "episode",
    level: float = 0.95,
) -> FittedQ:
    """Fitted Q evaluation with q linear in features of (state, action).

    `features` are those of the logged pairs; `next_features` and `start_features` are the mean over the target policy's actions
    in the next state and in the first state of each episode. `ridge` times the mean square of the features is added to the
    normal equations. The estimate warns where the iteration would diverge on these features.

    Raises `BadInput` for features that are not finite or columns that don't fit together.
    """
    for name, table in (("features", features), ("next_features", next_features), ("start_features", start_features)):
        if not np.all(np.isfinite(table)):
            row = np.argwhere(~np.isfinite(table))[0][0]
            raise BadInput(f"{name} hold a value that is not finite in row {row}: mend or leave out that row")
    penalty = np.full(features.shape[1], ridge * np.sum(features**2) / features.shape[1])
    return _fit(
        features, next_features, np.asarray(reward, np.float64), terminal, start_features, lengths, penalty, discount, horizon,
        group, unit, level,
    )  # fmt: skip


def _fit(
    features: Matrix, next_features: Matrix, reward: np.ndarray, terminal: np.ndarray, start_features: Matrix, lengths: np.ndarray,
    penalty: np.ndarray, discount: float, horizon: int, group: np.ndarray | None, unit: str, level: float,
) -> FittedQ:  # fmt: skip
    """Iterate or solve for the weights, then walk back once for the influence of every row on the estimate."""
    require_column("reward", reward, len(reward))
    require_group(group, len(lengths))
    rows = {"next": next_features.shape[0], "terminal": len(terminal), "features (state and action)": features.shape[0]}
    for name, count in rows.items():
        if count != len(reward):
            raise BadInput(f"{name} has {count} rows for {len(reward)} of reward: all columns have one row per step")
    if start_features.shape[0] != len(lengths):
        raise BadInput(f"{start_features.shape[0]} first states for {len(lengths)} episodes: give one per episode")
    starts = _starts(lengths, len(reward))
    if not 0 <= discount <= 1 or horizon < 0:
        raise BadInput(
            f"discount {discount}, horizon {horizon}: the discount lies between 0 and 1, the horizon is 0 or more steps"
        )
    goes_on = discount * ~terminal
    ahead = (
        _diagonal(goes_on, features) @ next_features if scipy.sparse.issparse(features) else next_features * goes_on[:, None]
    )
    gram = features.T @ features + _diagonal(penalty, features)
    shift = features.T @ ahead
    moment = features.T @ reward
    first = np.asarray(start_features.sum(axis=0)).reshape(-1) / len(lengths)
    # `adjoint` says how much the estimate moves with each feature's residual; summed over the iterations where there are several.
    if horizon == 0:
        solve = _factorised(gram - shift)
        weights = solve(moment, False)
        adjoint = solve(first, True)
        influence = (features @ adjoint) * (reward + ahead @ weights - features @ weights)
    else:
        solve = _factorised(gram)
        every = [np.zeros(len(moment))]
        for _ in range(horizon):
            every.append(solve(moment + shift @ every[-1], False))
        weights, toward, adjoint, influence = every[-1], first, np.zeros(len(first)), np.zeros(len(reward))
        for step in range(horizon, 0, -1):
            part = solve(toward, True)
            influence += (features @ part) * (reward + ahead @ every[step - 1] - features @ every[step])
            adjoint += part
            toward = shift.T @ part
    if not np.all(np.isfinite(weights)):
        raise BadInput(
            "fitted Q evaluation gives values that are not finite: use a discount below 1, a horizon or fewer features"
        )
    by_start = start_features @ weights
    by_episode = np.add.reduceat(_deleted(influence, features, gram), starts)
    contributions = by_start + len(lengths) * (by_episode - by_episode.mean())
    return FittedQ(weights, _described(
        contributions, features @ adjoint, reward, len(lengths), group, unit, level,
        (*_missing(gram, adjoint, penalty, features), *_divergence(gram, shift, features, horizon)),
    ))  # fmt: skip


def _deleted(influence: np.ndarray, features: Matrix, gram: Matrix) -> np.ndarray:
    """Each row's influence as if the row had no part in its own fit: over 1 - leverage (the jackknife's correction, HC3)."""
    if scipy.sparse.issparse(features):
        leverage = features.multiply(features) @ (1 / gram.diagonal())
    else:
        leverage = np.einsum("nd,nd->n", features, np.linalg.solve(gram, features.T).T)
    alone = leverage > 1 - 1e-9  # a pair seen once fits itself exactly
    return influence / np.where(alone, 1.0, 1 - leverage)


def _described(
    contributions: np.ndarray, pull: np.ndarray, reward: np.ndarray, episodes: int, group: np.ndarray | None, unit: str,
    level: float, cautions: tuple[str, ...],
) -> Estimate:  # fmt: skip
    """The estimate; its weights are each row's pull relative to the mean: the ratio of the target's visits to the log's."""
    weights = pull / pull.mean() if pull.mean() != 0 else np.zeros(len(pull))
    units = episodes if group is None else len(np.unique(group))
    cautions = (*cautions, *caution_about_size(weights, units, unit))
    words = "it needs no propensities but trusts the features: unverified until the policy is tried"
    return estimate_of(
        "FQE", contributions, level=level, unit=unit, group=group, weights=weights, matched=matches(weights, reward),
        cautions=(*cautions, words),
    )  # fmt: skip


def _missing(gram: Matrix, adjoint: np.ndarray, penalty: np.ndarray, features: Matrix) -> tuple[str, ...]:
    """For tables: the share of the target's discounted time on pairs that the log never holds."""
    if isinstance(features, np.ndarray):
        return ()
    visits = gram.diagonal() * adjoint
    share = float(visits[penalty > 0].sum() / visits.sum())
    if share <= NEVER_LOGGED:
        return ()
    return (
        f"the target policy would spend {share:.1%} of its discounted time on pairs that were never logged (value taken as 0)",
    )


def _divergence(gram: Matrix, shift: Matrix, features: Matrix, horizon: int) -> tuple[str, ...]:
    """For dense features without a horizon: whether repeated regression would leave the solution that was solved for."""
    if horizon or not isinstance(features, np.ndarray):
        return ()
    radius = float(np.abs(np.linalg.eigvals(np.linalg.solve(gram, shift))).max())
    return (f"repeated regression would diverge on these features (spectral radius {radius:.3g})",) if radius >= 1 else ()


def _diagonal(values: np.ndarray, like: Matrix) -> Matrix:
    return scipy.sparse.csr_array(scipy.sparse.diags_array(values)) if scipy.sparse.issparse(like) else np.diag(values)


def _factorised(matrix: Matrix) -> Callable[[np.ndarray, bool], np.ndarray]:
    """A solver of `matrix x = b`, or of its transpose."""
    words = "the value is not determined: with discount 1 every way must end, or give a horizon; linear features must differ"
    if scipy.sparse.issparse(matrix):
        try:
            sparse = scipy.sparse.linalg.splu(scipy.sparse.csc_array(matrix))
        except RuntimeError as problem:
            raise BadInput(words) from problem
        return lambda b, transposed: sparse.solve(b, trans="T" if transposed else "N")
    if np.linalg.matrix_rank(matrix) < len(matrix):
        raise BadInput(words)
    dense = scipy.linalg.lu_factor(matrix)
    return lambda b, transposed: scipy.linalg.lu_solve(dense, b, trans=1 if transposed else 0)


def _starts(lengths: np.ndarray, rows: int) -> np.ndarray:
    if len(lengths) < 2 or lengths.min() < 1 or lengths.sum() != rows:
        raise BadInput(
            f"{len(lengths)} episodes with {lengths.sum()} steps for {rows} rows: give two or more that add up to them"
        )
    return np.cumsum(lengths) - lengths
