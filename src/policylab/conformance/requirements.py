"""What the suite asserts again and again; each assertion carries the sentence that says how to mend it."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from policylab import spaces
from policylab.experience import Tokens

Test = tuple[str, Callable[[], None]]


def arrays_only(tree: PyTree, what: str) -> None:
    """Every leaf is an array."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        assert isinstance(leaf, jax.Array | np.ndarray), (
            f"{what}{jax.tree_util.keystr(path)} is a {type(leaf).__name__}: every leaf must be an array; mark the rest static"
        )


def same(a: PyTree, b: PyTree, sentence: str) -> None:
    """Both trees are equal to the bit (NaN equals NaN); else the problem is `sentence`."""
    equal = jax.tree.structure(a) == jax.tree.structure(b) and jax.tree.all(
        jax.tree.map(
            lambda x, y: np.array_equal(
                np.asarray(x), np.asarray(y), equal_nan=np.issubdtype(np.asarray(x).dtype, np.floating)
            ),
            a,
            b,
        )
    )
    assert equal, sentence


def shapes(tree: PyTree) -> PyTree:
    """Shape and dtype of every leaf."""
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.asarray(leaf).dtype), tree)


def inside(space: spaces.Space, value: PyTree) -> None:
    """The action has the shapes of the space and lies in it."""
    if isinstance(value, Tokens):
        kind = np.asarray(value.kind)
        written = int(np.sum(kind == 2))
        expected = np.where(np.arange(len(kind)) < written, 2, 0)
        assert np.array_equal(kind, expected), "an answer has kind 2, then 0 to its end"
        value = value.ids
    given = jax.tree.map(lambda leaf: np.shape(leaf), value)
    wanted = jax.tree.map(lambda leaf: np.shape(leaf), spaces.zeros(space))
    assert given == wanted, f"an action has shapes {given}, not {wanted} of {spaces.describe(space)}"
    if isinstance(space, spaces.Composite):
        for name, part in space.parts:
            inside(part, value[name])
    if isinstance(space, spaces.Discrete):
        assert 0 <= int(value) < space.n, f"the action {value} is not one of {space.n} choices"
    if isinstance(space, spaces.Box) and space.bounded:
        low, high = space.bounds()
        assert np.all((value >= low - 1e-4) & (value <= high + 1e-4)), f"the action {value} leaves the bounds of its space"
