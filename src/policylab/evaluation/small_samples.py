"""Intervals of aggregates when seeds are few: where the percentile bootstrap is too narrow, Student's t on the jackknife.

On normal scores of 5 seeds and one task a 95% percentile bootstrap covers the truth in 75 to 87% of cases, the jackknife in 89
(interquartile mean) to 95% (`tests/evaluation/test_small_samples.py` simulates both).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.special
from jaxtyping import Real

from policylab.errors import BadInput

Scores = Real[np.ndarray, "seed task"]


def jackknife(statistic: Callable[[Scores], float], scores: Scores, level: float = 0.95) -> tuple[float, float]:
    """The interval of `statistic(scores)` from leaving out one seed (row) at a time (Tukey 1958), with Student's t.

    Of the mean it is exactly Student's t interval over the seeds. Raises `BadInput` for fewer than 2 seeds.
    """
    seeds = len(scores)
    if seeds < 2:
        raise BadInput(f"{seeds} seed given: an interval needs at least 2")
    value = statistic(scores)
    without = np.asarray([statistic(np.delete(scores, seed, axis=0)) for seed in range(seeds)])
    error = np.sqrt((seeds - 1) / seeds * np.sum((without - without.mean()) ** 2))
    half = float(scipy.special.stdtrit(seeds - 1, 0.5 + level / 2) * error)
    return value - half, value + half


def probability_interval(probability: float, seeds: int, tasks: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a probability of improvement between two methods of `seeds` runs on each of `tasks` tasks.

    The variance of the Mann-Whitney estimate is at most p (1 - p) / seeds per task, whatever the distributions (van Dantzig 1951;
    Birnbaum and Klose 1957), so Wilson's interval for `seeds * tasks` trials covers at least as often. Never of width 0.
    """
    trials = seeds * tasks
    z = float(scipy.special.ndtri(0.5 + level / 2))
    centre = (probability + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(probability * (1 - probability) / trials + z * z / (4 * trials * trials))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
