"""What a policy would have earned, estimated from a log that another policy wrote: the estimate, its interval, its cautions.

`logged_bandits` and `logged_episodes` hold the estimators, `fitted_q` fitted Q evaluation. All of them reduce to one number per
independent unit (an episode, a row, a user with all their rows) whose mean is the estimate; for ratios these numbers are the
jackknife's, for fitted Q evaluation its influence function. So one interval, one clustering and one paired difference serve all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from policylab.errors import BadInput
from policylab.evaluation.statistics import interval

MATCHED_WEIGHT = 1 - 1e-9
FEW_EFFECTIVE_UNITS = 30
FEW_MATCHED_POSITIVES = 10


@dataclass(frozen=True)
class Estimate:
    """The estimated value of a target policy.

    `interval` is for the mean over `units` independent units of kind `unit` (Student's t below 30 units, else the bootstrap).
    Where no reward is negative, it also covers the interval that one more unit would give which holds the largest reward at the
    largest weight of the log: a log without any matched positive then reaches from 0 to about 3 such units, instead of width 0.

    Measured on the processes of the tests, 95% intervals held the truth in 93 to 96% of one-step logs of 100 to 2,000 rows, and
    in 96% or more where 1 to 30 matched positives were expected; over short episodes, whose weights are skewed, in 91 to 94% at
    effective sizes from 28 to 81 and 89 to 94% at 11.

    `effective_sample_size` is Kish's share (sum w)^2 / (n sum w^2) of the importance weights times `units`. `matched_positives`
    counts the logged rows (episodes) with positive reward (return) whose weight is at least 1: what was earned by doing what the
    target policy does at least as readily as the logging policy did; the estimate can have learned about success from nothing
    else. `warning` is empty or says why not to lean on the number. `contributions` has one number per unit, with mean `value`.
    """

    name: str
    value: float
    interval: tuple[float, float]
    level: float
    effective_sample_size: float
    matched_positives: int
    max_weight: float
    units: int
    unit: str
    warning: str
    contributions: np.ndarray = field(repr=False, compare=False)
    unseen: float = field(default=float("nan"), repr=False, compare=False)


@runtime_checkable
class Log(Protocol):
    """A log of another policy's experience with an estimate of what that policy earned itself."""

    def logging_value(self, level: float = 0.95) -> Estimate:
        """The logging policy's own mean, on the same units as every other estimate from this log."""
        ...


def difference(first: Estimate, second: Estimate) -> Estimate:
    """`first` minus `second`, paired by unit: both must come from the same log. Counts and weights are those of `first`.

    Raises `BadInput` where the units or the levels differ.
    """
    if (first.units, first.unit, first.level) != (second.units, second.unit, second.level):
        raise BadInput(
            f"{first.name} rests on {first.units} units ({first.unit}) at level {first.level} and {second.name} on {second.units} "
            f"({second.unit}) at {second.level}: take the difference of two estimates from the same log"
        )
    contributions = first.contributions - second.contributions
    unseen = first.unseen - second.unseen
    return Estimate(
        f"{first.name} - {second.name}", first.value - second.value, _interval(contributions, unseen, first.level), first.level,
        first.effective_sample_size, first.matched_positives, first.max_weight, first.units, first.unit,
        "; ".join(dict.fromkeys(words for words in (first.warning, second.warning) if words)), contributions, unseen,
    )  # fmt: skip


def difference_to_logging(estimate: Estimate, log: Log) -> Estimate:
    """How much more the target policy would earn than the logging policy did, paired on the units of `log`."""
    return difference(estimate, log.logging_value(estimate.level))


def estimate_of(
    name: str,
    contributions: Float[np.ndarray, " row"],
    *,
    level: float,
    unit: str,
    group: Int[np.ndarray, " row"] | None = None,
    weights: Float[np.ndarray, " weighted"] | None = None,
    matched: int,
    unseen: float = float("nan"),
    cautions: tuple[str, ...] = (),
) -> Estimate:
    """An estimate from one contribution per row, rows of one `group` making one unit.

    With C groups and n rows a group counts value + C / n * (sum over its rows of contribution - value), so that the mean over
    groups is the mean over rows and the variance that of the ratio of sums. `weights` None: the estimate uses none.
    """
    value = float(contributions.mean())
    if group is not None:
        codes = np.unique(group, return_inverse=True)[1]
        scale = (codes.max() + 1) / len(codes)
        contributions = value + scale * np.bincount(codes, contributions - value)
        unseen = value + scale * (unseen - value)
    units = len(contributions)
    weights = np.ones(1) if weights is None else weights
    largest = float(weights.max())
    effective = units * effective_share(weights)
    return Estimate(
        name, value, _interval(contributions, unseen, level), level, effective, matched, largest, units, unit,
        "; ".join(cautions), contributions, unseen,
    )  # fmt: skip


def collected(
    methods: Mapping[str, Callable[..., Estimate]], log: Log, level: float, units: int, unit: str
) -> dict[str, Estimate]:
    """What each method says about the log, by name; NaN with the reason as its warning where a method cannot say anything."""
    found = {}
    for name, method in methods.items():
        try:
            found[name] = method(log, level)
        except BadInput as problem:
            nan = float("nan")
            found[name] = Estimate(name, nan, (nan, nan), level, 0.0, 0, nan, units, unit, str(problem), np.full(units, nan))
    return found


def ratio_contributions(
    scale: Float[np.ndarray, "row *time"], numbers: Float[np.ndarray, "row *time"], group: Int[np.ndarray, " row"] | None = None
) -> Float[np.ndarray, "row *time"]:
    """Each row's contribution to the weighted mean of `numbers` over rows (at every time), where the weights average 1.

    These are the pseudo-values of the jackknife (leave one row, or its whole group, out), shifted so that their mean is the
    weighted mean itself: where few rows hold most of the weight the first-order expansion is too narrow, and these are not.
    """
    share, units = scale / len(scale), len(scale)
    if group is not None:
        codes = np.unique(group, return_inverse=True)[1]
        units = int(codes.max()) + 1
        totals = np.zeros((units, *share.shape[1:]))
        np.add.at(totals, codes, share)
        share = totals[codes]
    means = np.mean(scale * numbers, axis=0)
    # What holds all the weight has nothing to differ from: its deviation is 0, not 0 / 0.
    off = scale * (numbers - means) / np.where(share < 1 - 1e-9, 1 - share, np.inf)
    return means + (units - 1) / units * (off - off.mean(axis=0))


def effective_share(weights: Float[np.ndarray, " row"]) -> float:
    """Kish's effective sample size as a share of the rows: (sum w)^2 / (n sum w^2); 0 where all weights are 0."""
    squares = float(np.sum(weights**2))
    return float(np.sum(weights)) ** 2 / (len(weights) * squares) if squares > 0 else 0.0


def matches(weights: Float[np.ndarray, " row"], reward: Float[np.ndarray, " row"]) -> int:
    """How many rows have a positive reward and a weight of at least 1."""
    return int(np.sum((weights >= MATCHED_WEIGHT) & (reward > 0)))


def cautions_about(
    weights: Float[np.ndarray, " row"], units: int, unit: str, matched: int, *, rewards_are_gains: bool
) -> tuple[str, ...]:
    """What is doubtful about an estimate with these importance weights, in words."""
    found = []
    error = weights.std() / np.sqrt(len(weights))
    if abs(weights.mean() - 1) > max(4 * error, 1e-6):
        found.append(
            f"the importance weights average {weights.mean():.3g} where 1 is expected: the propensities are wrong, or the target "
            "policy takes actions that the log (nearly) never holds"
        )
    found += caution_about_size(weights, units, unit)
    if rewards_are_gains and matched < FEW_MATCHED_POSITIVES:
        found.append(
            f"only {matched} logged {'positive matches' if matched == 1 else 'positives match'} what the target policy does: "
            "collect more, or log nearer to it"
        )
    return tuple(found)


def caution_about_size(weights: Float[np.ndarray, " row"], units: int, unit: str) -> tuple[str, ...]:
    """Whether so few units hold the weight that the interval cannot be trusted, in words."""
    effective = units * effective_share(weights)
    if effective >= FEW_EFFECTIVE_UNITS:
        return ()
    return (f"the effective sample size is {effective:.1f} of {units:,} ({unit}): the interval is too narrow to be trusted",)


def require_column(name: str, values: np.ndarray, rows: int, *, above: float = -np.inf, at_least: float = -np.inf) -> None:
    """Raise `BadInput` naming the first offending row unless `values` is a finite column of this length and range."""
    if values.shape != (rows,):
        raise BadInput(f"{name} has shape {values.shape} for {rows} rows of reward: give one number per row")
    wrong = np.flatnonzero(~(np.isfinite(values) & (values > above) & (values >= at_least)))
    if len(wrong):
        limit = f"above {above:g}" if above > -np.inf else f"at least {at_least:g}" if at_least > -np.inf else "a finite number"
        raise BadInput(f"{name} is {values[wrong[0]]} in row {wrong[0]} ({len(wrong)} rows in all): it must be {limit}")


def require_group(group: Int[np.ndarray, " _"] | None, rows: int) -> None:
    """Raise `BadInput` unless `group` is None or has one integer code per row, at least two different ones."""
    if group is not None and (len(group) != rows or len(np.unique(group)) < 2):
        raise BadInput(
            f"group has {len(group)} codes for {rows} rows: give one integer per row, and at least two different groups"
        )


def _interval(contributions: np.ndarray, unseen: float, level: float) -> tuple[float, float]:
    found = interval(contributions, level)
    if np.isnan(unseen):
        return found.low, found.high
    more = interval(np.append(contributions, unseen), level)
    return min(found.low, more.low), max(found.high, more.high)
