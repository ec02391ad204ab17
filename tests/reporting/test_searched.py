"""Trees of steps are drawn, one at a time and not too large to read."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import policylab as lab
from policylab.planners.tree import Tree
from policylab.reporting.searched import searched


def test_every_step_is_named_and_what_cannot_be_read_is_refused():
    parent = jnp.asarray([-1, 0, 0, 1, -1, -1])
    zero, size = jnp.zeros(6), jnp.asarray(4)
    tree = Tree(parent, parent, parent, zero, zero, zero, zero, zero, zero > 0, zero > 0, zero, zero, size, jnp.zeros(()))
    named = []
    picture = searched(tree, lambda _, node: named.append(node) or f"step {node}")
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(named) == [0, 1, 2, 3]
    with pytest.raises(lab.BadInput, match="draw one of them"):
        searched(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), tree), lambda _, node: "")
    with pytest.raises(lab.BadInput, match="cannot be read"):
        searched(Tree(*[getattr(tree, n) for n in tree.__dataclass_fields__][:-2], jnp.asarray(99), zero[0]), lambda _, n: "")
