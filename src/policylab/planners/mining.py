"""What a searched tree teaches: steps that lead to right answers, what steps are worth, and better and worse steps from one place.

All functions take one tree; `vmap` for several. `right` marks the ends that are right answers.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from policylab.planners.tree import Tree
from policylab.scorer import Scorer


def right_ends(tree: Tree, environment: Any, checker: Scorer | None) -> Bool[Array, " node"]:
    """Ends whose gain, or whose answer by the checker, is 1 or more."""
    if checker is None:
        return tree.finished & (tree.gain >= 1.0)
    score = lambda state: checker.score(environment.prompt_of(state), environment.answer(state))
    return tree.finished & (jax.vmap(score)(tree.state) >= 1.0)


def below(tree: Tree, amount: Float[Array, " node"]) -> Float[Array, " node"]:
    """The sum of `amount` over each node and all below it. Children stand behind their parents, so that one way back is enough."""
    amount = jnp.where(tree.used, amount, 0.0)

    def fold(total: Array, node: Array) -> tuple[Array, None]:
        parent = tree.parent[node]
        return total.at[jnp.where(parent < 0, total.shape[0], parent)].add(total[node], mode="drop"), None

    return jax.lax.scan(fold, amount, jnp.arange(amount.shape[0]), reverse=True)[0]


def kept_paths(tree: Tree, right: Bool[Array, " node"], keep: int) -> Float[Array, " node"]:
    """How many of the kept right ends every step leads to; 0 at the root. At most `keep` ends (0: all), those with the highest values."""
    if keep:
        order = jnp.argsort(jnp.where(right, -tree.value, jnp.inf), stable=True)
        place = jnp.zeros(right.shape, jnp.int32).at[order].set(jnp.arange(right.shape[0]))
        right = right & (place < keep)
    return below(tree, right.astype(jnp.float32)).at[0].set(0.0)


def mean_outcome(tree: Tree, right: Bool[Array, " node"]) -> tuple[Float[Array, " node"], Float[Array, " node"]]:
    """The share of right ones among the ends below a node, and 1 where there are any (Monte Carlo values: Wang et al. 2023, arXiv
    2312.08935); 0 at the root."""
    ends, found = below(tree, tree.finished.astype(jnp.float32)), below(tree, right.astype(jnp.float32))
    return found / jnp.maximum(ends, 1.0), (ends > 0).astype(jnp.float32).at[0].set(0.0)


def sibling_pairs(tree: Tree, gap: Float[Array, ""]) -> tuple[Int[Array, " node"], Int[Array, " node"], Float[Array, " node"]]:
    """For every node the best and the worst of its children by value, and 1 where these differ by `gap` or more."""
    size = tree.parent.shape[0]
    parent = jnp.where(tree.used & (tree.parent >= 0), tree.parent, size)
    spread = lambda fill, extreme: getattr(jnp.full(size, fill).at[parent], extreme)(tree.value, mode="drop")
    highest, lowest = spread(-jnp.inf, "max"), spread(jnp.inf, "min")
    above = jnp.minimum(parent, size - 1)
    there = parent < size

    def first(bound: PyTree) -> Int[Array, " node"]:
        match = there & (tree.value == bound[above])
        return jnp.full(size, size - 1).at[jnp.where(match, parent, size)].min(jnp.arange(size), mode="drop").astype(jnp.int32)

    differ = jnp.isfinite(highest) & (highest - lowest >= gap) & (highest > lowest)
    return first(highest), first(lowest), differ.astype(jnp.float32)
