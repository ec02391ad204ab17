"""Minari datasets (Younis et al. 2024), read and written without Minari: a folder of metadata.json and stored episodes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from policylab import spaces
from policylab.data import minari_spaces, minari_storage
from policylab.data.atomic import atomic
from policylab.data.minari_storage import Episode
from policylab.data.packages import package
from policylab.data.recording import Allocate, Recording, in_memory
from policylab.errors import BadInput
from policylab.experience import Spec

VERSION = "0.5.4"  # the Minari whose layout we write
_NAME = re.compile(r"[-_\w]+(/[-_\w]+)*-v\d+")


def local_path(dataset_id: str) -> Path:
    """Where Minari keeps a dataset on this machine (`MINARI_DATASETS_PATH`, else `~/.minari/datasets`)."""
    root = os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets"
    return Path(root) / dataset_id


def is_dataset_id(name: str) -> bool:
    """Whether `name` has the form of a Minari dataset id such as `D4RL/pointmaze/umaze-v2`."""
    return _NAME.fullmatch(name) is not None


def data_folder(path: Path) -> Path | None:
    """The folder that holds the data of the Minari dataset at `path` (it, or its `data`); None where there is none."""
    for folder in (path, path / "data"):
        if (folder / minari_storage.MAIN_FILE).is_file() or "data_format" in _metadata(folder):
            return folder
    return None


def read(path: str | Path, *, allocate: Allocate = in_memory) -> Recording:
    """The recording in a Minari folder (HDF5, Arrow or Parquet storage), one episode in memory at a time.

    Numeric infos become `extra` (the row after each action where the reset's is stored too); the others are named in
    `origin["infos_left_out"]`. Words become numbered choices. Raises `BadInput` if files are missing or disagree.
    """
    path = Path(path)
    folder = data_folder(path)
    if folder is None:
        raise BadInput(f"{path} is no Minari dataset: it needs metadata.json and {minari_storage.MAIN_FILE}, here or in data/")
    facts = _metadata(folder) or _old_metadata(folder)
    count, kind = int(facts.get("total_episodes", 0)), facts.get("data_format", "hdf5")
    if kind not in minari_storage.FORMATS:
        raise BadInput(f"{folder}: unknown Minari storage {kind!r}: this version reads {', '.join(minari_storage.FORMATS)}")
    if count == 0:
        raise BadInput(f"{folder} has no episodes: collect or download some first")
    documents = {name: _document(facts, name, folder) for name in ("observation", "action")}
    jpeg = bool(facts.get("jpeg_encoding", True))
    readers = {name: minari_spaces.Reader(document, jpeg) for name, document in documents.items()}
    if kind == "hdf5":
        lengths, episodes = minari_storage.hdf5_lengths(folder, count), minari_storage.read_hdf5(folder, count)
    else:
        lengths, episodes = (
            minari_storage.arrow_lengths(folder, count),
            minari_storage.read_arrow(folder, count, kind, documents),
        )
    ends = np.cumsum(lengths) - 1
    columns, left_out = _fill(folder, episodes, readers, np.asarray(lengths, np.int64), allocate)
    environment, horizon = _environment(facts)
    ours = facts.get("policylab") or {}
    reward = columns["reward"]
    unrewarded = bool(ours.get("unrewarded", False))
    spec = (
        Spec.from_json(ours["spec"])
        if "spec" in ours
        else Spec(
            readers["observation"].space(),
            readers["action"].space(),
            reward_shape=tuple(reward.shape[1:]),
            horizon=horizon,
            environment=environment,
        )
    )
    name = facts.get("dataset_id") or path.name
    told = ("algorithm_name", "author", "description", "code_permalink", "env_spec", "ref_min_score", "ref_max_score")
    origin = {"format": "minari", "path": str(path)} | {key: facts[key] for key in told if facts.get(key) is not None}
    origin |= {"infos_left_out": sorted(left_out)} if left_out else {}
    open_ends = ends[~(columns["terminal"][ends] | columns["truncated"][ends])]
    if len(open_ends):  # collection stopped there: a cut, since the observation that followed was stored
        columns["truncated"][open_ends] = True
        origin["episodes_cut_by_the_end_of_collection"] = len(open_ends)
    return Recording(
        columns["observation"],
        columns["action"],
        None if unrewarded else reward,
        columns["terminal"],
        columns["truncated"],
        np.asarray(lengths, np.int64),
        spec,
        columns["extra"],
        name,
        origin,
    )


def write(recording: Recording, path: str | Path, *, dataset_id: str = "", storage: str = "hdf5") -> None:
    """Write a dataset folder that Minari 0.5 reads: `path`/data with metadata.json and the episodes, whole or not at all.

    `dataset_id` defaults to the last part of `path`; it must end in a version (`-v0`). `extra` becomes infos, with a first
    row for the reset (NaN, or zero for whole numbers). A recording without rewards is stored with NaN, as Minari requires
    some. Raises `BadInput` if `path` exists or the id has another form.
    """
    path = Path(path)
    dataset_id = dataset_id or (path.name if is_dataset_id(path.name) else f"{path.name}-v0")
    if not is_dataset_id(dataset_id):
        raise BadInput(
            f"{dataset_id!r} is no Minari id: letters, digits, - and _, with a version at the end, as in pointmaze/mixed-v0"
        )
    if storage not in minari_storage.FORMATS:
        raise BadInput(f"unknown Minari storage {storage!r}: choose among {', '.join(minari_storage.FORMATS)}")
    spec = recording.spec
    metadata: dict[str, Any] = {
        "total_episodes": recording.episodes,
        "total_steps": recording.steps,
        "data_format": storage,
        "jpeg_encoding": False,
        "observation_space": json.dumps(minari_spaces.write(spec.observation)),
        "action_space": json.dumps(minari_spaces.write(spec.action)),
        "dataset_id": dataset_id,
        "minari_version": VERSION,
        "policylab": {"spec": spec.to_json() | {"statistics": {}}, "unrewarded": recording.reward is None},
    }
    env_spec = recording.origin.get("env_spec") or _env_spec(spec.environment)
    metadata |= {"env_spec": env_spec} if env_spec else {}
    told = ("algorithm_name", "author", "description", "code_permalink", "ref_min_score", "ref_max_score")
    metadata |= {key: recording.origin[key] for key in told if key in recording.origin}
    with atomic(path, folder=True) as scratch:
        folder = scratch / "data"
        folder.mkdir()
        if storage == "hdf5":
            minari_storage.write_hdf5(folder, _episodes(recording))
        else:
            minari_storage.write_arrow(folder, _episodes(recording), storage)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        metadata["dataset_size"] = round(size / 1e6, 1)
        (folder / "metadata.json").write_text(json.dumps(metadata, default=str))


def _fill(
    folder: Path, episodes: Iterator[Episode], readers: dict[str, minari_spaces.Reader], lengths: np.ndarray, allocate: Allocate
) -> tuple[dict[str, Any], set[str]]:
    """All columns, filled episode by episode, and the names of infos that are not one number or array for every step."""
    steps, columns, left_out = int(lengths.sum()), {}, set()
    row = 0
    for episode, length in zip(episodes, lengths.tolist()):
        parts = {
            "observation": readers["observation"].read(episode.observations),
            "action": readers["action"].read(episode.actions),
            "reward": np.asarray(episode.rewards, np.float32),
            "terminal": np.asarray(episode.terminations, bool),
            "truncated": np.asarray(episode.truncations, bool),
        }
        for field in parts:
            wanted = length + (field == "observation")
            for leaf in jax.tree.leaves(parts[field]):
                if len(leaf) != wanted:
                    raise BadInput(
                        f"{folder}: episode {episode.number} has {len(leaf)} rows of {field} where {wanted} are due for "
                        f"{length} steps: download or write the dataset again"
                    )
        infos = _step_infos(episode.infos, length)
        if episode.number == 0:
            for field, part in parts.items():
                columns[field] = _allocate(field, part, steps + (len(lengths) if field == "observation" else 0), allocate)
            columns["extra"] = {name: _allocate(f"extra/{name}", values, steps, allocate) for name, values in infos.items()}
            left_out = _names(episode.infos) - set(infos)
        for field, part in parts.items():
            start = row + (episode.number if field == "observation" else 0)
            for column, leaf in zip(jax.tree.leaves(columns[field]), jax.tree.leaves(part)):
                column[start : start + len(leaf)] = leaf
        for name in list(columns["extra"]):
            if name not in infos or infos[name].shape[1:] != columns["extra"][name].shape[1:]:
                del columns["extra"][name]
                left_out.add(name)
            else:
                columns["extra"][name][row : row + length] = infos[name]
        left_out |= set(infos) - set(columns["extra"])
        row += length
    return columns, left_out


def _allocate(label: str, tree: Any, rows: int, allocate: Allocate) -> Any:
    if isinstance(tree, dict):
        return {name: _allocate(f"{label}/{name}", part, rows, allocate) for name, part in tree.items()}
    return allocate(label, (rows, *tree.shape[1:]), tree.dtype)


def _step_infos(infos: dict[str, Any], length: int, prefix: str = "") -> dict[str, np.ndarray]:
    """The infos that are one number or array per step; where the reset's is stored too, the row after each action."""
    found: dict[str, np.ndarray] = {}
    for name, values in (infos or {}).items():
        if isinstance(values, dict):
            found |= _step_infos(values, length, f"{prefix}{name}/")
        elif isinstance(values, np.ndarray) and values.dtype.kind in "biuf" and len(values) in (length, length + 1):
            values = values.astype(np.float32) if values.dtype.kind == "f" else values
            found[prefix + name] = values[len(values) - length :]
    return found


def _names(infos: dict[str, Any], prefix: str = "") -> set[str]:
    nested = [(_names(v, f"{prefix}{k}/") if isinstance(v, dict) else {prefix + k}) for k, v in (infos or {}).items()]
    return set().union(*nested) if nested else set()


def _episodes(recording: Recording) -> Iterator[Episode]:
    reward = np.full(recording.steps, np.nan, np.float32) if recording.reward is None else recording.reward
    for number, (start, length) in enumerate(zip(recording.starts.tolist(), recording.lengths.tolist())):
        steps, rows = slice(start, start + length), slice(start + number, start + number + length + 1)
        infos: dict[str, Any] = {}
        for name, values in recording.extra.items():
            node, *parents = infos, *name.split("/")[:-1]
            for parent in parents:
                node = node.setdefault(parent, {})
            reset = np.full((1, *values.shape[1:]), np.nan if np.issubdtype(values.dtype, np.floating) else 0, values.dtype)
            node[name.split("/")[-1]] = np.concatenate([reset, values[steps]])
        yield Episode(
            number,
            _stored(recording.spec.observation, recording.observation, rows),
            _stored(recording.spec.action, recording.action, steps),
            np.asarray(reward[steps]),
            np.asarray(recording.terminal[steps]),
            np.asarray(recording.truncated[steps]),
            infos,
        )


def _stored(space: spaces.Space, tree: Any, rows: slice) -> Any:
    match space:
        case spaces.Composite():
            return {name: _stored(part, tree[name], rows) for name, part in space.parts}
        case spaces.Discrete():
            return np.asarray(tree[rows], np.int64)
        case spaces.Box():
            return np.asarray(tree[rows], space.dtype)


def _metadata(folder: Path) -> dict[str, Any]:
    try:
        document = json.loads((folder / "metadata.json").read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder / 'metadata.json'} is damaged ({error}): download or write the dataset again") from error
    return document if isinstance(document, dict) else {}


def _old_metadata(folder: Path) -> dict[str, Any]:
    """Before Minari 0.5 the metadata were attributes of the HDF5 file."""
    h5py = package("h5py", "reading Minari datasets")
    try:
        with h5py.File(folder / minari_storage.MAIN_FILE, "r") as file:
            return {key: value.item() if isinstance(value, np.generic) else value for key, value in file.attrs.items()}
    except OSError as error:
        raise BadInput(
            f"{folder / minari_storage.MAIN_FILE} is damaged ({error}): download or write the dataset again"
        ) from error


def _document(facts: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    if f"{name}_space" not in facts:
        raise BadInput(f"{folder}: the metadata name no {name}_space: open the dataset once with Minari 0.5 to add it")
    return minari_spaces.parse(facts[f"{name}_space"], f"{folder}: {name}_space")


def _environment(facts: dict[str, Any]) -> tuple[str, int]:
    try:
        spec = json.loads(facts["env_spec"])
        return spec["id"], int(spec.get("max_episode_steps") or 0)
    except (KeyError, TypeError, ValueError):
        return "", 0


def _env_spec(environment: str) -> str:
    import gymnasium

    if environment not in gymnasium.registry:
        return ""
    return gymnasium.spec(environment).to_json()
