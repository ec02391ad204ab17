"""The compiled program of a training run: initial states and chunks of updates, all seeds at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from policylab.learner import Clock, Each, Learner, Sometimes
from policylab.source import Source

NEVER = np.iinfo(np.int32).max  # "no step": later than any
_HOSTED_CHUNK = 64  # steps whose host-made batches are shipped to the device at once


@partial(jax.jit, static_argnames="stacked")
def initialise(
    learner: Learner,
    source: Source,
    given: dict,
    seeds: Int[Array, " seed"],
    stage: Int[Array, ""],
    stacked: tuple[str, ...],
    before: PyTree = None,
) -> tuple[PyTree, PyTree]:
    """The learner's and the source's state for every seed; `stacked` names the given things that differ between seeds. With `before`,
    the learner's states of a run that goes on, the source meets what was learned there."""

    def one(seed: Int[Array, ""], given: dict, state: PyTree) -> tuple[PyTree, PyTree]:
        learner_key, source_key = jax.random.split(_stream(seed, stage, 0))
        state = learner.init(source.spec, key=learner_key, given=given) if state is None else state
        return state, source.init(learner.products(state), key=source_key)

    return jax.vmap(one, in_axes=(0, {name: 0 if name in stacked else None for name in given}, 0))(seeds, given, before)


@jax.jit
def resume(
    learner: Learner, source: Source, carry: tuple, seeds: Int[Array, " seed"], stage: Int[Array, ""], step: Int[Array, ""]
) -> tuple[PyTree, PyTree]:
    """The carry of a checkpoint at `step`, with fresh simulators where the source needs them."""

    def one(state: PyTree, source_state: PyTree, seed: Int[Array, ""]) -> PyTree:
        key = jax.random.fold_in(_stream(seed, stage, 2), step)
        return source.resumed(source_state, learner.products(state), key=key)

    return carry[0], jax.vmap(one)(*carry, seeds)


def _stream(seed: Int[Array, ""], stage: Int[Array, ""], number: int) -> Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stage), number)


@partial(jax.jit, donate_argnames="carry")
def _compiled_chunk(
    learner: Learner,
    source: Source,
    carry: tuple[PyTree, PyTree],
    seeds: Int[Array, " seed"],
    batches: PyTree,
    start: Int[Array, ""],
    stop: Int[Array, ""],
    total: Int[Array, ""],
    stage: Int[Array, ""],
) -> tuple:
    """Updates `start` ... `stop` - 1 of all seeds; the trip count is traced, so that one compilation serves every chunk length."""

    def one(state: PyTree, source_state: PyTree, seed: Int[Array, ""], batch: PyTree, clock: Clock) -> tuple:
        draw_key, update_key = jax.random.split(jax.random.fold_in(_stream(seed, stage, 1), clock.step))
        if not source.hosted:
            source_state, batch = source.next(source_state, learner.products(state), clock=clock, key=draw_key)
        state, metrics = learner.update(state, batch, clock=clock, key=update_key)
        return state, source.tell(source_state, batch, metrics), {name: _counted(value) for name, value in metrics.items()}

    all_seeds = jax.vmap(one, in_axes=(0, 0, 0, 0, None))

    def body(step: Int[Array, ""], loop: tuple) -> tuple:
        state, source_state, sums, counts, broken = loop
        batch = jax.tree.map(lambda leaf: leaf[step - start], batches)
        state, source_state, metrics = all_seeds(state, source_state, seeds, batch, Clock(step, total))
        for name, (value, present) in metrics.items():
            sums[name] += jnp.where(present, value, 0.0)
            counts[name] += present
            broken[name] = jnp.minimum(broken[name], jnp.where(present & ~jnp.isfinite(value), step, NEVER))
        return state, source_state, sums, counts, broken

    example = jax.tree.map(lambda leaf: leaf[0], batches)
    shapes = jax.eval_shape(all_seeds, *carry, seeds, example, Clock(start, total))[2]
    fill = lambda value, dtype: {name: jnp.full(seeds.shape, value, dtype) for name in shapes}
    loop = (*carry, fill(0.0, jnp.float32), fill(0, jnp.int32), fill(NEVER, jnp.int32))
    state, source_state, sums, counts, broken = jax.lax.fori_loop(start, stop, body, loop)
    return (state, source_state), {name: sums[name] / jnp.maximum(counts[name], 1) for name in sums}, broken


def _counted(value: Any) -> tuple[Array, Array]:
    if isinstance(value, Sometimes):
        return value.value.astype(jnp.float32), value.present
    if isinstance(value, Each):
        return jnp.mean(value.values), jnp.asarray(True)
    return jnp.asarray(value, jnp.float32), jnp.asarray(True)


def advance(
    learner: Learner,
    source: Source,
    carry: tuple,
    keys: Array,
    seeds: Sequence[int],
    start: int,
    stop: int,
    total: int,
    stage: int,
) -> tuple[tuple, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Updates `start` ... `stop` - 1: the new carry, each metric's mean over them, and the first step where it was not finite
    (NEVER if it always was), per seed.
    """
    if not source.hosted:
        return _to_host(_compiled_chunk(learner, source, carry, keys, None, start, stop, total, stage))
    sums: dict[str, np.ndarray] = {}
    broken: dict[str, np.ndarray] = {}
    for first in range(start, stop, _HOSTED_CHUNK):
        last = min(first + _HOSTED_CHUNK, stop)
        batches = source.host_batches(range(first, last), seeds)
        carry, means, bad = _to_host(_compiled_chunk(learner, source, carry, keys, batches, first, last, total, stage))
        for name in means:
            sums[name] = sums.get(name, 0.0) + means[name] * (last - first) / (stop - start)
            broken[name] = np.minimum(broken.get(name, NEVER), bad[name])
    return carry, sums, broken


def _to_host(result: tuple) -> tuple:
    carry, means, broken = result
    return carry, jax.device_get(means), jax.device_get(broken)
