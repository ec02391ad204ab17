"""Numbers over seeds, as documents and as text: mean, interval, every value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from policylab.evaluation.statistics import interval


@dataclass(frozen=True)
class Summary:
    """A number over seeds: its document (mean, interval, values) and a line of text."""

    document: dict[str, Any]
    text: str


def summary(values: Sequence[float] | np.ndarray, level: float = 0.95, *, unit: str = "seed") -> Summary:
    """The mean over units with its interval; one unit, or values that are not finite, have none."""
    numbers = np.asarray(values, np.float64)
    if len(numbers) < 2 or not np.isfinite(numbers).all():
        mean = float(numbers.mean())
        return Summary({"mean": mean, "interval": None, "level": level, "values": numbers.tolist()}, figure(mean))
    found = interval(numbers, level)
    document = {
        "mean": found.value,
        "interval": [found.low, found.high],
        "level": level,
        "method": found.method,
        "values": numbers.tolist(),
    }
    return Summary(document, f"{figure(found.value)}  [{figure(found.low)}, {figure(found.high)}] over {len(numbers)} {unit}s")


def figure(number: float) -> str:
    """A number with as many digits as one reads."""
    return f"{number:,.1f}" if 10 <= abs(number) < 1e6 else f"{number:.3g}"
