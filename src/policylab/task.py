"""Task: a family of environments with weights, the recipes of its datasets, a metric and reference scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from policylab.environment import Environment
from policylab.experience import Spec, Trials


@dataclass(frozen=True)
class Task:
    """One fixed environment is a family of one. `reference` holds the returns that map to 0 (`random`) and 100 (`expert`)."""

    name: str
    title: str

    @abstractmethod
    def environment(self, instance: int = 0) -> Environment:
        """The environment of one instance, its time limit included."""

    def instances(self, split: str = "test") -> Sequence[int]:
        """The instances of a split; no instance is in two splits."""
        return (0,)

    @property
    def spec(self) -> Spec:
        """The spec of its environments."""
        return self.environment().spec

    @property
    def datasets(self) -> Mapping[str, str]:
        """The names of its dataset recipes and a sentence about each."""
        return {}

    def dataset(self, name: str, *, steps: int = 0, seed: int = 0, progress: Callable[[int, int], Any] | None = None) -> Any:
        """The dataset of that name with about `steps` actions (0: its own size), made on first use and cached.

        `progress(done, total)` is called while it is made.
        """
        raise KeyError(name)

    @property
    def reference(self) -> Mapping[str, float]:
        """Reference returns: `random` and `expert`."""
        return {}

    @property
    def scale(self) -> str:
        """What 0 and 100 of `score` are, in a few words."""
        return "0 = random, 100 = expert"

    @property
    def caution(self) -> str:
        """A sentence that reports put beside the scores, where they could be taken for something else."""
        return ""

    def score(self, outcome: float | np.ndarray) -> np.ndarray:
        """Returns on the 0-100 scale of `reference` (unchanged where there is none)."""
        if not self.reference:
            return np.asarray(outcome)
        low, high = self.reference["random"], self.reference["expert"]
        return np.asarray(100.0 * (np.asarray(outcome) - low) / (high - low))

    def metric(self, trials: Trials) -> dict[str, float]:
        """The task's numbers from a table of trials."""
        numbers = {"return": float(np.mean(trials.outcome)), "score": float(np.mean(self.score(trials.outcome)))}
        if np.any(np.isfinite(trials.success)):
            numbers["success"] = float(np.nanmean(trials.success))
        return numbers
