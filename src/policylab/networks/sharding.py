"""Parameters and batches laid over several devices: arrays are placed, and the compiler divides the work (`jax.sharding`, GSPMD).

Nothing else changes: the same `log_probs`, `descend` and `write` run on one device or on many and compute the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from policylab.errors import BadInput

T = TypeVar("T")
# Matrices into the heads or hidden units are divided by columns, those back to the stream by rows (Shoeybi et al. 2019, arXiv
# 1909.08053): a layer then needs one sum over devices after attention and one after the feed-forward part.
_COLUMNS = ("query", "key", "value", "gate", "up", "head")
_ROWS = ("out", "down")


def device_mesh(*, model: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """All devices (of all hosts) as `data` x `model`: batches are divided over the first, matrices over the second axis.

    Raises `BadInput` where `model` does not divide the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if model < 1 or len(devices) % model:
        raise BadInput(f"{len(devices)} devices cannot be divided into groups of {model}: choose a divisor")
    return Mesh(np.asarray(devices).reshape(-1, model), ("data", "model"))


def shard_parameters(tree: T, mesh: Mesh) -> T:
    """A policy, or an optimiser's state with arrays by the same names, with its matrices divided over the axis `model` and all else on
    every device. A matrix whose side is no multiple of that axis stays whole."""

    def place(path: tuple, leaf: jax.Array) -> jax.Array:
        return jax.device_put(leaf, NamedSharding(mesh, _spec(path, leaf.shape, mesh.shape["model"])))

    return jax.tree_util.tree_map_with_path(place, tree)


def shard_batch(tree: T, mesh: Mesh) -> T:
    """A batch with its first axis divided over the axis `data`. Raises `BadInput` where it is no multiple of it."""
    rows, parts = jax.tree.leaves(tree)[0].shape[0], mesh.shape["data"]
    if rows % parts:
        raise BadInput(f"a batch of {rows} cannot be divided over {parts} devices: choose a multiple")
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec("data")))


def _spec(path: tuple, shape: tuple[int, ...], parts: int) -> PartitionSpec:
    names = jax.tree_util.keystr(path, simple=True, separator=".").split(".")
    line, part = names[-2] if len(names) > 1 else "", names[-1]
    axis = None
    if part == "weight" and line in (*_COLUMNS, *_ROWS):
        axis = len(shape) - (1 if line in _COLUMNS else 2)
    elif part == "bias" and line in _COLUMNS:
        axis = len(shape) - 1
    elif part == "embedding":
        axis = 0
    if axis is None or shape[axis] % parts:
        return PartitionSpec()
    return PartitionSpec(*([None] * axis), "model")
