"""Work that is due at some updates only: a branch of its own for each part of a state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from policylab.learner import Each, Sometimes

T = TypeVar("T")


def where_due(
    due: Bool[Array, ""], work: Callable[[T], tuple[T, Mapping[str, Any]]], part: T
) -> tuple[T, dict[str, Sometimes]]:
    """`work(part) -> (part, metrics)` where it is due, else `part` as it is; its metrics count only then (those of rows as their mean).

    Only `part` passes through the branch, so that nothing else is copied; `due` must not differ between seeds, or both sides are run.
    """

    def run(part: T) -> tuple[T, dict[str, tuple[Array, Array]]]:
        part, metrics = work(part)
        return part, {name: _counted(value) for name, value in metrics.items()}

    zeros: PyTree = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(run, part)[1])
    part, metrics = jax.lax.cond(due, run, lambda part: (part, zeros), part)
    return part, {name: Sometimes(value, present & due) for name, (value, present) in metrics.items()}


def _counted(metric: Any) -> tuple[Array, Array]:
    if isinstance(metric, Sometimes):
        return jnp.asarray(metric.value, jnp.float32), metric.present
    value = jnp.mean(metric.values) if isinstance(metric, Each) else metric
    return jnp.asarray(value, jnp.float32), jnp.ones((), bool)
