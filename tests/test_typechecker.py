"""The annotations of the package are checked in these tests: wrong shapes and types do not pass."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from policylab.networks.transformer import rotated
from tests.typechecker import check


def test_a_wrong_shape_is_refused():
    assert rotated(jnp.zeros((3, 1, 2)), jnp.arange(3), 10_000).shape == (3, 1, 2)  # an int where a float is asked for
    for _ in range(2):
        with pytest.raises(TypeCheckError, match="position"):
            rotated(jnp.zeros((3, 1, 2)), jnp.arange(4), 10_000.0)
        with pytest.raises(TypeCheckError, match="x"):
            rotated(jnp.zeros((3, 2)), jnp.arange(3), 10_000.0)


def test_a_check_knows_the_names_of_its_function():
    def half(x: float) -> float:
        """Half."""
        return x / 2

    assert (check(half).__name__, check(half).__doc__, check(half)(3)) == ("half", "Half.", 1.5)
