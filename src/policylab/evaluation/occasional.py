"""Metrics that a learner reports at some updates only, so that they are not told where no update did."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from policylab.learner import Clock, Learner, Sometimes
from policylab.source import Source


def occasional(learner: Learner, source: Source) -> frozenset[str]:
    """The names of the metrics that this learner reports as `Sometimes`. It is traced for it, and nothing is computed."""
    ready = source.serve(learner.needs)

    def metrics() -> dict[str, Any]:
        key, clock = jax.random.key(0), Clock(jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32))
        state = learner.init(ready.spec, key=key)
        if ready.hosted:
            batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0, 0], ready.host_batches(range(1), (0,)))
        else:
            begun = ready.init(learner.products(state), key=key)
            batch = ready.next(begun, learner.products(state), clock=clock, key=key)[1]
        return learner.update(state, batch, clock=clock, key=key)[1]

    return frozenset(name for name, value in jax.eval_shape(metrics).items() if isinstance(value, Sometimes))


def told(metrics: Mapping[str, Sequence[float]], rare: Collection[str]) -> dict[str, list[float]]:
    """The metrics of a chunk without those of `rare` that no update of it reported: a run holds exactly 0 for them, in every seed."""
    return {name: list(values) for name, values in metrics.items() if name not in rare or any(value != 0.0 for value in values)}
