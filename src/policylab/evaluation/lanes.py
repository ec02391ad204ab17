"""Hosted environments played in lanes: a few simulators per seed work through a queue of episodes, the policy acts for all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from policylab.environments.hosted import Gymnasium
from policylab.environments.hosting import Host
from policylab.policy import Policy

# Making a MuJoCo simulator takes about 0.1 s and 12 MB, so there are fewer of them than episodes; beyond some 24 lanes the
# cost of one call of the policy no longer shows next to the simulators'.
LANES = 24


@dataclass(frozen=True)
class Played:
    """Returns, success (NaN where none is reported) and lengths, each [seed, episode]; `columns` of a Recording if wanted."""

    returns: np.ndarray
    success: np.ndarray
    lengths: np.ndarray
    columns: dict[str, Any] = field(default_factory=dict)


class Journal:
    """The rows of the episodes of one lane until they are whole."""

    def __init__(self, host: Host, horizon: int) -> None:
        self.observation = host.buffer(horizon + 1)
        self.action: list[PyTree] = []
        self.rows: list[tuple] = []

    def columns(self, host: Host) -> dict[str, Any]:
        """The finished episode's columns; the journal is empty afterwards."""
        length = len(self.rows)
        reward, terminal, truncated, success = (np.array(column) for column in zip(*self.rows, strict=True))
        columns = {
            "observation": jax.tree.map(lambda leaf: leaf[: length + 1].copy(), self.observation),
            "action": jax.tree.map(lambda *leaves: np.stack(leaves), *self.action),
            "reward": reward.astype(np.float32),
            "terminal": terminal,
            "truncated": truncated,
            "lengths": np.array([length]),
            "extra": {"success": success.astype(np.float32)} if host.success else {},
        }
        self.action, self.rows = [], []
        return columns


def play(
    policies: Policy,
    environment: Gymnasium,
    *,
    count: int,
    episodes: int,
    horizon: int,
    key: PRNGKeyArray,
    record: bool = False,
) -> Played:
    """Play `episodes` episodes with each of `count` policies stacked along a leading axis.

    Keys are derived as in `environment.unroll`: an episode does not depend on the lane it runs in. Slots are not used, so
    states of the same host elsewhere in the program stay valid.
    """
    host = environment.host
    lanes = min(episodes, max(1, LANES // count))
    seeds = np.asarray(_seeds(key, jnp.arange(episodes)))
    simulators = host.borrow(count * lanes)
    try:
        return _play(host, policies, simulators, seeds, (count, lanes, episodes, horizon), key, record)
    finally:
        host.give_back(simulators)


def _play(
    host: Host, policies: Policy, simulators: list, seeds: np.ndarray, sizes: tuple, key: PRNGKeyArray, record: bool
) -> Played:
    count, lanes, episodes, horizon = sizes
    returns, success = np.zeros((count, episodes)), np.full((count, episodes), 0.0 if host.success else np.nan)
    lengths = np.zeros((count, episodes), np.int64)
    journals = [Journal(host, horizon) for _ in simulators] if record else []
    books: dict[int, dict[str, Any]] = {}
    observation = host.buffer(len(simulators))
    episode, time = np.tile(np.arange(lanes, dtype=np.int32), count), np.zeros(len(simulators), np.int32)
    following = np.full(count, lanes)
    grid = lambda leaf: leaf.reshape(count, lanes, *leaf.shape[1:])
    memory = _memory(policies, grid(episode), key)

    def begin(lane: int) -> None:
        host.write(observation, lane, simulators[lane].reset(seed=int(seeds[episode[lane]]))[0])
        time[lane] = 0
        if record:
            host.write(journals[lane].observation, 0, jax.tree.map(lambda leaf: leaf[lane], observation))

    active = list(range(len(simulators)))
    for lane in active:
        begin(lane)
    while active:
        # Copies: the arrays that were handed over may still be read while the simulators write the next ones.
        handed = jax.tree.map(lambda leaf: grid(leaf).copy(), (observation, episode, time))
        action, memory = _decide(policies, handed[0], memory, handed[1], handed[2], key)
        action = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), action)
        finished = []
        for lane in active:
            shown, reward, terminal, truncated, info = simulators[lane].step(host.read(action, lane))
            host.write(observation, lane, shown)
            time[lane] += 1
            row = divmod(lane, lanes)[0], episode[lane]
            returns[row] += np.sum(reward)
            if host.success:
                success[row] = max(success[row], float(info.get(host.success, 0.0)))
            ended = terminal or truncated or time[lane] >= horizon
            if record:
                journals[lane].action.append(jax.tree.map(lambda leaf: leaf[lane], action))  # noqa: B023  (used at once)
                journals[lane].rows.append((reward, terminal, ended and not terminal, float(info.get(host.success, 0.0))))
                host.write(journals[lane].observation, int(time[lane]), jax.tree.map(lambda leaf: leaf[lane], observation))  # noqa: B023  (used at once)
            if ended:
                lengths[row] = time[lane]
                finished.append(lane)
        for lane in finished:
            seed = lane // lanes
            if record:
                books[int(episode[lane])] = journals[lane].columns(host)
            if following[seed] >= episodes:
                active.remove(lane)
                continue
            episode[lane] = following[seed]
            following[seed] += 1
            begin(lane)
    columns = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(books[i] for i in range(episodes))) if record else {}
    return Played(returns, success, lengths, columns)


@jax.jit
def _seeds(key: PRNGKeyArray, episodes: Int[Array, " episode"]) -> Array:
    """The seed that a hosted `reset` would draw for each episode."""
    return jax.vmap(lambda i: jax.random.bits(jax.random.split(jax.random.fold_in(key, i), 3)[0]))(episodes)


@jax.jit
def _memory(policies: Policy, episode: Int[Array, "seed lane"], key: PRNGKeyArray) -> PyTree:
    def fresh(policy: Policy, number: Array) -> PyTree:
        return policy.initial_memory(key=jax.random.split(jax.random.fold_in(key, number), 3)[1])

    return jax.vmap(jax.vmap(fresh, in_axes=(None, 0)))(policies, episode)


@jax.jit
def _decide(
    policies: Policy,
    observation: PyTree,
    memory: PyTree,
    episode: Int[Array, "seed lane"],
    time: Int[Array, "seed lane"],
    key: PRNGKeyArray,
) -> tuple[PyTree, PyTree]:
    """The action and next memory of every lane; a lane at time 0 starts with a fresh memory."""

    def decide(policy: Policy, observation: PyTree, memory: PyTree, episode: Array, time: Array) -> tuple[PyTree, PyTree]:
        _, memory_key, noise = jax.random.split(jax.random.fold_in(key, episode), 3)
        first = policy.initial_memory(key=memory_key)
        memory = jax.tree.map(lambda new, old: jnp.where(time == 0, new, old), first, memory)
        act_key, _ = jax.random.split(jax.random.fold_in(noise, time))
        return policy.act(observation, memory, key=act_key)

    return jax.vmap(jax.vmap(decide, in_axes=(None, 0, 0, 0, 0)))(policies, observation, memory, episode, time)
