"""The two ways in which Minari stores episodes: one HDF5 file with a group each, or one Arrow or Parquet file each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import PyTree

from policylab.data.packages import package
from policylab.errors import BadInput

MAIN_FILE = "main_data.hdf5"
FORMATS = ("hdf5", "arrow", "parquet")


@dataclass
class Episode:
    """One episode as stored: T steps; observations one longer; infos are nested dicts of arrays with T or T + 1 rows."""

    number: int
    observations: Any
    actions: Any
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray
    infos: dict[str, Any]


def read_hdf5(folder: Path, count: int) -> Iterator[Episode]:
    """The episodes of `main_data.hdf5` in order. Raises `BadInput` if the file is damaged or an episode incomplete."""
    h5py = package("h5py", "reading Minari datasets")
    try:
        file = h5py.File(folder / MAIN_FILE, "r")
    except OSError as error:
        raise BadInput(f"{folder / MAIN_FILE} is missing or damaged ({error}): download or write the dataset again") from error
    with file:
        for number in range(count):
            try:
                group = file[f"episode_{number}"]
                yield Episode(
                    number,
                    _load(h5py, group["observations"]),
                    _load(h5py, group["actions"]),
                    group["rewards"][()],
                    group["terminations"][()],
                    group["truncations"][()],
                    _load(h5py, group["infos"]) if "infos" in group else {},
                )
            except KeyError as error:
                raise BadInput(
                    f"{folder}: episode {number} of {count} is incomplete ({error.args[0]}): download or write the "
                    "dataset again"
                ) from error


def hdf5_lengths(folder: Path, count: int) -> list[int]:
    """The number of steps of every episode. Raises `BadInput` if one is missing."""
    h5py = package("h5py", "reading Minari datasets")
    try:
        with h5py.File(folder / MAIN_FILE, "r") as file:
            return [len(file[f"episode_{number}/rewards"]) for number in range(count)]
    except (OSError, KeyError) as error:
        raise BadInput(
            f"{folder / MAIN_FILE} does not hold the {count} episodes that metadata.json promises ({error}): download or "
            "write the dataset again"
        ) from error


def write_hdf5(folder: Path, episodes: Iterator[Episode]) -> None:
    """Write `main_data.hdf5` as Minari does."""
    h5py = package("h5py", "writing Minari datasets")
    with h5py.File(folder / MAIN_FILE, "w", track_order=True) as file:
        for episode in episodes:
            group = file.create_group(f"episode_{episode.number}")
            group.attrs["id"], group.attrs["total_steps"] = episode.number, len(episode.rewards)
            for name in ("observations", "actions", "rewards", "terminations", "truncations", "infos"):
                _store(group, name, getattr(episode, name))


def read_arrow(folder: Path, count: int, kind: str, shapes: dict[str, Any]) -> Iterator[Episode]:
    """The episodes of an `arrow` or `parquet` dataset in order; `shapes` are the documents of the two spaces."""
    dataset = package("pyarrow.dataset", "reading Minari datasets in Arrow")
    for number in range(count):
        try:
            source = dataset.dataset(folder / str(number), format=kind, ignore_prefixes=["_", ".", "metadata.json"])
            table = source.to_table().combine_chunks()
        except (OSError, ValueError) as error:
            raise BadInput(
                f"{folder}: episode {number} of {count} cannot be read ({error}): download or write the dataset again"
            ) from error
        column = {name: table.column(name).combine_chunks() for name in table.column_names}
        plain = {name: _plain(column[name]) for name in ("rewards", "terminations", "truncations")}
        steps = len(table) - 1
        yield Episode(
            number,
            _unpack(column["observations"], shapes["observation"]),
            _cut(_unpack(column["actions"], shapes["action"]), steps),
            plain["rewards"][:steps],
            plain["terminations"][:steps],
            plain["truncations"][:steps],
            _infos(column["infos"]) if "infos" in column else {},
        )


def arrow_lengths(folder: Path, count: int) -> list[int]:
    """The number of steps of every episode. Raises `BadInput` if one is missing."""
    try:
        return [json.loads((folder / str(number) / "metadata.json").read_text())["total_steps"] for number in range(count)]
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"{folder} does not hold the {count} episodes that metadata.json promises ({error}): download or write the "
            "dataset again"
        ) from error


def write_arrow(folder: Path, episodes: Iterator[Episode], kind: str) -> None:
    """Write one folder per episode as Minari's `arrow` and `parquet` storages do; actions get one padding row."""
    pa = package("pyarrow", "writing Minari datasets in Arrow")
    parquet = package("pyarrow.parquet", "writing Minari datasets in Parquet")
    for episode in episodes:
        target, steps = folder / str(episode.number), len(episode.rewards)
        target.mkdir()
        flags = {name: pa.array(np.pad(getattr(episode, name), (0, 1))) for name in ("rewards", "terminations", "truncations")}
        columns = {"observations": _pack(pa, episode.observations), "actions": _pack(pa, episode.actions, pad=1), **flags}
        if episode.infos:
            columns["infos"] = _pack_infos(pa, episode.infos)
        batch = pa.RecordBatch.from_pydict(columns)
        if kind == "arrow":
            with pa.ipc.new_file(target / "part-0.arrow", batch.schema) as file:
                file.write_batch(batch)
        else:
            parquet.write_table(pa.Table.from_batches([batch]), target / "part-0.parquet")
        (target / "metadata.json").write_text(json.dumps({"id": episode.number, "total_steps": steps}))


def _load(h5py: Any, node: Any) -> Any:
    if isinstance(node, h5py.Group):
        return {key.removeprefix("_index_"): _load(h5py, value) for key, value in node.items()}
    return node[()]


def _store(group: Any, name: str, values: Any) -> None:
    if isinstance(values, dict):
        inner = group.create_group(name)
        for key, value in values.items():
            _store(inner, key, value)
    else:
        group.create_dataset(name, data=values, chunks=True, maxshape=(None, *values.shape[1:]))


def _plain(column: Any) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)


def _unpack(column: Any, document: dict[str, Any]) -> Any:
    """Nested arrays of an Arrow column; fixed-size lists become rows of the shape that the space has."""
    if document["type"] in ("Dict", "Tuple"):
        parts = document["subspaces"]
        items = parts.items() if isinstance(parts, dict) else ((str(i), part) for i, part in enumerate(parts))
        return {name: _unpack(column.field(name), part) for name, part in items}
    if document["type"] in ("Discrete",):
        return _plain(column)
    return _rows(column) if str(column.type).startswith("fixed_size_list") else column.to_pylist()


def _rows(column: Any) -> np.ndarray:
    width = column.type.list_size
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), width)


def _cut(tree: Any, steps: int) -> Any:
    return {key: _cut(value, steps) for key, value in tree.items()} if isinstance(tree, dict) else tree[:steps]


def _infos(column: Any) -> dict[str, Any]:
    found = {}
    for i, entry in enumerate(column.type):
        values = column.field(i)
        if str(values.type).startswith("struct"):
            found[entry.name] = _infos(values)
        elif str(values.type).startswith("fixed_size_list"):
            shape = (entry.metadata or {}).get(b"shape")
            sizes = tuple(int(size) for size in shape.split(b",") if size) if shape is not None else (values.type.list_size,)
            found[entry.name] = _rows(values).reshape(len(values), *sizes)
        else:
            found[entry.name] = _plain(values)
    return found


def _pack(pa: Any, tree: PyTree[np.ndarray], pad: int = 0) -> Any:
    if isinstance(tree, dict):
        return pa.StructArray.from_arrays([_pack(pa, value, pad) for value in tree.values()], names=list(tree))
    if tree.ndim == 1:
        return pa.array(np.pad(tree, (0, pad)))
    flat = np.pad(np.ascontiguousarray(tree).reshape(len(tree), -1), ((0, pad), (0, 0)))
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), list_size=flat.shape[1])


def _pack_infos(pa: Any, infos: dict[str, Any]) -> Any:
    arrays, fields = [], []
    for name, values in infos.items():
        array = _pack_infos(pa, values) if isinstance(values, dict) else _pack(pa, values)
        shaped = not isinstance(values, dict) and values.ndim > 1
        metadata = {"shape": ",".join(map(str, values.shape[1:]))} if shaped else None
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata=metadata))
    return pa.StructArray.from_arrays(arrays, fields=fields)
