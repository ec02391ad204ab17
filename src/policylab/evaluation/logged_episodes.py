"""Off-policy estimates from logged episodes: importance sampling, per-decision, weighted, and doubly robust.

Notation: rho_t is the product of target / propensity over the actions 0 ... t of an episode, G its discounted return, q a model
of action values, v(s) the mean of q over the target's actions. An episode that has ended keeps its rho and earns nothing more.
The estimated value is the discounted return up to each episode's end or time limit, from where the logged episodes start.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

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

PerEpisode = Float[np.ndarray, " episode"]
Grid = Float[np.ndarray, "episode time"]


@dataclass(frozen=True)
class EpisodeLog:
    """Consecutive episodes of `lengths` steps; the other columns have one number per step, episode after episode.

    `propensity` is the probability (density) that the logging policy gave to the logged action, `target` what the policy to be
    evaluated gives to it. `predicted` (q of the logged pair) and `expected` (v of the state) come from one model such as
    `fitted_q`, together or not at all, and not fitted on these episodes; v must be the mean of that q over the target's actions,
    for v and q fitted apart bias every doubly robust estimate. `group` (one code per episode: a user, a site) joins
    episodes that are not independent into one unit.

    Raises `BadInput` for columns of different lengths, values that are not finite, propensities that are not positive.
    """

    reward: np.ndarray
    propensity: np.ndarray
    target: np.ndarray
    lengths: np.ndarray
    discount: float = 1.0
    predicted: np.ndarray | None = None
    expected: np.ndarray | None = None
    group: np.ndarray | None = None
    unit: str = "episode"

    def __post_init__(self) -> None:
        for name in ("reward", "propensity", "target", "predicted", "expected"):
            if (column := getattr(self, name)) is not None:
                object.__setattr__(self, name, np.asarray(column, np.float64))
        rows = len(self.reward)
        if len(self.lengths) < 2 or self.lengths.min() < 1 or self.lengths.sum() != rows:
            raise BadInput(
                f"{len(self.lengths)} episodes with {self.lengths.sum()} steps for {rows} rows: give at least two episodes, each "
                "with at least one step, that add up to the rows"
            )
        require_column("reward", self.reward, rows)
        require_column("propensity", self.propensity, rows, above=0.0)
        require_column("target", self.target, rows, at_least=0.0)
        if not 0 <= self.discount <= 1:
            raise BadInput(f"the discount is {self.discount}: give a number from 0 to 1")
        if (self.predicted is None) != (self.expected is None):
            raise BadInput("predicted and expected come from one model: give both or neither")
        if self.predicted is not None and self.expected is not None:
            require_column("predicted", self.predicted, rows)
            require_column("expected", self.expected, rows)
        require_group(self.group, len(self.lengths))

    def grid(self, column: np.ndarray, *, empty: float = 0.0) -> Grid:
        """A column as [episode, time], padded with `empty` behind each episode's end."""
        inside = np.arange(self.lengths.max()) < self.lengths[:, None]
        table = np.full(inside.shape, empty)
        table[inside] = column
        return table

    @cached_property
    def ratios(self) -> Grid:
        """rho_t, [episode, time]. Raises `BadInput` where a product of ratios is too large for a number."""
        with np.errstate(over="ignore"):
            products = np.cumprod(self.grid(self.target / self.propensity, empty=1.0), axis=1)
        wrong = np.argwhere(~np.isfinite(products))
        if len(wrong):
            raise BadInput(
                f"the importance weight of episode {wrong[0, 0]} overflows at step {wrong[0, 1]}: the target policy is too far from "
                "the logging policy for importance sampling over this horizon; use fitted Q evaluation"
            )
        return products

    @cached_property
    def discounts(self) -> Float[np.ndarray, " time"]:
        """discount ** t."""
        return self.discount ** np.arange(self.lengths.max())

    @cached_property
    def returns(self) -> PerEpisode:
        """Discounted return of every episode."""
        return self.grid(self.reward) @ self.discounts

    @property
    def weights(self) -> PerEpisode:
        """The importance weight of every whole episode."""
        return self.ratios[:, -1]

    def logging_value(self, level: float = 0.95) -> Estimate:
        """The mean return of the logging policy."""
        weights = np.ones(len(self.lengths))
        return _estimate("logging", self.returns, self, level, weights, unseen=self.returns.max(), cautions=False)


def importance_sampling(log: EpisodeLog, level: float = 0.95) -> Estimate:
    """IS: mean of rho G (Precup, Sutton & Singh 2000). Unbiased; its variance grows exponentially with the horizon."""
    return _estimate("IS", log.weights * log.returns, log, level, log.weights, unseen=log.weights.max() * log.returns.max())


def weighted_importance_sampling(log: EpisodeLog, level: float = 0.95) -> Estimate:
    """WIS: sum of rho G over sum of rho. Consistent, biased towards the logging policy's value while episodes are few."""
    scale = _normalised(log.weights)
    contributions = ratio_contributions(scale, log.returns, log.group)
    unseen = contributions.mean() + scale.max() * (log.returns.max() - contributions.mean())
    return _estimate("WIS", contributions, log, level, log.weights, unseen=unseen)


def per_decision(log: EpisodeLog, level: float = 0.95) -> Estimate:
    """PDIS: mean of the sum of discount^t rho_t r_t (Precup, Sutton & Singh 2000). Unbiased: rewards don't wait for the future."""
    contributions = (log.ratios * log.grid(log.reward)) @ log.discounts
    return _estimate("PDIS", contributions, log, level, log.weights, unseen=log.weights.max() * log.returns.max())


def weighted_per_decision(log: EpisodeLog, level: float = 0.95) -> Estimate:
    """WPDIS: every step's rewards weighted by rho_t over the sum of rho_t (the consistent form of Thomas 2015)."""
    scale = _normalised(log.ratios)
    contributions = ratio_contributions(scale, log.grid(log.reward), log.group) @ log.discounts
    unseen = contributions.mean() + scale[:, -1].max() * (log.returns.max() - contributions.mean())
    return _estimate("WPDIS", contributions, log, level, log.weights, unseen=unseen)


def direct(log: EpisodeLog, level: float = 0.95) -> Estimate:
    """DM: the mean of v over the logged starts; as biased as the model is."""
    _, expected = _model(log)
    words = "it rests on the value model alone, whose own error the interval leaves out"
    matched = matches(log.weights, log.returns)
    return estimate_of("DM", expected[:, 0], level=level, unit=log.unit, group=log.group, matched=matched, cautions=(words,))


def doubly_robust(log: EpisodeLog, level: float = 0.95) -> Estimate:
    """DR: v + rho_0 (r + discount DR' - q), backwards through each episode (Jiang & Li 2016).

    Unbiased whatever the model, if the propensities are right; without noise if the model is right and the process deterministic.
    """
    predicted, expected = _model(log)
    step, reward = log.grid(log.target / log.propensity, empty=1.0), log.grid(log.reward)
    ahead = np.zeros(len(log.lengths))
    _ = log.ratios  # says clearly where a product of ratios overflows
    for time in range(reward.shape[1])[::-1]:
        ahead = expected[:, time] + step[:, time] * (reward[:, time] + log.discount * ahead - predicted[:, time])
    unseen = ahead.mean() + log.weights.max() * (log.returns.max() - predicted[:, 0].mean())
    return _estimate("DR", ahead, log, level, log.weights, unseen=unseen)


def weighted_doubly_robust(log: EpisodeLog, level: float = 0.95) -> Estimate:
    """WDR: doubly robust with every step's rho_t over its sum (Thomas & Brunskill 2016)."""
    predicted, expected = _model(log)
    scale = _normalised(log.ratios)
    before = np.concatenate([np.ones((len(scale), 1)), scale[:, :-1]], axis=1)
    residuals = ratio_contributions(scale, log.grid(log.reward) - predicted, log.group)
    contributions = (residuals + ratio_contributions(before, expected, log.group)) @ log.discounts
    unseen = contributions.mean() + scale[:, -1].max() * (log.returns.max() - predicted[:, 0].mean())
    return _estimate("WDR", contributions, log, level, log.weights, unseen=unseen)


def estimates(log: EpisodeLog, level: float = 0.95) -> dict[str, Estimate]:
    """Every estimate that the log allows, by name: IS, WIS, PDIS, WPDIS, with a model also DM, DR and WDR.

    One that cannot be computed (its weights are all 0, or overflow) has the value NaN and a warning that says why.
    """
    methods = {
        "IS": importance_sampling, "WIS": weighted_importance_sampling, "PDIS": per_decision, "WPDIS": weighted_per_decision,
    }  # fmt: skip
    if log.predicted is not None:
        methods |= {"DM": direct, "DR": doubly_robust, "WDR": weighted_doubly_robust}
    units = len(log.lengths) if log.group is None else len(np.unique(log.group))
    return collected(methods, log, level, units, log.unit)


def _normalised(weights: Float[np.ndarray, "episode *time"]) -> Float[np.ndarray, "episode *time"]:
    """Weights over their mean over episodes."""
    mean = weights.mean(axis=0)
    if not np.all(mean > 0):
        step = int(np.argmin(np.atleast_1d(mean > 0))) if weights.ndim > 1 else "any"
        raise BadInput(
            f"no logged episode follows the target policy as far as step {step}: weighted estimates need at least one"
        )
    return weights / mean


def _model(log: EpisodeLog) -> tuple[Grid, Grid]:
    if log.predicted is None or log.expected is None:
        raise BadInput(
            "this estimate needs a value model: give predicted (q of the logged pairs) and expected (v of the states)"
        )
    return log.grid(log.predicted), log.grid(log.expected)


def _estimate(
    name: str, contributions: PerEpisode, log: EpisodeLog, level: float, weights: PerEpisode, *, unseen: float,
    cautions: bool = True,
) -> Estimate:  # fmt: skip
    gains = bool(log.reward.min() >= 0)
    matched = matches(weights, log.returns)
    units = len(log.lengths) if log.group is None else len(np.unique(log.group))
    words = cautions_about(weights, units, log.unit, matched, rewards_are_gains=gains) if cautions else ()
    return estimate_of(
        name, contributions, level=level, unit=log.unit, group=log.group, weights=weights, matched=matched,
        unseen=float(unseen) if gains else float("nan"), cautions=words,
    )  # fmt: skip
