"""Off-policy estimates from one-step logs: each row is a context, the action that was taken, its propensity and its reward.

Notation: w = target / propensity of the logged action, q the reward model, `predicted` q of the logged action, `expected` the
mean of q over the target policy's actions. A reward model must not have been fitted on the rows it is used on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Real

from policylab.errors import BadInput
from policylab.evaluation.off_policy import (
    Estimate,
    cautions_about,
    collected,
    estimate_of,
    matches,
    ratio_contributions,
    require_column,
    require_group,
)

Column = Float[np.ndarray, " row"]


@dataclass(frozen=True)
class BanditLog:
    """Rows of one decision each, as columns of equal length.

    `propensity` is the probability (density) that the logging policy gave to the logged action, `target` what the policy to be
    evaluated gives to it. `predicted` and `expected` come from a reward model, together or not at all. Rows of one `group` (a
    user, a session) are not independent and make one unit. `unit` names the unit in words.

    Raises `BadInput` for columns of different lengths, values that are not finite, propensities that are not positive.
    """

    reward: np.ndarray
    propensity: np.ndarray
    target: np.ndarray
    predicted: np.ndarray | None = None
    expected: np.ndarray | None = None
    group: np.ndarray | None = None
    unit: str = "row"

    def __post_init__(self) -> None:
        for name in ("reward", "propensity", "target", "predicted", "expected"):
            if (column := getattr(self, name)) is not None:  # sums of many rows need double precision
                object.__setattr__(self, name, np.asarray(column, np.float64))
        rows = len(self.reward)
        if rows < 2:
            raise BadInput(f"the log has {rows} row: an estimate with an interval needs at least two")
        require_column("reward", self.reward, rows)
        require_column("propensity", self.propensity, rows, above=0.0)
        require_column("target", self.target, rows, at_least=0.0)
        if (self.predicted is None) != (self.expected is None):
            raise BadInput("predicted and expected come from one reward model: give both or neither")
        if self.predicted is not None and self.expected is not None:
            require_column("predicted", self.predicted, rows)
            require_column("expected", self.expected, rows)
        require_group(self.group, rows)

    @staticmethod
    def of_choices(
        reward: Real[np.ndarray, " row"],
        action: Int[np.ndarray, " row"],
        propensity: Float[np.ndarray, " row"],
        probabilities: Float[np.ndarray, "row choice"],
        *,
        rewards: Float[np.ndarray, "row choice"] | None = None,
        group: Int[np.ndarray, " row"] | None = None,
        unit: str = "row",
    ) -> BanditLog:
        """The log for a target policy that gives `probabilities` to listed choices, with a reward model's `rewards` of each.

        Raises `BadInput` for probabilities that don't add up to 1, actions outside the choices, propensities above 1.
        """
        totals = probabilities.sum(axis=1)
        wrong = np.flatnonzero(~(np.abs(totals - 1) < 1e-4) | (probabilities.min(axis=1) < 0))
        if len(wrong):
            raise BadInput(
                f"the target policy's probabilities in row {wrong[0]} add up to {totals[wrong[0]]:.6g} or are negative"
            )
        wrong = np.flatnonzero((action < 0) | (action >= probabilities.shape[1]))
        if len(wrong):
            raise BadInput(
                f"action {action[wrong[0]]} in row {wrong[0]} is none of the {probabilities.shape[1]} choices, numbered from 0"
            )
        wrong = np.flatnonzero(propensity > 1 + 1e-6)
        if len(wrong):
            raise BadInput(f"propensity is {propensity[wrong[0]]} in row {wrong[0]}: a probability is at most 1")
        rows = np.arange(len(action))
        predicted = expected = None
        if rewards is not None:
            predicted, expected = rewards[rows, action], np.sum(probabilities * rewards, axis=1)
        return BanditLog(reward, propensity, probabilities[rows, action], predicted, expected, group, unit)

    @property
    def weights(self) -> Column:
        """Importance weights, [row]."""
        return self.target / self.propensity

    def logging_value(self, level: float = 0.95) -> Estimate:
        """The mean reward of the logging policy."""
        weights = np.ones(len(self.reward))
        return _estimate("logging", self.reward, self, level, weights, unseen=self.reward.max(), cautions=False)


def importance_sampling(log: BanditLog, level: float = 0.95) -> Estimate:
    """IPS: mean of w r (Horvitz & Thompson 1952). Unbiased where the log holds every action that the target takes."""
    weights = log.weights
    return _estimate("IPS", weights * log.reward, log, level, weights, unseen=weights.max() * log.reward.max())


def weighted_importance_sampling(log: BanditLog, level: float = 0.95) -> Estimate:
    """SNIPS: sum of w r over sum of w (Swaminathan & Joachims 2015). Slightly biased, indifferent to a shift of the rewards."""
    weights = _some(log.weights)
    scale = weights / weights.mean()
    contributions = ratio_contributions(scale, log.reward, log.group)
    unseen = contributions.mean() + scale.max() * (log.reward.max() - contributions.mean())
    return _estimate("SNIPS", contributions, log, level, weights, unseen=unseen)


def direct(log: BanditLog, level: float = 0.95) -> Estimate:
    """DM: the mean of what the reward model expects of the target policy; as biased as the model is."""
    _, expected = _model(log)
    words = "it rests on the reward model alone, whose own error the interval leaves out"
    return estimate_of(
        "DM", expected, level=level, unit=log.unit, group=log.group, matched=matches(log.weights, log.reward), cautions=(words,)
    )


def doubly_robust(log: BanditLog, level: float = 0.95) -> Estimate:
    """DR: mean of expected + w (r - predicted) (Dudik, Langford & Li 2011). Unbiased if propensities or model are right."""
    return _corrected("DR", log, level, log.weights)


def self_normalised_doubly_robust(log: BanditLog, level: float = 0.95) -> Estimate:
    """SNDR: DR whose correction is divided by the mean weight (Thomas & Brunskill 2016)."""
    return _corrected("SNDR", log, level, _some(log.weights), normalised=True)


def switch_doubly_robust(log: BanditLog, level: float = 0.95, *, threshold: float | None = None) -> Estimate:
    """Switch-DR: DR that trusts the model alone where w exceeds `threshold` (Wang, Agarwal & Dudik 2017).

    Without a threshold the one with the least estimated variance + squared bias bound is taken, among 20 quantiles of the
    weights and infinity; the bias bound of a threshold is the target's share of the rows beyond it
    times the range of the rewards. The interval leaves out the bias that remains.
    """
    predicted, expected = _model(log)
    weights = log.weights
    if threshold is None:
        reach = np.ptp(log.reward)
        candidates = np.append(np.unique(np.quantile(weights, np.linspace(0.05, 1.0, 20))), np.inf)
        risks = []
        for candidate in candidates:
            kept = np.where(weights <= candidate, weights, 0.0)
            variance = np.var(expected + kept * (log.reward - predicted)) / len(weights)
            risks.append(variance + (np.mean(weights - kept) * reach) ** 2)
        threshold = float(candidates[int(np.argmin(risks))])
    kept = np.where(weights <= threshold, weights, 0.0)
    dropped = float(np.mean(weights - kept))
    words = f"{dropped:.1%} of the target policy's choices rest on the reward model alone" if dropped > 0.01 else ""
    return _corrected("Switch-DR", log, level, kept, caution=words)


def estimates(log: BanditLog, level: float = 0.95) -> dict[str, Estimate]:
    """Every estimate that the log allows, by name: IPS and SNIPS, with a reward model also DM, DR, SNDR and Switch-DR.

    One that cannot be computed (all its weights are 0) has the value NaN and a warning that says why.
    """
    methods = {"IPS": importance_sampling, "SNIPS": weighted_importance_sampling}
    if log.predicted is not None:
        methods |= {"DM": direct, "DR": doubly_robust, "SNDR": self_normalised_doubly_robust, "Switch-DR": switch_doubly_robust}
    units = len(log.reward) if log.group is None else len(np.unique(log.group))
    return collected(methods, log, level, units, log.unit)


def _corrected(
    name: str, log: BanditLog, level: float, weights: Column, *, normalised: bool = False, caution: str = ""
) -> Estimate:
    """The model's expectation plus the weighted residual."""
    predicted, expected = _model(log)
    residual = log.reward - predicted
    scaled = weights / weights.mean() if normalised else weights
    contributions = expected + (ratio_contributions(scaled, residual, log.group) if normalised else scaled * residual)
    unseen = contributions.mean() + scaled.max() * (log.reward.max() - predicted.mean())
    return _estimate(name, contributions, log, level, weights, unseen=unseen, extra=caution)


def _estimate(
    name: str, contributions: Column, log: BanditLog, level: float, weights: Column, *, unseen: float, cautions: bool = True,
    extra: str = "",
) -> Estimate:  # fmt: skip
    gains = bool(log.reward.min() >= 0)
    matched = matches(weights, log.reward)
    units = len(log.reward) if log.group is None else len(np.unique(log.group))
    words = cautions_about(log.weights, units, log.unit, matched, rewards_are_gains=gains) if cautions else ()
    return estimate_of(
        name, contributions, level=level, unit=log.unit, group=log.group, weights=weights, matched=matched,
        unseen=float(unseen) if gains else float("nan"), cautions=(*words, *([extra] if extra else [])),
    )  # fmt: skip


def _model(log: BanditLog) -> tuple[Column, Column]:
    if log.predicted is None or log.expected is None:
        raise BadInput(
            "this estimate needs a reward model: give predicted (of the logged action) and expected (under the target)"
        )
    return log.predicted, log.expected


def _some(weights: Column) -> Column:
    if not weights.any():
        raise BadInput("the target policy takes none of the logged actions: no row of this log says anything about it")
    return weights
