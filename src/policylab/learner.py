"""Learner: a frozen dataclass of hyper-parameters (the published defaults) with pure methods."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from policylab.experience import Spec


class Clock(eqx.Module):
    """Where training is, shared by all seeds and never copied into a state, so that `lax.cond(clock.step % 2 == 0, ...)` stays
    a branch under `vmap` and schedules are functions of `clock.progress`."""

    step: Int[Array, ""]
    total: Int[Array, ""]

    @property
    def progress(self) -> Float[Array, ""]:
        """The fraction of the run that is done, in [0, 1)."""
        return self.step / self.total


class Sometimes(eqx.Module):
    """A metric that is not computed at every step: `value` counts only where `present`."""

    value: Float[Array, ""]
    present: Bool[Array, ""]


class Each(eqx.Module):
    """A metric with one value per row of the batch, which its source is told of (priorities); what is logged is their mean."""

    values: Float[Array, " row"]


@dataclass(frozen=True)
class Goals:
    """Hindsight: goals for every step of a batch, as the shares of current, future and random ones, which add up to 1.

    A current goal is the step's own observation, a future one a later observation of its episode (the last one included), a random
    one any observation of the data in which an action was taken. `ahead` says how far a future one lies: "geometric", with
    `discount` the chance of each further step (what lies beyond the end counts as the end), or "uniform" over the rest of the
    episode. The steps of a window share one goal, which is drawn for the last of them. The batch gets `extra["goal"]`, an
    observation, or only the named `part` of it, and `extra["reached"]`, whether the goal is the very observation of this step.
    """

    current: float = 0.2
    future: float = 0.5
    random: float = 0.3
    ahead: Literal["geometric", "uniform"] = "geometric"
    discount: float = 0.99
    part: str = ""


@dataclass(frozen=True)
class Request:
    """What a learner wants of a source: `count` samples of a kind, with extra `fields` in `Window.extra`."""

    count: int
    fields: tuple[str, ...] = ()
    goals: Goals | None = None


@dataclass(frozen=True)
class Steps(Request):
    """Single transitions, leaves [count, ...]. `n` > 1 asks for n-step returns with the learner's own `discount`; `best` < 1 draws
    only from that share of the steps, those of the episodes with the highest returns."""

    n: int = 1
    discount: float = 1.0
    best: float = 1.0


@dataclass(frozen=True)
class Windows(Request):
    """Consecutive steps: `past` before and `future` from the anchor on, leaves [count, past + future, ...], padded."""

    past: int = 0
    future: int = 1


@dataclass(frozen=True)
class WholeEpisodes(Request):
    """Whole episodes, padded to the longest."""


@dataclass(frozen=True)
class Everything(Request):
    """All that the source holds, as it stores it and at every update the same arrays: one window whose leaves are [row, ...] and
    shared by all seeds, `valid` where a row is an action (`count` is not used). For neighbours, prototypes and other references."""

    count: int = 0


@dataclass(frozen=True)
class Pairs(Request):
    """Preference pairs."""


class Learner:
    """Learns products from batches. Subclasses are `@settings` dataclasses; every method is pure.

    `needs` maps a name to a `Request`; with a single request, `update` gets that batch itself, else a dict of batches.
    `takes` lists the trained things (`start`, `reference`, `teacher`, `value` ...) that `given` may hold.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    title: ClassVar[str] = ""
    actions: ClassVar[str] = "any"  # "continuous", "discrete" or "any": which spaces it can learn for
    uses: ClassVar[tuple[str, ...]] = ()  # what the data must have beyond observation and action: "reward", "propensity"
    on_policy: ClassVar[bool] = (
        False  # whether it can learn only from what its policy, as it is now, does itself: from a `Rollout`
    )

    @property
    @abstractmethod
    def needs(self) -> Mapping[str, Request]:
        """What a batch has to hold."""

    @abstractmethod
    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> PyTree:
        """The initial state: networks, optimiser states, targets."""

    @abstractmethod
    def update(self, state: PyTree, batch: Any, *, clock: Clock, key: PRNGKeyArray) -> tuple[PyTree, dict[str, Any]]:
        """One step of learning and its metrics: scalars, `Sometimes` for what is not computed at every step, `Each` for one per row."""

    @abstractmethod
    def products(self, state: PyTree) -> dict[str, Any]:
        """What has been learned, ready to use: `policy`, `explorer`, `critic`, `world` ..."""
