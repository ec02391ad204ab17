"""Spaces of observations and actions: hashable, so that they can be static in compiled programs, and storable as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.errors import BadInput


@dataclass(frozen=True)
class Box:
    """Arrays of one shape. `low` and `high` are one number for all entries or one per entry (flattened)."""

    shape: tuple[int, ...]
    low: float | tuple[float, ...] = -math.inf
    high: float | tuple[float, ...] = math.inf
    dtype: str = "float32"

    @property
    def bounded(self) -> bool:
        """Whether every entry has a finite lower and upper bound."""
        return bool(np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)))

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lower and upper bounds as float32 arrays of `shape`."""
        size = math.prod(self.shape)
        return tuple(  # ty: ignore[invalid-explicit-return]  (a pair by construction)
            np.broadcast_to(np.asarray(bound, np.float32), (size,)).reshape(self.shape) for bound in (self.low, self.high)
        )


@dataclass(frozen=True)
class Discrete:
    """One of `n` choices, numbered from 0; `labels` names them where the names are known."""

    n: int
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Composite:
    """Named parts, each a space of its own; values are dicts."""

    parts: tuple[tuple[str, Space], ...]


Space = Box | Discrete | Composite


def size(space: Space) -> int:
    """The length of `flatten(space, value)`."""
    match space:
        case Box():
            return math.prod(space.shape)
        case Discrete():
            return space.n
        case Composite():
            return sum(size(part) for _, part in space.parts)


def flatten(space: Space, value: PyTree) -> Float[Array, " size"]:
    """One value as a float vector; a discrete choice becomes one-hot, named parts are joined in order."""
    match space:
        case Box():
            return jnp.reshape(jnp.asarray(value, jnp.float32), (-1,))
        case Discrete():
            return jax.nn.one_hot(jnp.asarray(value), space.n, dtype=jnp.float32)
        case Composite():
            return jnp.concatenate([flatten(part, value[name]) for name, part in space.parts])


def unflatten(space: Space, vector: Float[Array, " size"]) -> PyTree:
    """The inverse of `flatten`; a discrete choice is the largest entry."""
    match space:
        case Box():
            return vector.reshape(space.shape).astype(space.dtype)
        case Discrete():
            return jnp.argmax(vector).astype(jnp.int32)
        case Composite():
            ends = np.cumsum([size(part) for _, part in space.parts])[:-1]
            pieces = jnp.split(vector, ends)
            return {name: unflatten(part, piece) for (name, part), piece in zip(space.parts, pieces, strict=True)}


def zeros(space: Space) -> PyTree:
    """A value of the right structure, shape and dtype."""
    match space:
        case Box():
            return jnp.zeros(space.shape, space.dtype)
        case Discrete():
            return jnp.zeros((), jnp.int32)
        case Composite():
            return {name: zeros(part) for name, part in space.parts}


def sample(space: Space, *, key: PRNGKeyArray) -> PyTree:
    """A uniform value; standard normal along unbounded entries."""
    match space:
        case Box():
            low, high = space.bounds()
            finite = np.isfinite(low) & np.isfinite(high)
            uniform = jax.random.uniform(
                key, space.shape, minval=jnp.where(finite, low, 0.0), maxval=jnp.where(finite, high, 1.0)
            )
            return jnp.where(finite, uniform, jax.random.normal(key, space.shape)).astype(space.dtype)
        case Discrete():
            return jax.random.randint(key, (), 0, space.n)
        case Composite():
            keys = jax.random.split(key, len(space.parts))
            return {name: sample(part, key=k) for (name, part), k in zip(space.parts, keys, strict=True)}


def from_gymnasium(space: gymnasium.Space) -> Space:
    """Our space for a Gymnasium one. Raises `BadInput` for kinds that have no counterpart (text, graphs, sequences)."""
    match space:
        case gymnasium.spaces.Box():
            low, high = (_compact(bound) for bound in (space.low, space.high))
            dtype = "float32" if np.issubdtype(space.dtype, np.floating) else str(space.dtype)
            return Box(tuple(space.shape), low, high, dtype)
        case gymnasium.spaces.Discrete():
            if int(space.start) != 0:
                raise BadInput(f"the discrete space starts at {space.start}: shift it so that choices are numbered from 0")
            return Discrete(int(space.n))
        case gymnasium.spaces.Dict():
            return Composite(tuple((name, from_gymnasium(part)) for name, part in space.spaces.items()))
        case gymnasium.spaces.Tuple():
            return Composite(tuple((str(i), from_gymnasium(part)) for i, part in enumerate(space.spaces)))
        case gymnasium.spaces.MultiDiscrete():
            return Composite(tuple((str(i), Discrete(int(n))) for i, n in enumerate(space.nvec.reshape(-1))))
        case gymnasium.spaces.MultiBinary():
            return Box(tuple(space.shape), 0.0, 1.0, "int8")
    raise BadInput(
        f"spaces of kind {type(space).__name__} have no array form: wrap the environment to give Box, Discrete or Dict"
    )


def to_gymnasium(space: Space) -> gymnasium.Space:
    """The Gymnasium space with the same values."""
    match space:
        case Box():
            low, high = space.bounds()
            return gymnasium.spaces.Box(low.astype(space.dtype), high.astype(space.dtype), dtype=np.dtype(space.dtype).type)
        case Discrete():
            return gymnasium.spaces.Discrete(space.n)
        case Composite():
            return gymnasium.spaces.Dict({name: to_gymnasium(part) for name, part in space.parts})


def to_json(space: Space) -> dict[str, Any]:
    """A description that `from_json` turns back into the same space (infinities are written as strings)."""
    match space:
        case Box():
            bounds = [_bound_to_json(bound) for bound in (space.low, space.high)]
            return {"kind": "box", "shape": list(space.shape), "low": bounds[0], "high": bounds[1], "dtype": space.dtype}
        case Discrete():
            return {"kind": "discrete", "n": space.n, "labels": list(space.labels)}
        case Composite():
            return {"kind": "composite", "parts": [[name, to_json(part)] for name, part in space.parts]}


def from_json(document: dict[str, Any]) -> Space:
    """The space that `to_json` described."""
    match document["kind"]:
        case "box":
            low, high = (tuple(map(float, b)) if isinstance(b, list) else float(b) for b in (document["low"], document["high"]))
            return Box(tuple(document["shape"]), low, high, document["dtype"])
        case "discrete":
            return Discrete(document["n"], tuple(document["labels"]))
        case "composite":
            return Composite(tuple((name, from_json(part)) for name, part in document["parts"]))
    raise BadInput(f"unknown kind of space {document['kind']!r}: the file was written by another program or a newer version")


def describe(space: Space) -> str:
    """A short name for messages: `Box(4)`, `Discrete(2)`, `{goal: Box(2), observation: Box(4)}`."""
    match space:
        case Box():
            return f"Box({', '.join(map(str, space.shape)) or 'scalar'})"
        case Discrete():
            return f"Discrete({space.n})"
        case Composite():
            return "{" + ", ".join(f"{name}: {describe(part)}" for name, part in space.parts) + "}"


def _compact(bound: np.ndarray) -> float | tuple[float, ...]:
    flat = np.asarray(bound, np.float64).reshape(-1)
    return float(flat[0]) if flat.size and np.all(flat == flat[0]) else tuple(map(float, flat))


def _bound_to_json(bound: float | tuple[float, ...]) -> Any:
    return [str(b) for b in bound] if isinstance(bound, tuple) else str(bound)
