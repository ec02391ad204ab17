"""Ways to spoil a clean recording by a known share: what the dataset card has to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from policylab.data.recording import Recording, recording_from_steps


def jumping_observations(recording: Recording, share: float, *, seed: int = 0) -> tuple[Recording, np.ndarray]:
    """RIQL's corruption of states: uniform(-1, 1) standard deviations are added to every column of a share of the observations."""
    random = np.random.default_rng(seed)
    observed = recording.observation.copy()
    hit = random.uniform(size=len(observed)) < share
    observed[hit] += random.uniform(-1, 1, (hit.sum(), observed.shape[1])) * observed.std(axis=0)
    return replace(recording, observation=observed), hit


def random_rewards(recording: Recording, share: float, *, seed: int = 0) -> tuple[Recording, np.ndarray]:
    """RIQL's corruption of rewards: a share of them is replaced by uniform(-30, 30)."""
    random = np.random.default_rng(seed)
    hit = random.uniform(size=recording.steps) < share
    reward = np.where(hit, random.uniform(-30, 30, recording.steps), recording.reward).astype(np.float32)
    return replace(recording, reward=reward), hit


def shuffled_actions(recording: Recording, share: float, *, seed: int = 0) -> tuple[Recording, np.ndarray]:
    """In consecutive episodes that hold a share of the steps the actions are permuted over all those steps."""
    random = np.random.default_rng(seed)
    hit = recording.episode_of < np.searchsorted(np.cumsum(recording.lengths), share * recording.steps)
    action = recording.action.copy()
    action[hit] = random.permutation(action[hit])
    return replace(recording, action=action), hit


def stuck_sensor(recording: Recording, share: float, *, seed: int = 0, length: int = 20) -> tuple[Recording, np.ndarray]:
    """The last column keeps its value for 20 steps, over and over, until a share of the steps is hit."""
    random = np.random.default_rng(seed)
    observed, hit = recording.observation.copy(), np.zeros(recording.steps, bool)
    long = np.flatnonzero(recording.lengths > length)
    starts = recording.starts
    for _ in range(50_000):
        if hit.mean() >= share:
            break
        episode = random.choice(long)
        step = starts[episode] + random.integers(0, recording.lengths[episode] - length)
        if not hit[step - 1 : step + length + 1].any():
            row = step + episode
            observed[row : row + length + 1, -1] = observed[row, -1]
            hit[step : step + length] = True
    return replace(recording, observation=observed), hit


def other_units(recording: Recording, share: float, *, seed: int = 0) -> tuple[Recording, np.ndarray]:
    """The last column of a share of the episodes is in degrees instead of radians."""
    chosen = np.random.default_rng(seed).permutation(recording.episodes) < share * recording.episodes
    observed = recording.observation.copy()
    observed[np.repeat(chosen, recording.lengths + 1), -1] *= 57.2958
    return replace(recording, observation=observed), chosen


def copied_episodes(recording: Recording, share: float, *, seed: int = 0) -> tuple[Recording, np.ndarray]:
    """A share of the episodes stands in the recording a second time, its observations off by a millionth of the range."""
    random = np.random.default_rng(seed)
    count = int(np.ceil(share * recording.episodes))
    chosen = random.choice(recording.episodes, count, replace=False)
    both = recording.select(np.concatenate([np.arange(recording.episodes), chosen]))
    observed = both.observation.copy()
    fresh = len(recording.observation)
    observed[fresh:] += (1e-6 * np.ptp(observed, axis=0) * random.uniform(-1, 1, observed[fresh:].shape)).astype(observed.dtype)
    return replace(both, observation=observed), np.arange(both.steps) >= recording.steps


def doubled_episodes(recording: Recording, share: float, *, seed: int = 0) -> tuple[Recording, np.ndarray]:
    """A share of the episodes stands in the recording a second time, bit by bit."""
    count = int(np.ceil(share * recording.episodes))
    chosen = np.random.default_rng(seed).choice(recording.episodes, count, replace=False)
    both = recording.select(np.concatenate([np.arange(recording.episodes), chosen]))
    return both, np.arange(both.steps) >= recording.steps


def torn_episodes(recording: Recording, share: float, *, seed: int = 0) -> tuple[Recording, np.ndarray]:
    """A share of the steps is flagged terminal although the process went on: the episode is torn there."""
    random = np.random.default_rng(seed)
    last = recording.starts + recording.lengths - 1
    hit = random.uniform(size=recording.steps) < share
    hit[last] = False
    observed = recording.observation
    rows = recording.observation_rows
    torn = recording_from_steps(
        observed[rows], recording.action, recording.reward, recording.terminal | hit, recording.truncated, observed[rows + 1],
        spec=recording.spec,
    )  # fmt: skip
    return replace(torn, origin={}), hit


def wrong_successors(recording: Recording, share: float, *, seed: int = 0) -> tuple[Recording, np.ndarray]:
    """RIQL's corruption of dynamics in a file of flat steps: the logged next observation of a share of the steps is wrong."""
    random = np.random.default_rng(seed)
    observed, rows = recording.observation, recording.observation_rows
    hit = random.uniform(size=recording.steps) < share
    after = observed[rows + 1].copy()
    after[hit] += random.uniform(-1, 1, (hit.sum(), observed.shape[1])) * observed.std(axis=0)
    spoiled = recording_from_steps(
        observed[rows], recording.action, recording.reward, recording.terminal, recording.truncated, after, spec=recording.spec
    )
    return spoiled, hit


def clocked_terminals(recording: Recording, share: float, *, seed: int = 0) -> tuple[Recording, np.ndarray]:
    """A share of the episodes that a time limit cut is flagged terminal."""
    random = np.random.default_rng(seed)
    hit = recording.truncated & (random.uniform(size=recording.steps) < share)
    return replace(recording, terminal=recording.terminal | hit, truncated=recording.truncated & ~hit), hit


PLANTED: dict[str, Callable[..., tuple[Recording, np.ndarray]]] = {
    "spikes": jumping_observations, "rewards": random_rewards, "actions": shuffled_actions, "stuck": stuck_sensor,
    "scales": other_units, "broken chains": wrong_successors, "timed terminals": clocked_terminals,
    "ignored terminals": torn_episodes, "random terminals": torn_episodes, "repeated rows": copied_episodes,
    "repeated episodes": doubled_episodes,
}  # fmt: skip
