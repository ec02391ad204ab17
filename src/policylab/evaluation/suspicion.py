"""What a suspicion is, and how often each check cries wolf on clean data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from policylab.errors import BadInput


@dataclass(frozen=True)
class Alarm:
    """How often a check was wrong: `raised` of `recordings` clean recordings, and the share of all their rows that it marked."""

    raised: int
    recordings: int
    rows: float


@dataclass(frozen=True)
class Suspicion:
    """One check's result: `count` of `examined` things (rows, episodes, columns: `unit`) look wrong, the first at step `first_row`.

    `raised` says whether that is more than `allowance`, the share that clean data show too. `missing` is empty, or says why the
    check could not be done. `meaning` is a sentence for a person.
    """

    name: str
    unit: str
    count: int
    examined: int
    first_row: int | None
    raised: bool
    rule: str
    meaning: str
    allowance: float = 0.0
    missing: str = ""

    @property
    def share(self) -> float:
        """`count` of `examined`."""
        return self.count / self.examined if self.examined else 0.0

    @property
    def alarm(self) -> Alarm | None:
        """What this check did on clean recordings, where that was measured."""
        return FALSE_ALARMS.get(self.name)


def found(
    name: str,
    marked: Bool[np.ndarray, " thing"],
    row: Int[np.ndarray, " thing"],
    *,
    unit: str,
    rule: str,
    meaning: str,
    allowance: float = 0.0,
    least: int = 1,
) -> Suspicion:
    """The suspicion for marked things that stand at these rows; raised beyond the allowed share and from `least` of them on."""
    if len(marked) != len(row):
        raise BadInput(f"{len(marked)} marks for {len(row)} rows: give one each")
    count = int(marked.sum())
    raised = count >= least and count > allowance * len(marked)
    first = int(row[marked].min()) if count else None
    return Suspicion(name, unit, count, len(marked), first, raised, rule, meaning, allowance)


def unchecked(name: str, why: str) -> Suspicion:
    """The result of a check that this recording does not allow."""
    return Suspicion(name, "", 0, 0, None, False, "", "", missing=why)


# Measured by `python benchmarks/diagnosis_alarms.py` on clean recordings of the worlds in tests/evaluation/worlds.py.
FALSE_ALARMS: dict[str, Alarm] = {}
