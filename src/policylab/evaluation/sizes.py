"""How much there is in a recording: counts, returns, rewards, actions."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float

from policylab import spaces
from policylab.data.recording import Recording
from policylab.evaluation.rows import Rows


@dataclass(frozen=True)
class Spread:
    """A distribution in eight numbers."""

    mean: float
    deviation: float
    least: float
    lower: float
    median: float
    upper: float
    most: float
    count: int

    @staticmethod
    def of(values: Float[np.ndarray, " value"]) -> Spread:
        """Mean, standard deviation, and the quantiles 0, 5, 50, 95 and 100%."""
        numbers = np.quantile(values, (0, 0.05, 0.5, 0.95, 1)) if len(values) else np.zeros(5)
        return Spread(float(values.mean()), float(values.std()), *map(float, numbers), len(values))


@dataclass(frozen=True)
class ActionColumn:
    """One number of the action: its bounds (None: unbounded), its range in the data, and the share within 1% of a bound."""

    name: str
    low: float | None
    high: float | None
    least: float
    most: float
    saturated: float


@dataclass(frozen=True)
class Size:
    """Counts and distributions. `usual_reward` is the commonest value and `usual_share` how many steps have it (the sparsity);
    `positive` and `zero` are shares of the episodes' returns, `top_mean` the mean return of the best tenth of the episodes.
    `success` is the share of episodes with a success, where that was logged. `counts` says how often each choice was taken."""

    episodes: int
    steps: int
    length: Spread
    horizon: int
    control_rate: float
    terminal: int
    truncated: int
    observation: str
    action: str
    discrete: bool
    single: bool
    objectives: int
    returns: Spread | None
    top_mean: float | None
    positive: float | None
    zero: float | None
    rewards: Spread | None
    usual_reward: float | None
    usual_share: float | None
    success: float | None
    propensities: bool
    groups: int | None
    largest_group: int | None
    actions: tuple[ActionColumn, ...]
    counts: tuple[int, ...]
    memory: int


def measure_size(recording: Recording, rows: Rows) -> Size:
    """All counts of the whole recording; the ranges and saturation of actions from the looked-at rows."""
    reward = None if recording.reward is None else np.asarray(recording.reward, np.float64).reshape(recording.steps, -1)
    returns = total_returns(recording)
    usual = None if reward is None else np.unique(reward.sum(axis=1), return_counts=True)
    groups = np.unique(np.asarray(recording.extra["group"]), return_counts=True)[1] if "group" in recording.extra else None
    success = None
    if "success" in recording.extra:
        success = float((np.maximum.reduceat(np.asarray(recording.extra["success"], np.float64), recording.starts) > 0).mean())
    discrete = all(column.choices for column in rows.action_columns)
    single = recording.spec.action if isinstance(recording.spec.action, spaces.Discrete) else None
    best = None if returns is None else np.sort(returns)[-max(1, len(returns) // 10) :]
    leaves = jax.tree.leaves((recording.observation, recording.action))
    return Size(
        episodes=recording.episodes,
        steps=recording.steps,
        length=Spread.of(np.asarray(recording.lengths, np.float64)),
        horizon=recording.spec.horizon,
        control_rate=recording.spec.control_rate,
        terminal=int(np.sum(recording.terminal)),
        truncated=int(np.sum(recording.truncated)),
        observation=spaces.describe(recording.spec.observation),
        action=spaces.describe(recording.spec.action),
        discrete=discrete,
        single=not rows.sequential,
        objectives=0 if reward is None else reward.shape[1],
        returns=None if returns is None else Spread.of(returns),
        top_mean=None if best is None else float(best.mean()),
        positive=None if returns is None else float((returns > 0).mean()),
        zero=None if returns is None else float((returns == 0).mean()),
        rewards=None if reward is None else Spread.of(reward.sum(axis=1)),
        usual_reward=None if usual is None else float(usual[0][usual[1].argmax()]),
        usual_share=None if usual is None else float(usual[1].max() / recording.steps),
        success=success,
        propensities="propensity" in recording.extra,
        groups=None if groups is None else len(groups),
        largest_group=None if groups is None else int(groups.max()),
        actions=_action_columns(recording.spec.action, rows),
        counts=() if single is None else tuple(map(int, np.bincount(np.asarray(recording.action), minlength=single.n))),
        memory=sum(leaf.nbytes for leaf in leaves),
    )


def total_returns(recording: Recording) -> Float[np.ndarray, " episode"] | None:
    """The return of every episode, objectives added up; None without rewards."""
    if recording.reward is None:
        return None
    return recording.returns.reshape(recording.episodes, -1).sum(axis=1)


def _action_columns(space: spaces.Space, rows: Rows) -> tuple[ActionColumn, ...]:
    low, high = _bounds(space)
    found = []
    for i, column in enumerate(rows.action_columns):
        if column.choices:
            continue
        values = rows.action[:, i]
        margin = 0.01 * (high[i] - low[i])
        bounded = bool(np.isfinite(margin))
        at_bound = np.mean((values <= low[i] + margin) | (values >= high[i] - margin)) if bounded else 0.0
        ends = [float(end[i]) if np.isfinite(end[i]) else None for end in (low, high)]
        found.append(ActionColumn(column.name, *ends, float(values.min()), float(values.max()), float(at_bound)))
    return tuple(found)


def _bounds(space: spaces.Space) -> tuple[Float[np.ndarray, " column"], Float[np.ndarray, " column"]]:
    match space:
        case spaces.Discrete():
            return np.zeros(1), np.full(1, float(space.n - 1))
        case spaces.Box():
            low, high = space.bounds()
            return low.reshape(-1).astype(np.float64), high.reshape(-1).astype(np.float64)
        case spaces.Composite():
            pairs = [_bounds(part) for _, part in space.parts]
            return np.concatenate([low for low, _ in pairs]), np.concatenate([high for _, high in pairs])
