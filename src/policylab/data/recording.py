"""Recording: logged experience on the host, as readers produce it and writers consume it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from policylab import spaces
from policylab.errors import BadInput
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
        return (np.cumsum(self.lengths) - self.lengths).astype(np.int64)

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
        """The recording of these episodes only, in the given order (numbers of episodes, or one True/False for each)."""
        episodes = np.asarray(episodes)
        episodes = np.flatnonzero(episodes) if episodes.dtype == bool else episodes.astype(np.int64)
        steps = _ranges(self.starts[episodes], self.lengths[episodes])
        rows = _ranges(self.starts[episodes] + episodes, self.lengths[episodes] + 1)
        take = lambda tree, index: jax.tree.map(lambda leaf: leaf[index], tree)  # noqa: E731  (shorter than a nested def)
        return replace(
            self, observation=take(self.observation, rows), action=take(self.action, steps),
            reward=None if self.reward is None else self.reward[steps], terminal=self.terminal[steps],
            truncated=self.truncated[steps], lengths=self.lengths[episodes], extra=take(self.extra, steps),
        )

    def split(self, shares: tuple[float, ...], *, seed: int) -> tuple[Recording, ...]:
        """Parts with about these shares of the episodes, none of them empty, never splitting an episode or a `group`.

        Raises `BadInput` if the shares do not add up to 1 or there are fewer groups than parts.
        """
        if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
            raise BadInput(f"the shares of a split are {shares}: give positive numbers that add up to 1")
        group = np.asarray(self.extra["group"])[self.starts] if "group" in self.extra else np.arange(self.episodes)
        names, codes = np.unique(group, return_inverse=True)
        if len(names) < len(shares):
            raise BadInput(f"{self.name or 'the data'} cannot be split into {len(shares)} parts: it has only {len(names)} "
                           f"{'group' if 'group' in self.extra else 'episode'}(s), which are never torn apart; bring more")
        order = np.random.default_rng(seed).permutation(len(names))
        reached = np.cumsum(np.bincount(codes, minlength=len(names))[order])
        edges = np.searchsorted(reached, np.cumsum(shares)[:-1] * self.episodes, side="left") + 1
        for i in range(len(edges)):  # at least one group on either side of every edge
            edges[i] = np.clip(edges[i], (edges[i - 1] if i else 0) + 1, len(names) - len(edges) + i)
        return tuple(self.select(np.flatnonzero(np.isin(codes, part))) for part in np.split(order, edges))


def recording_from_steps(
    observation: PyTree, action: PyTree, reward: Any = None, terminal: Any = None, truncated: Any = None,
    next_observation: PyTree = None, *, spec: Spec | None = None, extra: dict[str, Any] | None = None, name: str = "",
    origin: dict[str, Any] | None = None,
) -> Recording:
    """A Recording from flat arrays of N consecutive steps; episodes end where `terminal` or `truncated` says so.

    With `next_observation` a step whose successor is not the next row's observation ends an episode too (truncated). Without
    it the successor of the last step of a cut episode is unknown, and that step is left out (as D4RL's `qlearning_dataset`
    does); after a terminal step, where nothing is ever bootstrapped, the last observation is repeated. `origin` counts
    both: `steps_without_successor`, `breaks`. Without `spec` the spaces are inferred by `infer_space`. Raises `BadInput` if
    columns disagree in length or nothing is left.
    """
    observation, action = jax.tree.map(_column, observation), jax.tree.map(_column, action)
    next_observation = None if next_observation is None else jax.tree.map(_column, next_observation)
    count = len(jax.tree.leaves(action)[0])
    flags = [np.zeros(count, bool) if flag is None else np.asarray(flag).reshape(-1).astype(bool) for flag in (terminal, truncated)]
    reward = None if reward is None else _column(reward)
    reward = reward.reshape(-1) if reward is not None and reward.shape[1:] == (1,) else reward
    extra = {key: np.asarray(value) for key, value in (extra or {}).items()}
    named = {"observation": observation, "action": action, "reward": reward, "terminal": flags[0], "truncated": flags[1],
             "next_observation": next_observation, **extra}
    for field_name, tree in named.items():
        for leaf in jax.tree.leaves(tree):
            if len(leaf) != count:
                raise BadInput(f"{name or 'the data'}: {field_name} has {len(leaf)} rows but action has {count}: "
                               "give every column one row for each step")
    if count == 0:
        raise BadInput(f"{name or 'the data'} has no steps: give at least one episode")
    terminal, truncated = flags
    truncated, breaks = _cut(observation, next_observation, terminal, truncated)
    ends = np.flatnonzero(terminal | truncated)
    lengths = np.diff(np.concatenate([[-1], ends]))
    # The successor of an unfinished last step is unknown without `next_observation`.
    keep = np.ones(count, bool)
    if next_observation is None:
        keep[ends[~terminal[ends]]] = False
        truncated = truncated.copy()
        shortened = ends[~terminal[ends] & (lengths > 1)]
        truncated[shortened - 1] = True
    starts = ends - lengths + 1
    kept_lengths = np.add.reduceat(keep, starts)
    alive = kept_lengths > 0
    if not alive.any():
        raise BadInput(f"{name or 'the data'}: no step has a successor, since every episode is one step cut by a time limit: "
                       "add next_observation")
    # Rows of the result, as indices into the steps (observations) and, for the last row of an episode, its successor.
    last_row = np.cumsum(kept_lengths[alive] + 1) - 1
    rows = np.zeros(int(kept_lengths[alive].sum() + alive.sum()), np.int64)
    is_last = np.zeros(len(rows), bool)
    is_last[last_row] = True
    rows[~is_last] = np.flatnonzero(keep)
    rows[is_last] = ends[alive]

    def join(leaf: np.ndarray, following: np.ndarray | None) -> np.ndarray:
        joined = leaf[rows]
        if following is not None:
            joined[is_last] = following[ends[alive]]
        return joined

    joined = jax.tree.map(lambda leaf: join(leaf, None), observation) if next_observation is None else jax.tree.map(
        join, observation, next_observation)
    facts = {"steps_without_successor": int(count - keep.sum()), "breaks": breaks}
    action = jax.tree.map(lambda leaf: leaf[keep], action)
    return Recording(
        joined, action, None if reward is None else reward[keep], terminal[keep], truncated[keep],
        kept_lengths[alive].astype(np.int64),
        spec or Spec(infer_space(joined, bounds=False), infer_space(action), reward_shape=() if reward is None else reward.shape[1:]),
        {key: value[keep] for key, value in extra.items()}, name, (origin or {}) | facts,
    )


def infer_space(values: PyTree, *, bounds: bool = True) -> spaces.Space:
    """The space that these rows suggest.

    One-dimensional whole numbers from 0 are a choice among `max + 1`; other whole numbers keep their type's range. Floats
    are unbounded, or with `bounds`: [-1, 1] where all values lie within, else the range of the data per entry (a policy
    then never leaves it). Give a spec or an environment to know better.
    """
    if isinstance(values, dict):
        return spaces.Composite(tuple((key, infer_space(value, bounds=bounds)) for key, value in values.items()))
    shape = tuple(values.shape[1:])
    if np.issubdtype(values.dtype, np.integer) or values.dtype == bool:
        if shape == () and values.min(initial=0) >= 0 and values.dtype != np.uint8:
            return spaces.Discrete(int(values.max(initial=0)) + 1)
        kind = np.dtype(np.int8 if values.dtype == bool else values.dtype)
        limits = (0, 1) if values.dtype == bool else (np.iinfo(kind).min, np.iinfo(kind).max)
        return spaces.Box(shape, float(limits[0]), float(limits[1]), str(kind))
    flat = values.reshape(len(values), -1)
    if not bounds or flat.size == 0 or not np.isfinite(flat).all():
        return spaces.Box(shape)
    low, high = flat.min(0), flat.max(0)
    if low.min() >= -1 and high.max() <= 1:
        return spaces.Box(shape, -1.0, 1.0)
    return spaces.Box(shape, tuple(map(float, low)), tuple(map(float, high)))


def _column(values: Any) -> np.ndarray:
    values = np.asarray(values)
    return values.astype(np.float32) if values.dtype in (np.float64, np.float16) else values


def _cut(observation: PyTree, following: PyTree, terminal: np.ndarray, truncated: np.ndarray) -> tuple[np.ndarray, int]:
    """`truncated` with a cut at the end of the data and wherever the next row does not continue; the number of such breaks."""
    truncated = truncated.copy()
    truncated[-1] |= ~terminal[-1]
    if following is None:
        return truncated, 0
    continues = np.ones(len(terminal) - 1, bool)
    for now, then in zip(jax.tree.leaves(observation), jax.tree.leaves(following)):
        same = np.isclose(now[1:], then[:-1], rtol=1e-4, atol=1e-5, equal_nan=True)
        continues &= same.reshape(len(same), -1).all(axis=1)
    broken = ~continues & ~terminal[:-1] & ~truncated[:-1]
    truncated[:-1] |= broken
    return truncated, int(broken.sum())


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The concatenation of arange(start, start + length) over all pairs."""
    if len(lengths) == 0:
        return np.zeros(0, np.int64)
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) + np.repeat(np.asarray(starts) - (ends - lengths), lengths)
