"""Random corruption of logged experience, as in the benchmark of RIQL (Yang et al. 2024, arXiv 2310.12955, appendix on corruption)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from policylab import spaces
from policylab.data.recording import Recording
from policylab.errors import BadInput

Kind = Literal["observation", "action", "reward", "dynamics"]
REWARD_SCALE = 30.0  # a corrupted reward is uniform in this times `range`, whatever the size of the true ones


def corrupted(recording: Recording, kind: str, *, share: float = 0.3, range: float = 1.0, seed: int = 0) -> Recording:
    """The recording with about `share` of its transitions hit, each independently.

    `observation`, `action` and `dynamics` (the observation that followed) gain uniform(-range, range) times the column's standard
    deviation in every dimension; a `reward` is replaced by uniform(-30 range, 30 range). Actions may leave their bounds, as in the
    paper. A hit touches one transition only: what a row was followed by stays as it was although it is the next row's observation.
    For `observation` and `dynamics` every transition therefore becomes an episode of one step (cut, unless terminal), and
    `extra["group"]` says which belonged together; their statistics cover both ends of every transition.

    Raises `BadInput` for another kind, a share outside [0, 1], a negative range, missing rewards or spaces that are not a Box.
    """
    _require(recording, kind, share, range)
    random = np.random.default_rng(seed)
    hit = random.random(recording.steps) < share
    origin = recording.origin | {
        "corruption": {"kind": kind, "share": share, "range": range, "seed": seed, "hit": int(hit.sum())}
    }

    def shaken(column: np.ndarray) -> np.ndarray:
        column = np.array(column)
        noise = random.uniform(-range, range, (int(hit.sum()), *column.shape[1:])) * column.std(axis=0, dtype=np.float64)
        column[hit] += noise.astype(column.dtype)
        return column

    if kind == "reward":
        reward = np.array(recording.reward)
        reward[hit] = random.uniform(-REWARD_SCALE * range, REWARD_SCALE * range, (int(hit.sum()), *reward.shape[1:]))
        return replace(recording, reward=reward, origin=origin)
    if kind == "action":
        return replace(recording, action=shaken(recording.action), origin=origin)
    rows = recording.observation_rows
    now, then = np.asarray(recording.observation)[rows], np.asarray(recording.observation)[rows + 1]
    now, then = (shaken(now), then) if kind == "observation" else (now, shaken(then))
    return replace(
        recording,
        observation=np.stack([now, then], axis=1).reshape(-1, *now.shape[1:]),
        truncated=~np.asarray(recording.terminal, bool),
        lengths=np.ones(recording.steps, np.int64),
        extra={"group": recording.episode_of} | recording.extra,
        origin=origin,
    )


def _require(recording: Recording, kind: str, share: float, range: float) -> None:
    if kind not in get_args(Kind):
        raise BadInput(f"there is no corruption of {kind!r}: choose one of {', '.join(get_args(Kind))}")
    if not 0.0 <= share <= 1.0:
        raise BadInput(f"the share of corrupted transitions is {share}: choose a number from 0 to 1")
    if not (np.isfinite(range) and range >= 0.0):
        raise BadInput(f"the range of the corruption is {range}: choose a number of at least 0, 1 being a standard deviation")
    if kind == "reward" and recording.reward is None:
        raise BadInput(f"{recording.name or 'the data'} have no rewards to corrupt: choose another kind")
    space = recording.spec.action if kind == "action" else recording.spec.observation
    if kind != "reward" and not isinstance(space, spaces.Box):
        raise BadInput(f"corruption of {kind} needs numbers but these are {spaces.describe(space)}: choose another kind")
