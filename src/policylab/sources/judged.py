"""Arrays of judgements on the device: padding to a capacity, checks, and uniform draws of rows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from policylab.errors import BadInput


def capacity_of(rows: int) -> int:
    """The power of two that holds `rows`, so that data of similar size share one compiled program."""
    return 1 << max(rows - 1, 1).bit_length()


def padded(column: PyTree, rows: int) -> PyTree[Array]:
    """A column on the device, zeros after its rows; floats in float32, whole numbers in int32."""

    def one(leaf: Any) -> Array:
        leaf = np.asarray(leaf)
        dtype: Any = (
            np.float32 if np.issubdtype(leaf.dtype, np.floating) else np.int32 if leaf.dtype == np.int64 else leaf.dtype
        )
        whole = np.zeros((capacity_of(rows), *leaf.shape[1:]), dtype)
        whole[:rows] = leaf
        return jnp.asarray(whole)

    return jax.tree.map(one, column)


def require_rows(columns: dict[str, PyTree], *, what: str) -> int:
    """The number of rows. Raises `BadInput` where columns are of different lengths, empty or not finite, naming the first such row."""
    lengths = {name: {len(np.asarray(leaf)) for leaf in jax.tree.leaves(column)} for name, column in columns.items()}
    first = next(iter(columns))
    rows = max(lengths[first])
    if rows == 0:
        raise BadInput(f"the {what} have no rows: give at least one")
    for name, found in lengths.items():
        if found != {rows}:
            raise BadInput(f"{name} has {min(found)} rows but {first} has {rows}: give one row for each of the {what}")
    for name, column in columns.items():
        for leaf in map(np.asarray, jax.tree.leaves(column)):
            if np.issubdtype(leaf.dtype, np.floating) and not np.isfinite(leaf).all():
                row = int(np.argmax(~np.isfinite(leaf.reshape(rows, -1)).all(axis=1)))
                raise BadInput(f"{name} of row {row} is not finite: mend or remove the row")
    return rows


def drawn(count: int, rows: Int[Array, ""], *, key: PRNGKeyArray) -> Int[Array, " count"]:
    """`count` rows, uniform with replacement."""
    return jax.random.randint(key, (count,), 0, rows)


def taken(tree: PyTree, rows: Any) -> PyTree:
    """These rows of every leaf; or of a pair of indices these rows and members."""
    return jax.tree.map(lambda leaf: leaf[rows], tree)
