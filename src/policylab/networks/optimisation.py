"""A model with its optimiser state, one gradient step, and slowly following targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float, PyTree

from policylab.networks.frozen import trainable

M = TypeVar("M")


class Trained(eqx.Module):
    """A model and the state of its optimiser."""

    model: Any
    moments: PyTree


def trained(model: PyTree, optimiser: optax.GradientTransformation) -> Trained:
    """`model` with a fresh optimiser state for its trainable arrays."""
    return Trained(model, optimiser.init(eqx.filter(model, trainable(model))))


def descend(
    state: Trained, loss: Callable[[Any], tuple[Array, Any]], optimiser: optax.GradientTransformation
) -> tuple[Trained, Float[Array, ""], Any]:
    """One step down the gradient of `loss(model) -> (value, auxiliary)`; returns the new state, the value and the auxiliary."""
    free, fixed = eqx.partition(state.model, trainable(state.model))

    def of_free(free: PyTree) -> tuple[Array, Any]:
        return loss(eqx.combine(free, fixed))

    (value, auxiliary), gradient = jax.value_and_grad(of_free, has_aux=True)(free)
    updates, moments = optimiser.update(gradient, state.moments, free)
    return Trained(eqx.combine(optax.apply_updates(free, updates), fixed), moments), value, auxiliary


def descend_in_parts(
    state: Trained,
    loss: Callable[[Any, Any], tuple[Array, Any]],
    batch: PyTree[Array],
    optimiser: optax.GradientTransformation,
    *,
    largest: int,
) -> tuple[Trained, Float[Array, ""], Any]:
    """`descend` on `loss(model, batch)`, a mean over the rows of `batch`, worked through in equal parts of at most `largest` rows.

    The gradient is the mean of the parts' gradients, so only one part's intermediate values exist at a time. On a processor they then
    stay in its cache, which doubles the speed of a wide batch; an accelerator takes the batch whole. The auxiliary is a mean, too.
    """
    rows = jax.tree.leaves(batch)[0].shape[0]
    count = part_count(rows, largest) if jax.default_backend() == "cpu" else 1
    if count == 1:
        return descend(state, lambda model: loss(model, batch), optimiser)
    free, fixed = eqx.partition(state.model, trainable(state.model))
    parts = jax.tree.map(lambda leaf: leaf.reshape(count, rows // count, *leaf.shape[1:]), batch)

    def total(free: PyTree, fixed: PyTree, parts: PyTree[Array]) -> tuple[tuple[Array, Any], PyTree]:
        of_part = lambda part: jax.value_and_grad(lambda free: loss(eqx.combine(free, fixed), part), has_aux=True)(free)
        first, later = jax.tree.map(lambda leaf: leaf[0], parts), jax.tree.map(lambda leaf: leaf[1:], parts)
        return jax.lax.scan(lambda sum, part: (jax.tree.map(jnp.add, sum, of_part(part)), None), of_part(first), later)[0]

    # Seeds one after the other: all at once they would push each other out of the cache again.
    # What is fixed is an argument, too: of what a function closes over, only floats would be handed on seed by seed.
    closed, constants = jax.closure_convert(total, free, fixed, parts)
    summed = sequential_vmap(closed)(free, fixed, parts, *constants)
    (value, auxiliary), gradient = jax.tree.map(lambda leaf: leaf / count, summed)
    updates, moments = optimiser.update(gradient, state.moments, free)
    return Trained(eqx.combine(optax.apply_updates(free, updates), fixed), moments), value, auxiliary


def descend_by_parts(
    state: Trained,
    loss: Callable[[Any, Any], tuple[Array, Any]],
    batch: PyTree[Array],
    optimiser: optax.GradientTransformation,
    *,
    largest: int,
) -> tuple[Trained, Float[Array, ""], Any]:
    """`descend_in_parts` for losses that use other networks than the one that descends, such as a frozen reference: seeds go through their
    parts side by side. On every kind of machine, since what a language model keeps of a large batch may not fit an accelerator either."""
    rows = jax.tree.leaves(batch)[0].shape[0]
    count = part_count(rows, largest)
    if count == 1:
        return descend(state, lambda model: loss(model, batch), optimiser)
    free, fixed = eqx.partition(state.model, trainable(state.model))
    parts = jax.tree.map(lambda leaf: leaf.reshape(count, rows // count, *leaf.shape[1:]), batch)
    of_part = lambda part: jax.value_and_grad(lambda free: loss(eqx.combine(free, fixed), part), has_aux=True)(free)
    nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(of_part, jax.tree.map(lambda leaf: leaf[0], parts)))
    total, _ = jax.lax.scan(lambda sum, part: (jax.tree.map(jnp.add, sum, of_part(part)), None), nothing, parts)
    (value, auxiliary), gradient = jax.tree.map(lambda leaf: leaf / count, total)
    updates, moments = optimiser.update(gradient, state.moments, free)
    return Trained(eqx.combine(optax.apply_updates(free, updates), fixed), moments), value, auxiliary


def part_count(rows: int, largest: int) -> int:
    """How many equal parts of at most `largest` rows; 1 where `rows` has no divisor between a quarter of `largest` and `largest`."""
    fitting = [size for size in range(max(1, largest // 4), largest + 1) if rows % size == 0]
    return rows // max(fitting) if fitting and rows > largest else 1


def follow(target: M, online: M, rate: Float[Array, ""] | float) -> M:
    """Polyak averaging: target + rate * (online - target), exact where the two are equal."""
    return jax.tree.map(lambda t, o: t + rate * (o - t) if jnp.issubdtype(t.dtype, jnp.inexact) else o, target, online)


def select(condition: Array, when_true: M, when_false: M) -> M:
    """Leaf-wise choice between two trees of one structure."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), when_true, when_false)


def noting() -> optax.GradientTransformation:
    """Leaves gradients as they are; its state is the norm of the last one. First in `optax.chain`, so that `moments[0]` is that number."""
    return optax.GradientTransformation(
        lambda params: jnp.zeros(()), lambda updates, state, params=None: (updates, optax.tree.norm(updates))
    )
