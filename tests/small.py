"""Small worlds and data that many tests share."""

from __future__ import annotations

import numpy as np

from policylab.data.recording import Recording
from policylab.experience import Spec
from policylab.sources.dataset import Dataset
from policylab.spaces import Box, Discrete


def continuous_recording(episodes: int = 20, length: int = 25, *, seed: int = 0, reward: bool = True) -> Recording:
    """A 3-dimensional state and a 2-dimensional action in [-2, 2]; the reward is larger for actions near -state[:2]."""
    random = np.random.default_rng(seed)
    steps = episodes * length
    observation = random.standard_normal((steps + episodes, 3)).astype(np.float32)
    rows = np.arange(steps) + np.repeat(np.arange(episodes), length)
    action = np.clip(-observation[rows, :2] + random.standard_normal((steps, 2)), -2, 2).astype(np.float32)
    gain = -np.sum((action + observation[rows, :2]) ** 2, axis=1).astype(np.float32)
    terminal, truncated = np.zeros(steps, bool), np.zeros(steps, bool)
    terminal[length - 1 :: 2 * length], truncated[2 * length - 1 :: 2 * length] = True, True
    spec = Spec(Box((3,)), Box((2,), -2.0, 2.0), horizon=length)
    return Recording(observation, action, gain if reward else None, terminal, truncated, np.full(episodes, length), spec)


def discrete_recording(episodes: int = 20, length: int = 25, *, choices: int = 3, seed: int = 0) -> Recording:
    """A 4-dimensional state and `choices` actions; choosing the largest of the first entries gives reward 1."""
    random = np.random.default_rng(seed)
    steps = episodes * length
    observation = random.standard_normal((steps + episodes, 4)).astype(np.float32)
    rows = np.arange(steps) + np.repeat(np.arange(episodes), length)
    action = random.integers(0, choices, steps)
    gain = (action == observation[rows, :choices].argmax(1)).astype(np.float32)
    terminal = np.zeros(steps, bool)
    terminal[length - 1 :: length] = True
    spec = Spec(Box((4,)), Discrete(choices), horizon=length)
    return Recording(observation, action, gain, terminal, np.zeros(steps, bool), np.full(episodes, length), spec)


def continuous_dataset(**options: int) -> Dataset:
    return Dataset.of(continuous_recording(**options))
