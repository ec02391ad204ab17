"""Arrays on disk: one atomic safetensors file whose header holds a JSON document. Reading never executes code."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from policylab.errors import BadInput

T = TypeVar("T")


def _named_leaves(tree: PyTree) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/") or "value": leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def save_arrays(path: Path | str, tree: PyTree, document: dict[str, Any]) -> None:
    """Write every array leaf of `tree` and `document` to `path`, atomically: a reader sees the old file or the new one."""
    from safetensors.numpy import save

    arrays = {name: np.asarray(jax.device_get(leaf), order="C") for name, leaf in _named_leaves(tree).items()}
    write_atomically(Path(path), save(arrays, metadata={"policylab": json.dumps(document)}))


def load_document(path: Path | str) -> dict[str, Any]:
    """The JSON document in the header of `path`; no array is read. Raises `BadInput` if there is none."""
    return _open(Path(path), arrays=False)[0]


def load_arrays(path: Path | str, like: T) -> tuple[T, dict[str, Any]]:
    """The tree saved at `path` with the structure of `like` (arrays or shapes), and the document.

    Raises `BadInput` naming the first array that is missing or has another shape.
    """
    document, arrays = _open(Path(path))
    wanted = _named_leaves(like)
    for name, leaf in wanted.items():
        if name not in arrays:
            raise BadInput(f"{path} has no array {name!r}: it was saved by another learner, form or version")
        if tuple(arrays[name].shape) != tuple(leaf.shape):
            raise BadInput(
                f"{path}: array {name!r} has shape {arrays[name].shape}, not {tuple(leaf.shape)}: it was saved with other settings"
            )
    leaves = [jnp.asarray(arrays[name]).astype(leaf.dtype) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), document


def _open(path: Path, *, arrays: bool = True) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The document, and every array unless only the document is wanted."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise BadInput(f"there is no file {path}: check the path, or train and save first")
    try:
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get("policylab")
            found = {name: file.get_tensor(name) for name in file.keys()} if arrays else {}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, ValueError, OSError) as error:
        raise BadInput(f"{path} is damaged or is not a safetensors file ({error}): save it again") from None
    if header is None:
        raise BadInput(f"{path} was not written by policylab, it has no policylab header: give a file that policylab saved")
    try:
        document = json.loads(header)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise BadInput(f"{path} is damaged, its policylab header is no JSON object: save it again")
    return document, found


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` so that a crash at any moment leaves either the old or the new file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)  # temporary files are private; what replaces a file is as readable as any other
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def shapes_of(build: Any, *arguments: Any) -> PyTree:
    """The tree that `build(*arguments)` would return, as shapes, without computing it."""
    return eqx.filter_eval_shape(build, *arguments)
