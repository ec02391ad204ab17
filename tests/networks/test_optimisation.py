"""Gradient steps: over a batch in parts they are those over the whole batch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from policylab.networks.mlp import MLP
from policylab.networks.optimisation import descend, descend_by_parts, descend_in_parts, part_count, trained


@pytest.mark.parametrize(("rows", "largest", "count"), [(256, 33, 8), (256, 256, 1), (96, 40, 3), (257, 33, 1), (100, 1, 100)])
def test_parts_are_equal_and_not_too_small(rows: int, largest: int, count: int) -> None:
    assert part_count(rows, largest) == count


def _rows(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.random.normal(key, (24, 3)), jax.random.normal(jax.random.fold_in(key, 1), (24,))


def _loss(scale: jax.Array):
    def loss(model: MLP, batch: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        error = jax.vmap(model)(batch[0])[:, 0] - batch[1]
        return scale * jnp.mean(error**2), {"bias": jnp.mean(error)}

    return loss


@pytest.mark.parametrize("in_parts", [descend_in_parts, descend_by_parts])
def test_a_step_in_parts_is_a_step_over_all_rows_for_every_seed_and_setting(in_parts: Any) -> None:
    optimiser = optax.adam(0.1)

    @jax.jit
    @jax.vmap
    def both(key: jax.Array, scale: jax.Array) -> tuple:
        state, batch = trained(MLP(3, 1, width=8, depth=1, key=key), optimiser), _rows(key)
        whole = descend(state, lambda model: _loss(scale)(model, batch), optimiser)
        return whole, in_parts(state, _loss(scale), batch, optimiser, largest=8)

    whole, parts = both(jax.random.split(jax.random.key(0), 3), jnp.array([1.0, 2.0, 5.0]))
    assert part_count(24, 8) == 3
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_loss_may_use_another_network_with_counts_in_it() -> None:
    """As a frozen language model has, of each seed its own."""
    optimiser = optax.sgd(0.1)

    @jax.jit
    @jax.vmap
    def both(key: jax.Array, count: jax.Array) -> tuple:
        state, batch = trained(MLP(3, 1, width=4, depth=1, key=key), optimiser), _rows(key)
        frozen = MLP(3, 1, width=4, depth=1, key=jax.random.fold_in(key, 2))

        def loss(model: MLP, rows: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            apart = jax.vmap(model)(rows[0]) - jax.vmap(frozen)(rows[0])
            return jnp.mean(apart**2) * count, None

        return descend(state, lambda model: loss(model, batch), optimiser), descend_by_parts(
            state, loss, batch, optimiser, largest=8
        )

    whole, parts = both(jax.random.split(jax.random.key(0), 2), jnp.array([1, 3]))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
