"""Claim: one short declarative file per system: who says what, on which task, which arms, at which equal budget."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from policylab.errors import BadInput

SCALES = ("paper", "analogue", "machinery")
LOOKS = (5, 10, 20)  # units after which the evidence is looked at
DIFFERENCE_LEVELS = (0.99, 0.985, 0.97)  # of the intervals at those looks where a difference is claimed: overall error 4.8%
SAMENESS_LEVELS = (0.98, 0.97, 0.94)  # where sameness is claimed, by two one-sided tests: overall error 4.8%


def key_of(arm: str, metric: str = "") -> str:
    """The key under which `measure` returns an arm's values: "arm", or "arm/metric" where a claim has several metrics."""
    return f"{arm}/{metric}" if metric else arm


@dataclass(frozen=True)
class Part(ABC):
    """One sentence of a claim. Higher values are better throughout: negate a loss or a regret in `measure`."""

    kind: ClassVar[str] = ""
    levels: ClassVar[tuple[float, ...]] = DIFFERENCE_LEVELS

    @property
    @abstractmethod
    def keys(self) -> tuple[str, ...]:
        """The keys of `measure`'s result that it needs."""

    @property
    @abstractmethod
    def words(self) -> str:
        """The sentence, as reports print it."""

    @property
    def declared(self) -> dict[str, Any]:
        """Its kind and fields, as recorded and hashed."""
        return {"kind": self.kind} | {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Greater(Part):
    """Arm `a` beats arm `b`. Of the mean paired difference's interval: supported when it lies above 0 and reaches `margin`,
    refuted when it lies wholly below `margin`. The margin is the smallest gain worth having, in the metric's units: the paper's
    number, else 5 points of the task's 0-100 scale, fixed before the first run."""

    a: str
    b: str
    margin: float | int
    metric: str = ""
    kind: ClassVar[str] = "greater"

    def __post_init__(self) -> None:
        _positive(self.margin, f"the margin of Greater({self.a!r}, {self.b!r})")

    @property
    def keys(self) -> tuple[str, ...]:
        """The two arms' keys."""
        return key_of(self.a, self.metric), key_of(self.b, self.metric)

    @property
    def words(self) -> str:
        """The sentence, as reports print it."""
        return f"{self.keys[0]} beats {self.keys[1]} (margin {self.margin:g})"


@dataclass(frozen=True)
class Equivalent(Part):
    """Arms `a` and `b` differ by less than `margin`, and the experiment could have told: `control`, deliberately worse, loses by more.

    Supported when the interval of a - b lies inside (-margin, margin) and at the same look the interval of control - b lies wholly
    below -margin; refuted when the interval of a - b lies wholly outside. A control that does not lose makes it inconclusive, never
    refuted: the experiment was blind."""

    a: str
    b: str
    margin: float | int
    control: str
    metric: str = ""
    kind: ClassVar[str] = "equivalent"
    levels: ClassVar[tuple[float, ...]] = SAMENESS_LEVELS

    def __post_init__(self) -> None:
        _positive(self.margin, f"the margin of Equivalent({self.a!r}, {self.b!r})")

    @property
    def keys(self) -> tuple[str, ...]:
        """The three arms' keys."""
        return key_of(self.a, self.metric), key_of(self.b, self.metric), key_of(self.control, self.metric)

    @property
    def words(self) -> str:
        """The sentence, as reports print it."""
        return f"{self.keys[0]} equals {self.keys[1]} within {self.margin:g}, {self.keys[2]} does not"


@dataclass(frozen=True)
class Relation(Part):
    """The mean over units of `statistic` (a key of `measure`: a correlation, a ratio, a slope) lies on one side of `bound`, a number
    or another key. Supported or refuted when its interval lies wholly on that or the other side."""

    statistic: str
    bound: float | int | str
    side: Literal["above", "below"] = "above"
    kind: ClassVar[str] = "relation"

    def __post_init__(self) -> None:
        if not isinstance(self.bound, str) and not math.isfinite(self.bound):
            raise BadInput(
                f"the bound of Relation({self.statistic!r}) is {self.bound}: give it a finite number or a key of measure"
            )

    @property
    def keys(self) -> tuple[str, ...]:
        """The statistic's key, and the bound's where it is one."""
        return (self.statistic, self.bound) if isinstance(self.bound, str) else (self.statistic,)

    @property
    def words(self) -> str:
        """The sentence, as reports print it."""
        return f"{self.statistic} is {self.side} {self.bound if isinstance(self.bound, str) else f'{self.bound:g}'}"


@dataclass(frozen=True)
class Calibrated(Part):
    """The mean of `rate` (a key of `measure`, values in [0, 1]) lies in [low, high]: supported when its interval lies inside, refuted
    when wholly outside. Where every value is 0 or 1 the interval is Clopper and Pearson's."""

    rate: str
    low: float | int
    high: float | int
    kind: ClassVar[str] = "calibrated"
    levels: ClassVar[tuple[float, ...]] = SAMENESS_LEVELS

    def __post_init__(self) -> None:
        if not 0.0 <= self.low < self.high <= 1.0:
            raise BadInput(f"Calibrated({self.rate!r}) has bounds {self.low} and {self.high}: choose 0 <= low < high <= 1")

    @property
    def keys(self) -> tuple[str, ...]:
        """The rate's key."""
        return (self.rate,)

    @property
    def words(self) -> str:
        """The sentence, as reports print it."""
        return f"{self.rate} lies in [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class Exact(Part):
    """In every unit |a - b| <= `tolerance`; `b` is a key of `measure` or a number. Refuted by the first unit beyond it."""

    a: str
    b: float | int | str
    tolerance: float | int
    kind: ClassVar[str] = "exact"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0.0):
            raise BadInput(f"the tolerance of Exact({self.a!r}) is {self.tolerance}: give it a number of at least 0")

    @property
    def keys(self) -> tuple[str, ...]:
        """The key of `a`, and that of `b` where it is one."""
        return (self.a, self.b) if isinstance(self.b, str) else (self.a,)

    @property
    def words(self) -> str:
        """The sentence, as reports print it."""
        return f"{self.a} is {self.b if isinstance(self.b, str) else f'{self.b:g}'} to within {self.tolerance:g}"


@dataclass(frozen=True)
class Claim:
    """What a paper says, as an experiment of minutes. `task`, `arms`, `parts`, `unit` and `looks` are written as literals (or module
    constants that are literals), so that the catalogue reads them without running anything; they are hashed with every result.

    `measure(seeds)` returns one value per given seed under each key ("arm" or "arm/metric"): arrays of shape [len(seeds)], higher
    is better. It gets all seeds of a look at once, so that they train in one compiled program; the value of a seed depends on that
    seed alone. Raises `BadInput` where the declaration does not hold together."""

    system: str  # its id in the catalogue
    says: str  # who says what, with the source
    task: str  # the environment, data and metric in words
    arms: Mapping[str, str]  # name -> what it is; also every further statistic that `measure` returns
    parts: tuple[Part, ...]  # all supported: supported; any refuted: refuted
    measure: Callable[[Sequence[int]], Mapping[str, Any]]
    budget: str  # what is equal between the arms: updates, environment steps, tokens, calls
    scale: Literal["paper", "analogue", "machinery"]  # machinery: the effect was planted, our code is tested
    deviation: str  # how this differs from the paper's experiment
    minutes: float | int  # all looks together on 2 cores; 10, at most 20
    unit: str = "training seed"
    looks: tuple[int, ...] = LOOKS
    tuning: str = "published defaults on both sides"

    def __post_init__(self) -> None:
        where = f"the claim {self.system!r}"
        for name in ("system", "says", "task", "budget", "deviation", "unit", "tuning"):
            if not getattr(self, name).strip():
                raise BadInput(f"{where} leaves {name} empty: write it in words")
        if self.scale not in SCALES:
            raise BadInput(f"{where} has scale {self.scale!r}: choose one of {', '.join(SCALES)}")
        if not self.parts:
            raise BadInput(f"{where} has no parts: give it at least one of Greater, Equivalent, Relation, Calibrated, Exact")
        for part in self.parts:
            for key in part.keys:
                if key.partition("/")[0] not in self.arms:
                    raise BadInput(f"{where} names {key!r} in a part but not in arms: describe {key.partition('/')[0]!r} there")
        looks = self.looks
        if not 1 <= len(looks) <= len(LOOKS) or looks[0] < 2 or any(b <= a for a, b in zip(looks, looks[1:], strict=False)):
            raise BadInput(f"{where} looks after {looks} units: give at most {len(LOOKS)} growing numbers from 2 on")
        if not 0.0 < self.minutes <= (20.0 if self.scale != "paper" else math.inf):
            raise BadInput(
                f"{where} takes {self.minutes} minutes: make it fit in 20 on 2 cores (10 where the mechanism allows)"
            )

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that its parts need, in order and once."""
        return tuple(dict.fromkeys(key for part in self.parts for key in part.keys))

    @property
    def declared(self) -> dict[str, Any]:
        """What is fixed before the first run: task, unit, arms, parts (metrics and margins) and looks."""
        return {
            "task": self.task,
            "unit": self.unit,
            "arms": dict(self.arms),
            "looks": list(self.looks),
            "parts": [part.declared for part in self.parts],
        }

    def values(self, seeds: Sequence[int]) -> dict[str, Any]:
        """`measure(seeds)` as float64 arrays of shape [len(seeds)]; `BadInput` where it returned anything else."""
        import numpy as np  # here, so that listing claims stays quick

        measured, count, clean = self.measure(seeds), len(seeds), {}
        where = f"measure of the claim {self.system!r}"
        for key, given in measured.items():
            if key.partition("/")[0] not in self.arms:
                raise BadInput(f"{where} returned {key!r}, which arms does not describe: add {key.partition('/')[0]!r} to arms")
            clean[key] = np.array(given, np.float64)
            if clean[key].shape != (count,):
                raise BadInput(
                    f"{where} returned shape {clean[key].shape} for {key!r}: return one value for each of {count} seeds"
                )
        for key in self.keys:
            if key not in clean:
                raise BadInput(f"{where} did not return {key!r}: the parts of the claim need it")
        return clean


def _positive(value: float | int, name: str) -> None:
    if not (math.isfinite(value) and value > 0.0):
        raise BadInput(f"{name} is {value}: give it a number above 0, fixed before the first run")
