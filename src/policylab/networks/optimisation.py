"""A model with its optimiser state, one gradient step, and slowly following targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
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


def follow(target: M, online: M, rate: Float[Array, ""] | float) -> M:
    """Polyak averaging: target + rate * (online - target), exact where the two are equal."""
    return jax.tree.map(lambda t, o: t + rate * (o - t) if jnp.issubdtype(t.dtype, jnp.inexact) else o, target, online)


def select(condition: Array, when_true: M, when_false: M) -> M:
    """Leaf-wise choice between two trees of one structure."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), when_true, when_false)
