"""Fingerprints: a short hash of arrays, so that a run is never resumed on other data of the same shapes."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

WHOLE = 2**25  # bytes: an array up to this size is hashed as a whole
ROWS = 4096  # of a larger one so many rows, spread evenly, the first and the last among them


def fingerprint(tree: PyTree) -> str:
    """16 hexadecimal digits of SHA-256 over every array leaf of `tree` by name: dtype, shape and content.

    Arrays of up to 32 MiB are hashed whole. Of larger ones, which may be memory-mapped or on an accelerator, 4,096 rows are
    read, spread evenly from the first to the last: two large arrays that differ in other rows alone look the same.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = _array(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape};".encode())
        if array.nbytes > WHOLE and array.shape[0] > ROWS:
            array = array[np.linspace(0, array.shape[0] - 1, ROWS).astype(np.int64)]
        digest.update(np.asarray(array, order="C").tobytes())
    return digest.hexdigest()[:16]


def _array(leaf: Any) -> Any:
    """The leaf as an array that can be indexed, where it lies; random keys as their numbers."""
    if isinstance(leaf, jax.Array):
        return jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    return leaf if isinstance(leaf, np.ndarray) else np.asarray(leaf)
