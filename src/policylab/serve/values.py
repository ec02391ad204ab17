"""Observations and actions as JSON: read with every shape and bound checked, written as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import PyTree

from policylab.serve.requests import Refusal
from policylab.spaces import Box, Composite, Discrete, Space


def read_value(space: Space, value: Any, where: str = "observation") -> PyTree:
    """A value of the space from JSON. Raises `Refusal` naming the part that is wrong and what it must be."""
    match space:
        case Box():
            try:
                array = np.asarray(value)
            except ValueError:  # rows of unequal length
                array = np.asarray(None)
            kinds = "iuf" if space.dtype.startswith("float") else "iub" if space.dtype == "bool" else "iu"
            if array.dtype.kind not in kinds or array.shape != space.shape:
                shape = f"an array of shape {list(space.shape)}" if space.shape else "a number"
                raise Refusal(400, f"{where} must be {shape} of {space.dtype} numbers", param=where)
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise Refusal(400, f"{where} must be finite numbers", param=where)
            if space.dtype.startswith(("int", "uint")):
                limits = np.iinfo(space.dtype)
                if array.size and not (limits.min <= array.min() and array.max() <= limits.max):
                    raise Refusal(400, f"{where} must be numbers from {limits.min} to {limits.max}", param=where)
            return array.astype(space.dtype)
        case Discrete():
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < space.n:
                raise Refusal(400, f"{where} must be a whole number from 0 to {space.n - 1}", param=where)
            return np.asarray(value, np.int32)
        case Composite():
            names = [name for name, _ in space.parts]
            if not isinstance(value, Mapping) or sorted(value) != sorted(names):
                raise Refusal(400, f"{where} must be an object with {', '.join(names)}", param=where)
            return {name: read_value(part, value[name], f"{where}.{name}") for name, part in space.parts}


def write_value(space: Space, value: PyTree) -> Any:
    """The same in JSON; the label of a choice is left to the schema."""
    match space:
        case Composite():
            return {name: write_value(part, value[name]) for name, part in space.parts}
        case _:
            return np.asarray(value).tolist()
