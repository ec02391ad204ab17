"""Named arrays of steps (NPZ archives, and what HDF5 files hold): which name means what, and how they become a Recording."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from policylab.data.atomic import atomic
from policylab.data.columns import flatten, unflatten
from policylab.data.recording import Allocate, Recording, in_memory, recording_from_steps
from policylab.errors import BadInput
from policylab.experience import Spec

NAMES = {
    "observation": ("observations", "observation", "obs"),
    "action": ("actions", "action"),
    "reward": ("rewards", "reward"),
    "terminal": ("terminals", "terminal", "terminations", "terminated"),
    "truncated": ("timeouts", "truncated", "truncations", "truncateds"),
    "next_observation": ("next_observations", "next_observation", "next_obs"),
}


def read(
    path: str | Path, *, columns: Mapping[str, Any] | None = None, max_episode_steps: int = 0, allocate: Allocate = in_memory
) -> Recording:
    """The recording in an NPZ archive: one that `write` made, or arrays of steps under usual names (`NAMES`, or `columns`).

    Nothing is ever unpickled. Raises `BadInput` if the archive is damaged, holds objects, or lacks actions or observations.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except ValueError as error:
        raise BadInput(
            f"{path} holds Python objects or is damaged ({error}): save plain arrays, numpy.savez(path, "
            "observations=..., actions=...)"
        ) from error
    except (OSError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path} is not a readable .npz archive ({error}): write it with numpy.savez") from error
    if "spec" in arrays and "lengths" in arrays:
        return _own(path, arrays)
    nested: dict[str, Any] = {}
    for name, values in arrays.items():
        _put(nested, name.split("/"), values)
    return from_named(
        nested,
        path.stem,
        columns=columns,
        max_episode_steps=max_episode_steps,
        allocate=allocate,
        origin={"format": "npz", "path": str(path)},
    )


def write(recording: Recording, path: str | Path) -> None:
    """Write an NPZ archive that `read` turns back into the same recording. Raises `BadInput` if `path` exists."""
    facts = {"spec": recording.spec.to_json() | {"statistics": {}}, "name": recording.name, "origin": recording.origin}
    with atomic(path) as scratch, open(scratch, "wb") as file:
        np.savez(file, allow_pickle=False, spec=np.array(json.dumps(facts, default=str)), **flatten(recording))


def from_named(
    arrays: dict[str, Any],
    name: str,
    *,
    columns: Mapping[str, Any] | None = None,
    max_episode_steps: int = 0,
    origin: dict[str, Any] | None = None,
    allocate: Allocate = in_memory,
) -> Recording:
    """A Recording from arrays of steps by name, with D4RL's rules for the ends of episodes.

    `columns` says which name plays which role where it isn't a usual one. Other arrays with one row per step become `extra`
    (those under `infos` without that prefix); single numbers and words become facts of the origin. An episode ends at a
    terminal step, at a timeout, or where timeouts were not recorded after `max_episode_steps` steps. Raises `BadInput` if
    observations or actions are missing, if nothing says where episodes end, or if an array fits nowhere.
    """
    roles, rest = _assign(arrays, name, columns or {})
    action = roles["action"]
    count = len(_first_leaf(action))
    flags = {role: _flag(roles.get(role), name, role, count) for role in ("terminal", "truncated")}
    truncated = flags["truncated"]
    if truncated is None and max_episode_steps:
        truncated = timeouts(flags["terminal"], max_episode_steps, count)
    if truncated is None and flags["terminal"] is None:
        raise BadInput(f"{name} has neither terminals nor timeouts: add one of them, so that it is known where episodes end")
    if truncated is None and "next_observation" not in roles:
        raise BadInput(
            f"{name} has no timeouts, so time limits cannot be told from failures: add timeouts or next_observations, "
            "or say max_episode_steps or the environment"
        )
    extra, facts = {}, {}
    for label, values in _walk(rest):
        if values.shape == ():
            facts[label] = _scalar(values)
        elif len(values) == count and np.issubdtype(values.dtype, np.number) | (values.dtype == bool):
            extra[label.removeprefix("infos/")] = values
        elif not label.startswith("metadata/"):
            raise BadInput(
                f"{name}: {label} is {values.dtype}{list(values.shape)}, which is neither one row for each of the {count} "
                "steps nor a single value: remove or rename it"
            )
    origin = (origin or {}) | ({"facts": facts} if facts else {})
    recording = recording_from_steps(
        _at_least_vectors(roles["observation"]),
        _at_least_vectors(action),
        roles.get("reward"),
        flags["terminal"],
        truncated,
        _at_least_vectors(roles.get("next_observation")),
        extra=extra,
        name=name,
        origin=origin,
        allocate=allocate,
    )
    return replace(recording, spec=replace(recording.spec, horizon=max_episode_steps))


def timeouts(terminal: np.ndarray | None, max_episode_steps: int, count: int) -> np.ndarray:
    """Where the clock ended an episode: D4RL's rule for files without timeouts (every `max_episode_steps` since the last end)."""
    cut = np.zeros(count, bool)
    ends = np.flatnonzero(terminal) if terminal is not None else np.zeros(0, np.int64)
    start = 0
    for end in [*ends.tolist(), count - 1]:
        cut[start + max_episode_steps - 1 : end + 1 : max_episode_steps] = True
        start = end + 1
    return cut if terminal is None else cut & ~terminal


def _assign(arrays: dict[str, Any], name: str, columns: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    rest, roles = dict(arrays), {}
    for role, given in columns.items():
        key = given[0] if isinstance(given, (list, tuple)) and len(given) == 1 else given
        if role not in NAMES:
            raise BadInput(f"{name}: unknown role {role!r} in the columns: choose among {', '.join(NAMES)}")
        if key not in rest:
            raise BadInput(f"{name} has no array {key!r} for {role}: it has {', '.join(arrays) or 'nothing'}")
        roles[role] = rest.pop(key)
    for role, names in NAMES.items():
        found = [key for key in names if key in rest]
        if role not in roles and found:
            roles[role] = rest.pop(found[0])
    for role in ("observation", "action"):
        if role not in roles:
            raise BadInput(
                f"{name} has no {NAMES[role][0]}: it has {', '.join(arrays) or 'nothing'}; rename one or say "
                f"columns={role}=NAME"
            )
    if "dones" in rest and "terminal" not in roles:
        raise BadInput(
            f"{name} has dones, which may mix failures with time limits: rename it to terminals or timeouts, or say "
            "columns=terminal=dones"
        )
    return roles, rest


def _flag(values: Any, name: str, role: str, count: int) -> np.ndarray | None:
    if values is None:
        return None
    values = np.asarray(values)
    flat = values.reshape(-1)
    if len(flat) != count:
        raise BadInput(f"{name}: {role} has {len(flat)} rows but the actions have {count}: give every array one row per step")
    wrong = ~((flat == 0) | (flat == 1))
    if wrong.any():
        raise BadInput(f"{name}: {role} at row {int(np.argmax(wrong))} is {flat[wrong][0]}: give 0 or 1 for each step")
    return flat.astype(bool)


def _at_least_vectors(tree: Any) -> Any:
    """Float columns without entries become vectors of one; choices stay whole numbers."""
    if isinstance(tree, dict):
        return {key: _at_least_vectors(value) for key, value in tree.items()}
    if tree is None or len(tree.shape) != 1 or not np.issubdtype(tree.dtype, np.floating):
        return tree
    return np.asarray(tree)[:, None]


def _first_leaf(tree: Any) -> Any:
    return _first_leaf(next(iter(tree.values()))) if isinstance(tree, dict) else tree


def _walk(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows = []
    for key, value in tree.items():
        rows += _walk(value, f"{prefix}{key}/") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return rows


def _scalar(values: Any) -> Any:
    value = np.asarray(values[()]).item()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def _own(path: Path, arrays: dict[str, np.ndarray]) -> Recording:
    try:
        facts = json.loads(str(arrays.pop("spec")))
        return unflatten(arrays, Spec.from_json(facts["spec"]), facts["name"], facts["origin"])
    except (KeyError, ValueError) as error:
        raise BadInput(f"{path} looks like a saved recording but is incomplete ({error}): save it again") from error
