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
class Planted:
    """What a check found of planted faults: it was raised in `raised` of `recordings` recordings, of which this `share` was spoiled."""

    share: float
    raised: int
    recordings: int


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

    @property
    def planted(self) -> tuple[Planted, ...]:
        """What this check found of faults that were planted, where that was measured."""
        return PLANTED.get(self.name, ())


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


# Both measured by `python benchmarks/diagnosis_alarms.py --seeds 40 --planted 4` on the worlds of tests/evaluation/worlds.py.
FALSE_ALARMS: dict[str, Alarm] = {
    "spikes": Alarm(2, 200, 6.8e-05),
    "rewards": Alarm(0, 240, 0.0),
    "actions": Alarm(5, 240, 3.0e-04),
    "stuck": Alarm(0, 240, 0.0),
    "scales": Alarm(0, 200, 0.0),
    "broken chains": Alarm(0, 200, 0.0),
    "timed terminals": Alarm(0, 120, 0.0),
    "ignored terminals": Alarm(0, 80, 0.0),
    "random terminals": Alarm(0, 120, 0.0),
    "repeated rows": Alarm(0, 200, 1.9e-05),
    "repeated episodes": Alarm(0, 240, 0.0),
}
PLANTED: dict[str, tuple[Planted, ...]] = {
    "spikes": (Planted(0.01, 16, 20), Planted(0.05, 16, 20), Planted(0.3, 12, 20)),
    "rewards": (Planted(0.01, 24, 24), Planted(0.05, 24, 24), Planted(0.3, 24, 24)),
    "actions": (Planted(0.01, 1, 24), Planted(0.05, 20, 24), Planted(0.3, 24, 24)),
    "stuck": (Planted(0.01, 16, 20), Planted(0.05, 16, 20), Planted(0.3, 16, 20)),
    "scales": (Planted(0.01, 5, 20), Planted(0.05, 16, 20), Planted(0.3, 16, 20)),
    "broken chains": (Planted(0.01, 11, 20), Planted(0.05, 20, 20), Planted(0.3, 20, 20)),
    "timed terminals": (Planted(0.01, 0, 8), Planted(0.05, 6, 10), Planted(0.3, 20, 20)),
    "ignored terminals": (Planted(0.01, 20, 20), Planted(0.05, 20, 20), Planted(0.3, 20, 20)),
    "random terminals": (Planted(0.01, 16, 20), Planted(0.05, 20, 20), Planted(0.3, 20, 20)),
    "repeated rows": (Planted(0.01, 20, 20), Planted(0.05, 20, 20), Planted(0.3, 20, 20)),
    "repeated episodes": (Planted(0.01, 24, 24), Planted(0.05, 24, 24), Planted(0.3, 24, 24)),
}
