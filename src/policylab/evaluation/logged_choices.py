"""What a log of single decisions with propensities can and cannot say: the bandit part of the dataset card."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from policylab.evaluation.statistics import wilson


@dataclass(frozen=True)
class Arm:
    """One choice: how often it was logged and its reward. `low` and `high` end Wilson's 95% interval of a 0/1 reward; None else.

    `inverse` is the mean of 1[this choice] / propensity, which is 1 on average if the propensities are right, and `z` its distance
    from 1 in standard errors.
    """

    label: str
    logged: int
    positives: int
    rate: float
    low: float | None
    high: float | None
    inverse: float | None
    z: float | None


@dataclass(frozen=True)
class Choices:
    """The whole log. `binary` says whether rewards are 0 or 1; `rate`, `low` and `high` are the logging policy's reward.

    `uniform_effective` is the effective number of rows, (sum w)^2 / sum w^2, for the uniform policy; `consistent` whether no
    choice's inverse-propensity mass is further from 1 than chance allows (Bonferroni at 1%); `never` the choices never logged.
    """

    rows: int
    binary: bool
    positives: int
    rate: float
    low: float | None
    high: float | None
    choices: int
    never: int
    arms: tuple[Arm, ...]
    propensity_low: float | None
    propensity_high: float | None
    uniform_effective: float | None
    inverse_mean: float | None
    worst_z: float | None
    consistent: bool | None


def describe_choices(
    action: Int[np.ndarray, " row"],
    reward: Float[np.ndarray, " row"] | None,
    propensity: Float[np.ndarray, " row"] | None,
    *,
    choices: int,
    labels: tuple[str, ...] = (),
) -> Choices | None:
    """The bandit part of a card; None where no rewards were logged.

    A rate is a mean reward. Under right propensities the mean of 1[a] / p is 1 for every choice that can be logged in every row;
    its standard error is taken from the rows. A choice that some contexts exclude has a mean below 1, which is then no fault of
    the propensities but a gap in the support.
    """
    if reward is None:
        return None
    binary = bool(np.isin(reward, (0, 1)).all())
    weight = None if propensity is None else 1 / propensity.astype(np.float64)
    rows, arms, worst = len(action), [], 0.0
    for choice in range(choices):
        mine = action == choice
        count, gained = int(mine.sum()), reward[mine]
        positives = int((gained > 0).sum())
        span = wilson(positives, count) if binary and count else None
        inverse = z = None
        if weight is not None:
            mass = np.where(mine, weight, 0.0)
            inverse, error = float(mass.mean()), float(mass.std(ddof=1) / np.sqrt(rows)) if rows > 1 else 0.0
            z = (inverse - 1) / error if error > 0 else None
            worst = max(worst, abs(z)) if z is not None and count >= 10 else worst
        arms.append(
            Arm(
                labels[choice] if choice < len(labels) else str(choice), count, positives,
                float(gained.mean()) if count else 0.0, span.low if span else None, span.high if span else None, inverse, z,
            )
        )  # fmt: skip
    logged = max(1, sum(arm.logged >= 10 for arm in arms))
    limit = _normal_limit(0.01 / logged)
    whole = wilson(int((reward > 0).sum()), rows) if binary else None
    return Choices(
        rows=rows,
        binary=binary,
        positives=int((reward > 0).sum()),
        rate=float(reward.mean()),
        low=whole.low if whole else None,
        high=whole.high if whole else None,
        choices=choices,
        never=sum(arm.logged == 0 for arm in arms),
        arms=tuple(arms),
        propensity_low=None if propensity is None else float(propensity.min()),
        propensity_high=None if propensity is None else float(propensity.max()),
        uniform_effective=None if weight is None else float(weight.sum() ** 2 / np.sum(weight**2)),
        inverse_mean=None if weight is None else float(weight.mean() / choices),
        worst_z=None if weight is None else worst,
        consistent=None if weight is None else bool(worst <= limit),
    )


def _normal_limit(alpha: float) -> float:
    import scipy.special

    return float(-scipy.special.ndtri(alpha / 2))
