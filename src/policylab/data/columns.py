"""Our own layout on disk: a folder with one .npy file per column and a JSON description, opened memory-mapped."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from policylab.data.atomic import atomic
from policylab.data.recording import Recording
from policylab.errors import BadInput
from policylab.experience import Spec

DESCRIPTION = "recording.json"
_LAYOUT = 1
_PIECE = 2**26


@dataclass
class Folder:
    """A folder of columns that are being written: `allocate` gives memory-mapped arrays for readers to fill in pieces."""

    path: Path
    columns: dict[str, tuple[Path, np.ndarray]] = field(default_factory=dict)
    made: int = 0

    def allocate(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A writable array on disk for the column `name`."""
        file = self.path / f"column_{self.made:03d}.npy"
        self.made += 1
        if 0 in shape:  # nothing to map
            column = np.zeros(shape, dtype)
            np.save(file, column, allow_pickle=False)
        else:
            column = np.lib.format.open_memmap(file, mode="w+", dtype=np.dtype(dtype), shape=shape)
        self._drop(name)
        self.columns[name] = file, column
        return column

    def finish(self, recording: Recording) -> None:
        """Write what `recording` still holds elsewhere, and the description; drop what it does not hold."""
        named = flatten(recording)
        for name, values in named.items():
            if name not in self.columns or self.columns[name][1] is not values:
                target = self.allocate(name, values.shape, values.dtype)
                rows = max(1, _PIECE // max(1, values[:1].nbytes))
                for start in range(0, len(values), rows):
                    target[start : start + rows] = values[start : start + rows]
        for name in set(self.columns) - set(named):  # scratch columns of a reader
            self._drop(name)
        for _, column in self.columns.values():
            if isinstance(column, np.memmap):
                column.flush()
        document = {
            "layout": _LAYOUT,
            "policylab": version("policylab"),
            "name": recording.name,
            "origin": recording.origin,
            "spec": recording.spec.to_json() | {"statistics": {}},
            "columns": {
                name: {"file": file.name, "shape": list(column.shape), "dtype": str(column.dtype)}
                for name, (file, column) in self.columns.items()
            },
        }
        (self.path / DESCRIPTION).write_text(json.dumps(document, indent=1, default=plain))

    def _drop(self, name: str) -> None:
        if name in self.columns:
            self.columns.pop(name)[0].unlink()


def write(recording: Recording, path: str | Path) -> None:
    """Write a folder at `path`, whole or not at all; columns are copied in pieces of 64 MB. Raises `BadInput` if it exists."""
    with atomic(path, folder=True) as scratch:
        Folder(scratch).finish(recording)


def read(path: str | Path) -> Recording:
    """The recording in a folder that `write` made; columns stay on disk until they are used.

    Raises `BadInput` if the description or a column is missing, damaged or from a newer version.
    """
    path = Path(path)
    try:
        document = json.loads((path / DESCRIPTION).read_text())
        columns, layout = dict(document["columns"]), int(document["layout"])
        spec, name, origin = Spec.from_json(document["spec"]), str(document["name"]), dict(document["origin"])
        files = {column: path / Path(facts["file"]).name for column, facts in columns.items()}
        facts = {column: {"shape": facts["shape"], "dtype": facts["dtype"]} for column, facts in columns.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: {DESCRIPTION} cannot be read ({error}): save the recording again") from error
    if layout > _LAYOUT:
        raise BadInput(f"{path} has layout {layout}, but this version reads up to {_LAYOUT}: update policylab")
    loaded = {column: _open(file, facts[column]) for column, file in files.items()}
    missing = [column for column in ("terminal", "truncated", "lengths") if column not in loaded]
    if missing:
        raise BadInput(f"{path}: {DESCRIPTION} names no column {missing[0]!r}: save the recording again")
    return unflatten(loaded, spec, name, origin)


def memory_needed(recording: Recording) -> int:
    """Bytes that the recording takes once it is wholly in memory (or on the accelerator): every column once, as stored."""
    return sum(int(values.nbytes) for values in flatten(recording).values())


def flatten(recording: Recording) -> dict[str, np.ndarray]:
    """Every column of a recording by name: `observation` (or `observation/goal` ...), `action`, `lengths`, `extra/...`."""
    tree = {
        "observation": recording.observation,
        "action": recording.action,
        "terminal": recording.terminal,
        "truncated": recording.truncated,
        "lengths": recording.lengths,
        "extra": recording.extra,
    }
    tree |= {} if recording.reward is None else {"reward": recording.reward}
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def unflatten(columns: dict[str, np.ndarray], spec: Spec, name: str, origin: dict[str, Any]) -> Recording:
    """The recording whose columns `flatten` named. Raises KeyError if one is missing."""
    return Recording(
        _tree(columns, "observation"),
        _tree(columns, "action"),
        columns.get("reward"),
        columns["terminal"],
        columns["truncated"],
        np.asarray(columns["lengths"]),
        spec,
        {label.removeprefix("extra/"): column for label, column in columns.items() if label.startswith("extra/")},
        name,
        origin,
    )


def _tree(columns: dict[str, np.ndarray], root: str) -> PyTree[np.ndarray]:
    if root in columns:
        return columns[root]
    names = dict.fromkeys(name.removeprefix(root + "/").split("/")[0] for name in columns if name.startswith(root + "/"))
    return {name: _tree(columns, f"{root}/{name}") for name in names}


def _open(file: Path, facts: dict[str, Any]) -> np.ndarray:
    try:
        column = np.load(file, mmap_mode=None if 0 in facts["shape"] else "r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"{file} is missing or damaged ({error}): save the recording again") from error
    if list(column.shape) != facts["shape"] or str(column.dtype) != facts["dtype"]:
        raise BadInput(
            f"{file} holds {column.dtype}{list(column.shape)} but {DESCRIPTION} says "
            f"{facts['dtype']}{facts['shape']}: save the recording again"
        )
    return column


def plain(value: Any) -> Any:
    """NumPy scalars and arrays, paths and tuples of an origin as JSON knows them."""
    if isinstance(value, np.generic):
        return value.item()
    return value.tolist() if isinstance(value, np.ndarray) else str(value)
