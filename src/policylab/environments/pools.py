"""The host's side of envpool: simulators that are opened together and stepped by threads in C++, in NumPy arrays."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from policylab.errors import BadInput
from policylab.experience import Spec

_LARGEST_SEED = 2**31 - 1


class Pool:
    """Simulators that were opened together, one per seed: how often each has been moved, and what the last move gave."""

    def __init__(self, simulators: Any, first: int, seeds: np.ndarray, convert: Callable[[Any], Any], success: str) -> None:
        count = len(seeds)
        self.simulators, self.first, self.seeds, self.convert, self.success = simulators, first, seeds, convert, success
        self.numbers, self.ids = np.arange(first, first + count, dtype=np.int32), np.arange(count, dtype=np.int32)
        self.moves, self.reward = np.zeros(count, np.int32), np.zeros(count, np.float32)
        self.terminal, self.truncated = np.zeros(count, bool), np.zeros(count, bool)
        self.reached = np.zeros(count, np.float32)
        self.observation = convert(simulators.reset()[0])

    def step(self, ids: np.ndarray, actions: np.ndarray) -> None:
        """Move those simulators; ended ones stay as they are and give no reward."""
        ended = (self.terminal | self.truncated)[ids]
        self.moves[ids] += 1
        self.reward[ids] = 0.0
        if ended.any():
            ids, actions = ids[~ended], actions[~ended]
        if not len(ids):
            return
        self.simulators.send(actions, ids)
        observation, reward, terminal, truncated, info = self.simulators.recv()
        at = info["env_id"]
        self._show(at, observation)
        self.reward[at], self.terminal[at], self.truncated[at] = reward, terminal, truncated
        if self.success:
            self.reached[at] = info[self.success]

    def renew(self, ids: np.ndarray) -> None:
        """Begin new episodes in those simulators."""
        observation, info = self.simulators.reset(ids)
        at = info["env_id"]
        self._show(at, observation)
        self.moves[at] += 1
        self.terminal[at], self.truncated[at], self.reached[at] = False, False, 0.0

    def _show(self, at: np.ndarray, observation: Any) -> None:
        if len(at) == len(self.ids) and (at == self.ids).all():
            self.observation = self.convert(observation)
            return
        for ours, new in zip(jax.tree.leaves(self.observation), jax.tree.leaves(self.convert(observation)), strict=True):
            ours[at] = new


class Pools:
    """Simulators of one kind; those of one call to `reset` form a pool. Compared by identity, so it can be static in programs.

    Slot numbers are never used twice. When more than `capacity` simulators are open, the pool that rested longest is closed. A state
    right after `reset` may be stepped any number of times (several policies that share one reset do): another pool is opened from the same
    seeds. Any other old state is refused, since a simulator cannot go back.
    """

    def __init__(
        self,
        open_many: Callable[[list[int]], Any],
        spec: Spec,
        convert: Callable[[Any], Any],
        success: str,
        capacity: int = 256,
    ) -> None:
        self.open_many, self.spec, self.convert, self.success, self.capacity = open_many, spec, convert, success, capacity
        self.space, self.failure, self.lock = spec.observation, None, threading.RLock()
        self.pools: OrderedDict[int, Pool] = OrderedDict()
        self.count = 0

    def reset(self, seeds: np.ndarray) -> tuple:
        """Open one simulator per seed: (slot numbers, observations)."""
        self.capacity = max(self.capacity, 2 * len(seeds))
        while self.pools and self._open + len(seeds) > self.capacity:
            self.pools.popitem(last=False)
        pool = self._begin(seeds % _LARGEST_SEED)
        return pool.numbers, pool.observation

    def renew(self, numbers: np.ndarray, moves: np.ndarray, ended: np.ndarray, seeds: np.ndarray, observation: Any) -> tuple:
        """Start a new episode in the slots whose flag `ended` is set: (slot numbers, moves, observations). `seeds` are of no use."""
        numbers, moves, observation = np.array(numbers), np.array(moves), jax.tree.map(np.array, observation)
        rows = np.flatnonzero(ended)
        if len(rows):
            numbers[rows], places = self._places(numbers[rows], moves[rows])
            for pool, part, ids in places:
                pool.renew(ids)
                moves[rows[part]] = pool.moves[ids]
                _put(observation, rows[part], pool.observation, ids)
        return numbers, moves, observation

    def step(self, numbers: np.ndarray, moves: np.ndarray, actions: np.ndarray) -> tuple:
        """Move every slot by its action: (slot numbers, observations, reward, terminal, truncated, success)."""
        numbers, places = self._places(numbers, moves)
        for pool, part, ids in places:
            pool.step(ids, actions[part])
        return numbers, *self._shown(places, len(numbers))

    def step_and_renew(self, numbers: np.ndarray, moves: np.ndarray, words: np.ndarray, actions: np.ndarray) -> tuple:
        """`step`, then `renew` of what ended: ((slot numbers, moves), the observations to go on from, (the step's observation, reward,
        terminal, truncated, success))."""
        numbers, last, reward, terminal, truncated, success = self.step(numbers, moves, actions)
        ended, moves, observation = terminal | truncated, moves + 1, last
        if ended.any():
            numbers, moves, observation = self.renew(numbers, moves, ended, words, last)
        return (numbers, moves), observation, (last, reward, terminal, truncated, success)

    @property
    def _open(self) -> int:
        return sum(len(pool.ids) for pool in self.pools.values())

    def _begin(self, seeds: np.ndarray) -> Pool:
        pool = Pool(self.open_many([int(seed) for seed in seeds]), self.count, seeds, self.convert, self.success)
        self.count += len(seeds)
        self.pools[pool.first] = pool
        return pool

    def _shown(self, places: list, count: int) -> tuple:
        """(observations, reward, terminal, truncated, success) of the slots, copied."""
        pool, _, ids = places[0]
        if len(places) == 1 and len(ids) == count:
            take = lambda leaf: leaf[ids]
            return jax.tree.map(take, pool.observation), *map(take, _flags(pool))
        observation = jax.tree.map(lambda leaf: np.zeros((count, *leaf.shape[1:]), leaf.dtype), pool.observation)
        flags = [np.zeros(count, leaf.dtype) for leaf in _flags(pool)]
        for pool, part, ids in places:
            _put(observation, part, pool.observation, ids)
            for ours, theirs in zip(flags, _flags(pool), strict=True):
                ours[part] = theirs[ids]
        return observation, *flags

    def _places(self, numbers: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, list[tuple[Pool, np.ndarray, np.ndarray]]]:
        """Where the asked states are: slot numbers (new ones for starts that are stepped again) and (pool, rows, simulators)."""
        pool = self.pools.get(int(numbers[0]))
        if pool is not None and np.array_equal(numbers, pool.numbers) and np.array_equal(moves, pool.moves):
            self.pools.move_to_end(pool.first)
            return numbers, [(pool, pool.ids, pool.ids)]
        numbers, places, again = np.array(numbers), [], []
        for pool, part in self._owners(numbers):
            ids = numbers[part] - pool.first
            fresh = np.zeros(len(part), bool)
            fresh[np.unique(ids, return_index=True)[1]] = True
            fresh &= pool.moves[ids] == moves[part]
            if (moves[part][~fresh] != 0).any():
                raise BadInput(
                    f"a state of {self.spec.environment} was stepped twice, but a simulator outside the program cannot go back:"
                    " step each state once, and start new episodes with `renew`"
                )
            if fresh.any():
                places.append((pool, part[fresh], ids[fresh]))
            again += [(row, pool.seeds[one]) for row, one in zip(part[~fresh], ids[~fresh], strict=True)]
        if again:
            rows = np.array([row for row, _ in again])
            self.capacity = max(self.capacity, self._open + len(rows))  # never close what this very call may still need
            pool = self._begin(np.array([seed for _, seed in again]))
            numbers[rows] = pool.numbers
            places.append((pool, rows, pool.ids))
        return numbers, places

    def _owners(self, numbers: np.ndarray) -> Iterator[tuple[Pool, np.ndarray]]:
        """Each pool with the rows that it has."""
        firsts = np.sort(np.fromiter(self.pools, np.int64, len(self.pools)))
        owner = np.searchsorted(firsts, numbers, side="right") - 1
        for one in np.unique(owner):
            rows = np.flatnonzero(owner == one)
            pool = self.pools[int(firsts[one])] if one >= 0 else None
            if pool is None or (numbers[rows] - pool.first >= len(pool.ids)).any():
                raise BadInput(
                    f"an episode of {self.spec.environment} was left for {self.capacity} newer ones and cannot go on: finish it first"
                )
            self.pools.move_to_end(pool.first)
            yield pool, rows


def _flags(pool: Pool) -> tuple[np.ndarray, ...]:
    return pool.reward, pool.terminal, pool.truncated, pool.reached


def _put(ours: Any, rows: np.ndarray, theirs: Any, ids: np.ndarray) -> None:
    for mine, new in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        mine[rows] = new[ids]
