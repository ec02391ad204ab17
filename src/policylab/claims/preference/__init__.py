"""Claims about preferences, and the one loop by which they learn from a source of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from policylab.learner import Clock, Learner
from policylab.source import Source


def learned(
    learner: Learner, source: Source, *, updates: int, key: PRNGKeyArray, given: Mapping[str, Any] = {}
) -> tuple[Any, Any]:
    """The learner's state before and after `updates` batches of one source; step i draws and learns with `fold_in(key, i)`."""

    def step(state: Any, number: Int[Array, ""]) -> tuple[Any, None]:
        clock, at = Clock(number, jnp.asarray(updates)), jax.random.fold_in(key, number)
        return learner.update(state, source.next(None, {}, clock=clock, key=at)[1], clock=clock, key=at)[0], None

    begun = learner.init(source.spec, key=key, given=given)
    return begun, jax.lax.scan(step, begun, jnp.arange(updates))[0]
