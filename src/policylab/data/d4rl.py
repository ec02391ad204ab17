"""D4RL-style HDF5 files (Fu et al. 2020, arXiv 2004.07219), read and written without D4RL.

A file holds one row per step: observations, actions, rewards, terminals, usually timeouts, sometimes next_observations and
infos/*. The published rules are kept: an episode ends at a terminal step or at a timeout; files without `timeouts` (the
oldest ones) were cut after the environment's step limit; without `next_observations` nobody knows what followed the last step
of a timed-out episode (the next row is already a reset), so that step is left out, as in D4RL's `qlearning_dataset` (which
also drops the file's very last row when it is terminal; we keep it); the rows after the last end are an episode cut short.
Files of version 2 keep `next_observations`, so nothing is lost there, and places where two recordings were glued together
(medium-expert) are seen as cuts. `metadata/*` (weights of the policy that collected) is not loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from policylab.data.arrays import from_named
from policylab.data.atomic import atomic
from policylab.data.columns import plain
from policylab.data.packages import package
from policylab.data.recording import Allocate, Recording, in_memory
from policylab.errors import BadInput

# The first part of a D4RL name, today's Gymnasium id of the nearest environment, and the published step limit.
ENVIRONMENTS: dict[str, tuple[str, int]] = {
    "hopper": ("Hopper-v5", 1000),
    "halfcheetah": ("HalfCheetah-v5", 1000),
    "walker2d": ("Walker2d-v5", 1000),
    "ant": ("Ant-v5", 1000),
    "maze2d-umaze": ("PointMaze_UMaze-v3", 300),
    "maze2d-medium": ("PointMaze_Medium-v3", 600),
    "maze2d-large": ("PointMaze_Large-v3", 800),
    "antmaze-umaze": ("AntMaze_UMaze-v5", 700),
    "antmaze-medium": ("AntMaze_Medium-v5", 1000),
    "antmaze-large": ("AntMaze_Large-v5", 1000),
    "pen": ("AdroitHandPen-v1", 100),
    "hammer": ("AdroitHandHammer-v1", 200),
    "door": ("AdroitHandDoor-v1", 200),
    "relocate": ("AdroitHandRelocate-v1", 200),
    "kitchen": ("FrankaKitchen-v1", 280),
}
_ANT_MAZE_FILES = {
    "ant-maze-u-maze": "antmaze-umaze",
    "ant-maze-big-maze": "antmaze-medium",
    "ant-maze-hardest-maze": "antmaze-large",
}
DIFFERS = (
    "{data} was recorded in an older version of this environment (other simulator, other time steps or rewards): scores "
    "in {environment} are not D4RL scores and must not be compared with published ones"
)

_FACTS, _ROOM = "policylab", 60_000  # the attribute that says how the data were made, and the most characters of it


def gymnasium_id(name: str) -> tuple[str, int, str] | None:
    """Today's environment for a D4RL name or file name (`hopper-medium-v2`, `hopper_medium`): id, step limit and a warning.

    None where the name is unknown.
    """
    plain = re.sub(r"[_\s]+", "-", name.lower())
    for file_name, data_name in _ANT_MAZE_FILES.items():
        plain = plain.replace(file_name, data_name)
    matches = [key for key in ENVIRONMENTS if plain == key or plain.startswith(key + "-")]
    if not matches:
        return None
    environment, limit = ENVIRONMENTS[max(matches, key=len)]
    return environment, limit, DIFFERS.format(data=name, environment=environment)


def read(
    path: str | Path, *, columns: Mapping[str, Any] | None = None, max_episode_steps: int = 0, allocate: Allocate = in_memory
) -> Recording:
    """The recording in a D4RL-style file; large columns are copied in pieces to where `allocate` says.

    The step limit of a file without timeouts is `max_episode_steps`, else the file's attribute of that name, else the
    published one for the file's name. Raises `BadInput` if it isn't HDF5 or is not laid out so.
    """
    h5py, path = package("h5py", "reading HDF5 files"), Path(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise BadInput(f"{path} is not a readable HDF5 file ({error}): copy or download it again") from error
    with file:
        if "data" in file and isinstance(file["data"], h5py.Group) and any(key.startswith("demo") for key in file["data"]):
            raise BadInput(
                f"{path} is a robomimic file (data/demo_0 ...), not a D4RL-style one: write its demonstrations as arrays "
                "observations, actions, rewards, terminals, timeouts"
            )
        known = gymnasium_id(path.stem)
        limit = max_episode_steps or int(file.attrs.get("max_episode_steps", 0)) or (known[1] if known else 0)
        origin: dict[str, Any] = {"format": "d4rl", "path": str(path)}
        if _FACTS in file.attrs:  # ours: its name is no D4RL data set's, whatever it sounds like
            origin = _told(file.attrs[_FACTS], path) | origin
        elif known:
            origin |= {"environment": known[0], "caution": known[2]}
        arrays = _lazy(h5py, file)
        arrays.pop("metadata", None)
        return from_named(arrays, path.stem, columns=columns, max_episode_steps=limit, origin=origin, allocate=allocate)


def write(recording: Recording, path: str | Path) -> None:
    """Write a D4RL-style file with timeouts and next_observations, so that no step is lost when it is read again.

    Raises `BadInput` if `path` exists.
    """
    h5py = package("h5py", "writing HDF5 files")
    rows = recording.observation_rows
    with atomic(path) as scratch, h5py.File(scratch, "w") as file:
        file.attrs["max_episode_steps"] = recording.spec.horizon
        facts = recording.origin | {"environment": recording.spec.environment or recording.origin.get("environment", "")}
        told = json.dumps(facts, default=plain)
        if len(told) < _ROOM:  # what an attribute of HDF5 can hold; maps of many cameras and files do not fit
            file.attrs[_FACTS] = told
        _write(file, "observations", recording.observation, rows)
        _write(file, "next_observations", recording.observation, rows + 1)
        _write(file, "actions", recording.action)
        if recording.reward is not None:
            _write(file, "rewards", recording.reward)
        _write(file, "terminals", recording.terminal)
        _write(file, "timeouts", np.asarray(recording.truncated))
        for name, values in recording.extra.items():
            _write(file, f"infos/{name}", values)


def _told(text: Any, path: Path) -> dict[str, Any]:
    """How the data were made, as `write` noted it."""
    try:
        facts = json.loads(text)
    except (TypeError, ValueError):
        facts = None
    if not isinstance(facts, dict):
        raise BadInput(f"{path}: its attribute {_FACTS!r} is no JSON object: remove it, or save the data again")
    return facts


def _lazy(h5py: Any, group: Any) -> dict[str, Any]:
    return {key: _lazy(h5py, value) if isinstance(value, h5py.Group) else value for key, value in group.items()}


def _write(file: Any, name: str, values: Any, rows: np.ndarray | None = None, piece: int = 2**26) -> None:
    if isinstance(values, dict):
        for key, value in values.items():
            _write(file, f"{name}/{key}", value, rows, piece)
        return
    count = len(values) if rows is None else len(rows)
    target = file.create_dataset(
        name, shape=(count, *values.shape[1:]), dtype=values.dtype, compression="gzip", compression_opts=1
    )
    size = max(1, piece // max(1, values[:1].nbytes))
    for start in range(0, count, size):
        take = slice(start, start + size) if rows is None else rows[start : start + size]
        target[start : start + size] = values[take]
