"""Hyper-parameters as frozen dataclasses: `float` fields are traced, so that changing one never recompiles; the rest is static."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

from policylab.errors import BadInput

T = TypeVar("T")
_TRACED = (
    "float",
    "Learner",
    "Source",
    "Environment",
    "Policy",
    "Scorer",
    "Array",
    "PyTree",
    "Float[",
    "Int[",
    "Bool[",
    "dict[str, Learner",
)


def setting(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> Any:
    """A documented field: `help` says what it is with its unit; the value must lie in [low, high] and strictly in (above, below)."""
    return dataclasses.field(default=default, metadata={"help": help, "low": low, "high": high, "above": above, "below": below})


@dataclass_transform(frozen_default=True, field_specifiers=(setting, dataclasses.field))
def settings(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass and a PyTree whose leaves are its `float` fields (and nested learners, sources, arrays)."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    data, static = [], []
    for field in dataclasses.fields(cls):
        annotation = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
        (data if annotation.startswith(_TRACED) else static).append(field.name)
    _register(cls, tuple(data), tuple(static))
    return cls


def _register(cls: type, data: tuple[str, ...], static: tuple[str, ...]) -> None:
    def flatten(value: Any) -> tuple[list, tuple]:
        return [(jax.tree_util.GetAttrKey(n), getattr(value, n)) for n in data], tuple(getattr(value, n) for n in static)

    def unflatten(statics: tuple, leaves: Any) -> Any:
        # Not through __init__: leaves may be tracers or placeholders, which type checks there would refuse.
        value = object.__new__(cls)
        for name, leaf in (*zip(data, leaves, strict=True), *zip(static, statics, strict=True)):
            object.__setattr__(value, name, leaf)
        return value

    jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)


def traced(value: T) -> T:
    """The same settings with every float leaf as a float32 array, ready to be an argument of a compiled program."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32) if isinstance(leaf, float | int) else leaf, value)


def describe(cls: Any) -> list[dict[str, Any]]:
    """One row per field of a settings class or form: name, type, default, help and bounds; the source of every command's help."""
    rows = []
    for field in dataclasses.fields(cls):
        default = (
            field.default
            if field.default is not dataclasses.MISSING
            else (field.default_factory() if field.default_factory is not dataclasses.MISSING else None)
        )
        rows.append({"name": field.name, "type": str(field.type), "default": default, **({"help": ""} | dict(field.metadata))})
    return rows


def check(value: Any) -> None:
    """Raise `BadInput` with one sentence if a field of a settings object or form is out of its range or of another type."""
    for field in dataclasses.fields(value):
        given, name = getattr(value, field.name), f"{type(value).__name__}.{field.name}"
        if dataclasses.is_dataclass(given) and not isinstance(given, type):
            check(given)
        kind = str(field.type)
        if kind in ("float", "int") and (
            isinstance(given, bool) or not isinstance(given, (int, float) if kind == "float" else int)
        ):
            raise BadInput(f"{name} is {given!r}: give it {'a number' if kind == 'float' else 'a whole number'}")
        bounds = field.metadata
        if kind not in ("float", "int") or "low" not in bounds:
            continue
        if not (bounds["low"] <= given <= bounds["high"] and bounds["above"] < given < bounds["below"]):
            raise BadInput(f"{name} is {given}: choose a value {_range_in_words(bounds)}")


def _range_in_words(bounds: Any) -> str:
    words = [f"at least {bounds['low']:g}"] if bounds["low"] > -math.inf else []
    words += [f"above {bounds['above']:g}"] if bounds["above"] > -math.inf else []
    words += [f"at most {bounds['high']:g}"] if bounds["high"] < math.inf else []
    words += [f"below {bounds['below']:g}"] if bounds["below"] < math.inf else []
    return " and ".join(words) or "that is a number"
