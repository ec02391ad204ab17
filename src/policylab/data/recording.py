"""Recording: logged experience on the host, as readers produce it and writers consume it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from policylab.experience import Spec


@dataclass(frozen=True)
class Recording:
    """Consecutive episodes as NumPy arrays (memory-mapped where they are large).

    With E episodes of `lengths` T_1 ... T_E and N = sum of T_i: `observation` leaves have N + E rows, T_i + 1 for each episode
    (the last one is what followed the last action, before any reset); everything else has N rows. `reward` is None where none
    was logged. One-step experience (logged bandits) is N episodes of length 1. `extra` holds further columns of N rows:
    `propensity` (probability that the logging policy gave to the logged action), `group` (integer code of the user or prompt
    that must not be split), `context`, `success` ...
    `spec.statistics` is filled by `Dataset`, not here. `origin` says where it came from, in words and facts for the card.
    """

    observation: PyTree[np.ndarray]
    action: PyTree[np.ndarray]
    reward: np.ndarray | None
    terminal: np.ndarray
    truncated: np.ndarray
    lengths: np.ndarray
    spec: Spec
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    name: str = ""
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Number of actions, N."""
        return int(self.lengths.sum())

    @property
    def episodes(self) -> int:
        """Number of episodes, E."""
        return len(self.lengths)

    @property
    def starts(self) -> np.ndarray:
        """Row of each episode's first action."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)

    @property
    def episode_of(self) -> np.ndarray:
        """The episode number of every action."""
        return np.repeat(np.arange(self.episodes), self.lengths)

    @property
    def observation_rows(self) -> np.ndarray:
        """For every action the row of the observation that it answered; add one for what followed."""
        return np.arange(self.steps) + self.episode_of

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted return per episode. Raises TypeError where no reward was logged."""
        if self.reward is None:
            raise TypeError("this recording has no rewards")
        return np.add.reduceat(np.asarray(self.reward, np.float64), self.starts) if self.episodes else np.zeros(0)

    def select(self, episodes: np.ndarray) -> Recording:
        """The recording of these episodes only, in the given order."""
        episodes = np.asarray(episodes)
        steps = _ranges(self.starts[episodes], self.lengths[episodes])
        rows = _ranges(self.starts[episodes] + episodes, self.lengths[episodes] + 1)
        take = lambda tree, index: jax.tree.map(lambda leaf: leaf[index], tree)  # noqa: E731  (shorter than a nested def)
        return replace(
            self, observation=take(self.observation, rows), action=take(self.action, steps),
            reward=None if self.reward is None else self.reward[steps], terminal=self.terminal[steps],
            truncated=self.truncated[steps], lengths=self.lengths[episodes], extra=take(self.extra, steps),
        )

    def split(self, shares: tuple[float, ...], *, seed: int) -> tuple[Recording, ...]:
        """Parts with about these shares of the episodes, never splitting an episode or a `group`."""
        group = self.extra["group"][self.starts] if "group" in self.extra else np.arange(self.episodes)
        names, codes = np.unique(group, return_inverse=True)
        order = np.random.default_rng(seed).permutation(len(names))
        edges = np.round(np.cumsum(shares)[:-1] * len(names)).astype(int)
        return tuple(self.select(np.flatnonzero(np.isin(codes, part))) for part in np.split(order, edges))


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The concatenation of arange(start, start + length) over all pairs."""
    if len(lengths) == 0:
        return np.zeros(0, np.int64)
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) + np.repeat(np.asarray(starts) - (ends - lengths), lengths)
