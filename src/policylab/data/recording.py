"""Recording: logged experience on the host, as readers produce it and writers consume it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec

Allocate = Callable[[str, tuple[int, ...], Any], np.ndarray]
_PIECE = 2**26


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
        take = lambda tree, index: jax.tree.map(lambda leaf: leaf[index], tree)
        return replace(
            self,
            observation=take(self.observation, rows),
            action=take(self.action, steps),
            reward=None if self.reward is None else self.reward[steps],
            terminal=self.terminal[steps],
            truncated=self.truncated[steps],
            lengths=self.lengths[episodes],
            extra=take(self.extra, steps),
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
            raise BadInput(
                f"{self.name or 'the data'} cannot be split into {len(shares)} parts: it has only {len(names)} "
                f"{'group' if 'group' in self.extra else 'episode'}(s), which are never torn apart; bring more"
            )
        order = np.random.default_rng(seed).permutation(len(names))
        reached = np.cumsum(np.bincount(codes, minlength=len(names))[order])
        edges = np.searchsorted(reached, np.cumsum(shares)[:-1] * self.episodes, side="left") + 1
        for i in range(len(edges)):  # at least one group on either side of every edge
            edges[i] = np.clip(edges[i], (edges[i - 1] if i else 0) + 1, len(names) - len(edges) + i)
        return tuple(self.select(np.flatnonzero(np.isin(codes, part))) for part in np.split(order, edges))


def in_memory(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Where columns go unless told otherwise; `columns.Folder.allocate` puts them on disk instead."""
    return np.empty(shape, dtype)


def recording_from_steps(
    observation: PyTree,
    action: PyTree,
    reward: Any = None,
    terminal: Any = None,
    truncated: Any = None,
    next_observation: PyTree = None,
    *,
    spec: Spec | None = None,
    extra: dict[str, Any] | None = None,
    name: str = "",
    origin: dict[str, Any] | None = None,
    allocate: Allocate = in_memory,
) -> Recording:
    """A Recording from flat arrays of N consecutive steps; episodes end where `terminal` or `truncated` says so.

    With `next_observation` a step whose successor is not the next row's observation ends an episode too (truncated). Without
    it the successor of the last step of a cut episode is unknown, and that step is left out (as D4RL's `qlearning_dataset`
    does); after a terminal step, where nothing is ever bootstrapped, the last observation is repeated. `origin` counts
    both: `steps_without_successor`, `breaks`. Without `spec` the spaces are inferred by `infer_space`. Columns may be anything
    that slices by row, such as datasets of an HDF5 file: they are copied in pieces to where `allocate` says. Raises
    `BadInput` if columns disagree in length or nothing is left.
    """
    observation, action, next_observation, reward = map(_rows, (observation, action, next_observation, reward))
    extra = {key: _rows(value) for key, value in (extra or {}).items()}
    count, where = len(jax.tree.leaves(action)[0]), name or "the data"
    terminal, truncated = (np.zeros(count) if flag is None else np.asarray(flag).reshape(-1) for flag in (terminal, truncated))
    names = ("observation", "action", "reward", "terminal", "truncated", "next_observation", *extra)
    trees = (observation, action, reward, terminal, truncated, next_observation, *extra.values())
    for field_name, tree in zip(names, trees):
        for leaf in jax.tree.leaves(tree):
            if np.dtype(leaf.dtype).kind not in "biuf":
                raise BadInput(f"{where}: {field_name} is of type {leaf.dtype}: give numbers (encode words as choices first)")
            if len(leaf) != count:
                raise BadInput(
                    f"{where}: {field_name} has {len(leaf)} rows but action has {count}: "
                    "give every column one row for each step"
                )
    if count == 0:
        raise BadInput(f"{where} has no steps: give at least one episode")
    terminal, (truncated, breaks) = terminal.astype(bool), _cut(observation, next_observation, terminal != 0, truncated != 0)
    ends = np.flatnonzero(terminal | truncated)
    starts = np.concatenate([[0], ends[:-1] + 1])
    keep = np.ones(count, bool)
    if next_observation is None:
        unfinished = ends[~terminal[ends]]
        keep[unfinished] = False
        truncated[unfinished[unfinished > starts[~terminal[ends]]] - 1] = True
    lengths = np.add.reduceat(keep, starts, dtype=np.int64)
    ends, lengths = ends[lengths > 0], lengths[lengths > 0]
    if len(ends) == 0:
        raise BadInput(
            f"{where}: no step has a successor, since every episode is one step cut by a time limit: add next_observation"
        )
    # Each episode's observations are those of its kept steps, then one more: what followed, or the last row of the episode.
    steps = np.flatnonzero(keep)
    last = np.cumsum(lengths + 1) - 1
    rows, follows = np.empty(len(steps) + len(ends), np.int64), np.zeros(len(steps) + len(ends), bool)
    follows[last] = True
    rows[~follows], rows[follows] = steps, ends

    def gather(label: str, tree: PyTree, rows: np.ndarray, following: PyTree = None, where: np.ndarray | None = None) -> PyTree:
        followers = jax.tree.leaves(following) or [None] * len(jax.tree.leaves(tree))
        paths, structure = jax.tree_util.tree_flatten_with_path(tree)
        return structure.unflatten(
            [
                _gather(label + "".join(f"/{key.key}" for key in path), leaf, rows, follower, where, allocate)
                for (path, leaf), follower in zip(paths, followers)
            ]
        )

    observation = gather("observation", observation, rows, next_observation, follows)
    action = gather("action", action, steps)
    reward = None if reward is None else gather("reward", reward, steps)
    reward = reward[:, 0] if reward is not None and reward.shape[1:] == (1,) else reward
    facts = {"steps_without_successor": int(count - len(steps)), "breaks": breaks}
    objectives = () if reward is None else tuple(reward.shape[1:])
    return Recording(
        observation,
        action,
        reward,
        terminal[steps],
        truncated[steps],
        lengths,
        spec or Spec(infer_space(observation, bounds=False), infer_space(action), reward_shape=objectives),
        {key: gather(f"extra/{key}", value, steps) for key, value in extra.items()},
        name,
        (origin or {}) | facts,
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
        if values.dtype == bool:
            return spaces.Box(shape, 0.0, 1.0, "int8")
        limits = np.iinfo(str(values.dtype))
        return spaces.Box(shape, float(limits.min), float(limits.max), str(values.dtype))
    flat = values.reshape(len(values), -1)
    if not bounds or flat.size == 0:
        return spaces.Box(shape)
    low, high = flat.min(0), flat.max(0)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return spaces.Box(shape)
    if low.min() >= -1 and high.max() <= 1:
        return spaces.Box(shape, -1.0, 1.0)
    return spaces.Box(shape, tuple(map(float, low)), tuple(map(float, high)))


def _rows(values: PyTree) -> PyTree:
    """Lists become arrays; whatever already slices by row (arrays, memory maps, HDF5 datasets) stays where it is."""
    lists = (list, tuple, jax.Array)
    return jax.tree.map(
        lambda leaf: np.asarray(leaf) if isinstance(leaf, lists) else leaf, values, is_leaf=lambda leaf: isinstance(leaf, lists)
    )


def _pieces(count: int, row: int) -> Iterator[slice]:
    """Slices of at most `_PIECE` bytes over `count` rows of `row` bytes."""
    size = max(1, _PIECE // max(1, row))
    return (slice(i, min(count, i + size)) for i in range(0, count, size))


def _row_bytes(leaf: Any) -> int:
    return int(np.prod(leaf.shape[1:], dtype=np.int64)) * np.dtype(leaf.dtype).itemsize


def _gather(name: str, leaf: Any, rows: np.ndarray, following: Any, where: np.ndarray | None, allocate: Allocate) -> np.ndarray:
    """`leaf[rows]` in float32 where it is a float, with `following[rows]` at `where`; `rows` never decreases."""
    dtype = np.dtype(np.float32) if np.issubdtype(leaf.dtype, np.floating) else np.dtype(leaf.dtype)
    out = allocate(name, (len(rows), *leaf.shape[1:]), dtype)
    for piece in _pieces(len(rows), _row_bytes(leaf)):
        wanted = rows[piece]
        source = slice(int(wanted[0]), int(wanted[-1]) + 1)
        out[piece] = np.asarray(leaf[source])[wanted - source.start]
        if following is not None and where is not None and where[piece].any():
            successors = np.asarray(following[source])[wanted[where[piece]] - source.start]
            out[piece][where[piece]] = successors
    return out


def _cut(observation: PyTree, following: PyTree, terminal: np.ndarray, truncated: np.ndarray) -> tuple[np.ndarray, int]:
    """`truncated` with a cut at the end of the data and wherever the next row does not continue; the number of such breaks."""
    truncated = truncated.copy()
    truncated[-1] |= ~terminal[-1]
    if following is None:
        return truncated, 0
    continues = np.ones(len(terminal) - 1, bool)
    for now, then in zip(jax.tree.leaves(observation), jax.tree.leaves(following)):
        for piece in _pieces(len(continues), 2 * _row_bytes(now)):
            next_row = np.asarray(now[piece.start + 1 : piece.stop + 1])
            same = np.isclose(next_row, np.asarray(then[piece]), rtol=1e-4, atol=1e-5, equal_nan=True)
            continues[piece] &= same.reshape(len(same), -1).all(axis=1)
    broken = ~continues & ~terminal[:-1] & ~truncated[:-1]
    truncated[:-1] |= broken
    return truncated, int(broken.sum())


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The concatenation of arange(start, start + length) over all pairs."""
    if len(lengths) == 0:
        return np.zeros(0, np.int64)
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) + np.repeat(np.asarray(starts) - (ends - lengths), lengths)
