"""What sources of prompts and judged answers share: rows on the device, padded to a capacity, checked, and drawn uniformly."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.learner import Clock, Request
from policylab.source import Source


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


class Stored(Source):
    """Rows on the device that were judged before or whose answers will be, padded to a power of two; `count` of them are valid.

    A kind of rows says by `refusal` which requests it does not answer, and by `draw` how it answers the others.
    """

    count: Int[Array, ""] = eqx.field(kw_only=True)
    specification: Spec = eqx.field(kw_only=True)
    needs: tuple[tuple[str, Request], ...] = eqx.field(static=True, default=(), kw_only=True)

    @property
    def spec(self) -> Spec:
        """What the prompts and answers are."""
        return self.specification

    @property
    def rewarded(self) -> bool:
        """They hold judgements of answers, no rewards of steps."""
        return False

    @abstractmethod
    def refusal(self, name: str, request: Request) -> str:
        """Why these rows cannot answer the request of this name, in one sentence; "" where they can."""

    @abstractmethod
    def draw(self, request: Any, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Any:
        """One batch for a request that is not refused."""

    def serve(self, needs: Mapping[str, Request]) -> Source:
        """These rows, ready to answer `needs`. Raises `BadInput` where they cannot."""
        for name, request in needs.items():
            if problem := self.refusal(name, request):
                raise BadInput(problem)
        return replace(self, needs=tuple(needs.items()))

    def next(self, state: PyTree, products: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray) -> tuple[PyTree, Any]:
        """One batch per request, uniform over rows with replacement."""
        keys = jax.random.split(key, len(self.needs))
        batches = {name: self.draw(request, products, key=k) for (name, request), k in zip(self.needs, keys, strict=True)}
        return state, batches[self.needs[0][0]] if len(batches) == 1 else batches

    @classmethod
    def stored(cls, columns: dict[str, PyTree], *, spec: Spec, what: str, **more: Any) -> Any:
        """A source of this class from `columns` by field; `more` are fields that are no columns. Raises `BadInput` as `require_rows` does."""
        rows = require_rows(columns, what=what)
        shaped: dict[str, Any] = {name: padded(column, rows) for name, column in columns.items()}
        return cls(**shaped, **more, count=jnp.asarray(rows, jnp.int32), specification=spec)
