"""What a solve will do, decided before it starts and from facts alone, so that the same arguments give the same numbers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policylab import registry, spaces
from policylab.data.recording import Recording
from policylab.errors import BadInput
from policylab.learner import Learner
from policylab.policies.categorical import Categorical
from policylab.policies.deterministic import Deterministic
from policylab.task import Task

SELECTION_SEEDS, FRESH_SEEDS = 3, 5
_WIDTHS = (256, 128, 64)  # hidden units, the largest that leaves time for enough updates
_NOMINAL = {64: 0.7e-3, 128: 1.4e-3, 256: 4.0e-3}  # seconds per update and seed of IQL on two cores, by width
# The cost of an update beside one of IQL at width 64, 128 and 256: processor time at the sizes of a plan, three seeds in one program,
# 17 observed numbers and 6 of action or 6 choices, 10,000 steps (PRDC looks through all of them). Measured by
# `python benchmarks/method_costs.py`; a method that is not here is taken to cost as much as IQL.
_COST = {
    "bc": (0.37, 0.27, 0.24),
    "percent-bc": (0.29, 0.23, 0.22),
    "td3-bc": (0.77, 0.81, 0.8),
    "awac": (1.2, 1.1, 0.99),
    "iql": (1.0, 1.0, 1.0),
    "riql": (1.5, 1.7, 1.9),
    "rebrac": (1.8, 1.8, 1.8),
    "prdc": (8.8, 4.3, 2.0),
    "a2pr": (22.6, 12.4, 5.2),
    "cql": (12.1, 10.6, 11.0),
    "dqn": (0.38, 0.3, 0.32),
    "bcq": (0.83, 0.86, 0.79),
    "cql-discrete": (0.37, 0.35, 0.32),
    "qr-dqn": (54.2, 23.9, 8.6),
}
CLONES = ("bc", "percent-bc")
_SLOW = ("cql", "a2pr", "prdc", "qr-dqn")  # several times the cost of the others: only on request
_FIXED = 15.0  # seconds per method for compiling and evaluating


@dataclass(frozen=True)
class Plan:
    """The methods with their sizes, the updates each gets, and the seeds: `selection` ones choose, `fresh` ones are reported."""

    learners: Mapping[str, Learner]
    reasons: tuple[tuple[str, str], ...]
    steps: int
    selection: tuple[int, ...]
    fresh: tuple[int, ...]
    episodes: int = 20
    report_episodes: int = 50

    def describe(self) -> dict[str, str]:
        """For the report."""
        width = next((row.width for row in self.learners.values() if "width" in _fields(row)), 0)
        return {
            "updates per method and seed": f"{self.steps:,} (the same for all)",
            **({"hidden units": f"{width} (the same for all)"} if width else {}),
        }


@dataclass(frozen=True)
class Problem:
    """What is to be solved: the data, where policies can be tried (if anywhere), and the seed of everything."""

    recording: Recording
    name: str
    task: Task | None
    seed: int
    progress: bool
    facts: dict[str, str] = field(default_factory=dict)


def seconds_of(budget: str | float) -> float:
    """`"10min"`, `"90s"`, `"1h"` or a number of seconds. Raises `BadInput` for anything else."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*(s|sec|min|m|h)?\s*", str(budget))
    if not match:
        raise BadInput(f"the budget {budget!r} is no time: write it as 90s, 10min or 1h")
    return float(match[1]) * {None: 1, "s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600}[match[2]]


def make_plan(recording: Recording, reasons: tuple[tuple[str, str], ...], *, budget: float, seed: int) -> Plan:
    """Equal updates and equal widths for every method, as many as a nominal two-core machine does in `budget` seconds.

    The share of the budget is computed from a table of nominal costs and not from the clock: a slower machine takes longer and
    gives the same numbers.
    """
    names = [name for name, _ in reasons]
    seeds, fresh = SELECTION_SEEDS, FRESH_SEEDS
    left = max(budget - _FIXED * (len(names) + 2), 0.3 * budget)
    width, steps = 64, 0
    for width in _WIDTHS:
        # The winner and a baseline are trained once more; which these are is not known.
        work = sum(_cost(name, width) for name in names) * seeds + 2 * fresh
        steps = int(left / (work * _NOMINAL[width]) // 500 * 500)
        if steps >= 20_000:
            break
    first = 1_000 * seed
    learners = {name: sized(registry.learner_class(name)(), recording, width) for name in names}
    return Plan(
        learners, reasons, int(np.clip(steps, 500, 200_000)), tuple(range(first, first + seeds)),
        tuple(range(first + 100, first + 100 + fresh)),
    )  # fmt: skip


def _cost(name: str, width: int) -> float:
    """Of an update of this method, in updates of IQL at this width."""
    return _COST[name][sorted(_WIDTHS).index(width)] if name in _COST else 1.0


def sized(learner: Any, recording: Recording, width: int) -> Any:
    """The learner with `width` hidden units everywhere and batches of 256: a plan compares methods, not sizes."""
    changes: dict[str, Any] = {
        name: value for name, value in {"width": width, "batch_size": 256}.items() if name in _fields(learner)
    }
    if "policy" in _fields(learner):
        form = learner.policy
        if form is None:
            form = Categorical() if isinstance(recording.spec.action, spaces.Discrete) else Deterministic()
        changes["policy"] = dataclasses.replace(form, width=width) if "width" in _fields(form) else form
    return dataclasses.replace(learner, **changes)


def _fields(value: Any) -> set[str]:
    return {f.name for f in dataclasses.fields(value)}


def requested(names: Sequence[str], recording: Recording) -> tuple[tuple[str, str], ...]:
    """Methods that the user asked for. Raises `BadInput` for a name that does not exist or one that cannot learn these data."""
    from policylab.sources.dataset import Dataset
    from policylab.training import check_fit

    sample = Dataset.of(recording.select(np.arange(1)))
    for name in names:
        check_fit(registry.learner_class(name)(), sample, 1, {})
    return tuple((name, "you asked for it") for name in names)


def shortlist(advised: Sequence[tuple[str, str]], *, most: int = 6) -> tuple[tuple[str, str], ...]:
    """The first `most` methods of the card's advice that exist here; the cloning baselines among them always."""
    known = [row for row in advised if row[0] in registry.LEARNERS]
    clones = [row for row in known if row[0] in CLONES]
    others = [row for row in known if row[0] not in CLONES and row[0] not in _SLOW]
    return (*clones, *others[: most - len(clones)])
