"""What every kind of evidence returns, and what they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policylab.reporting.page import Row
from policylab.runs import Run


@dataclass(frozen=True)
class Evidence:
    """The outcome of a solve: the winner (None if nothing can be said), the sentences, the tables, and the runs behind them.

    `shipped` is (method, run, seed) of the policy to use, None where none is named; `saved` the runs whose policies are kept.
    """

    kind: str
    winner: str | None
    verdict: str
    words: str
    unit: str
    confirmed: tuple[Row, ...] = ()
    selection: tuple[Row, ...] = ()
    differences: tuple[Row, ...] = ()
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    profile: Mapping[str, np.ndarray] = field(default_factory=dict)
    frames: Sequence[np.ndarray] = ()
    plan: str = ""
    shipped: tuple[str, Run, int] | None = None
    saved: Mapping[str, Run] = field(default_factory=dict)


def row_json(row: Row) -> dict[str, Any]:
    """A row for a JSON document; numbers that are not finite become null."""
    finite = lambda x: float(x) if np.isfinite(x) else None
    return {
        "method": row.method, "value": finite(row.value), "interval": [finite(x) for x in row.interval] if row.interval else None,
        "over": row.units, "note": row.note, "winner": row.winner, **row.extra,
    }  # fmt: skip
