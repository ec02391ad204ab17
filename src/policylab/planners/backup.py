"""What a grown leaf means for the nodes above it, and which node is the result of a search."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from policylab.planners.shooting import number
from policylab.planners.tree import Backup, Extract, Tree

# From which nodes are children, and the visits and values of all, to the value of their parent (given its own).
Rule = Callable[[Bool[Array, " node"], Float[Array, " node"], Float[Array, " node"], Float[Array, ""]], Float[Array, ""]]


class Kept(Backup):
    """Values stay as they were judged: for beams and chains."""

    def __call__(self, tree: Tree, leaves: Int[Array, " leaf"], made: Int[Array, "leaf child"]) -> Tree:
        """The tree as it is."""
        return tree


class Mean(Backup):
    """Every new node counts once for itself and all above it; a value is the mean of what was judged below (AlphaZero's, but that several
    children are made at once). An end that is met again counts once more."""

    def __call__(self, tree: Tree, leaves: Int[Array, " leaf"], made: Int[Array, "leaf child"]) -> Tree:
        """With visits and means."""
        there = made < tree.parent.shape[0]
        at = jnp.minimum(made, tree.parent.shape[0] - 1)
        again = (leaves >= 0) & ~jnp.any(there, axis=1)
        extra = jnp.sum(jnp.where(there, tree.judged[at], 0.0), axis=1) + jnp.where(again, tree.judged[leaves], 0.0)
        number = jnp.sum(there, axis=1) + again

        def one(carry: tuple, leaf: tuple) -> tuple[tuple, None]:
            visits, total = carry
            node, count, amount = leaf
            return (tree.along(node, count, visits), tree.along(node, amount, total)), None

        start = (tree.visits, tree.value * tree.visits)
        (visits, total), _ = jax.lax.scan(one, start, (leaves, number.astype(jnp.float32), extra))
        visits = visits.at[made].set(1.0, mode="drop")
        total = total.at[made].set(tree.judged[at], mode="drop")
        return eqx.tree_at(
            lambda t: (t.visits, t.value), tree, (visits, jnp.where(visits > 0, total / jnp.maximum(visits, 1.0), tree.value))
        )


def _upwards(tree: Tree, leaves: Int[Array, " leaf"], rule: Rule) -> Tree:
    """One visit more for each leaf and all above it, and their values by the rule, from the leaf upwards."""

    def one(carry: tuple, leaf: Int[Array, ""]) -> tuple[tuple, None]:
        def climb(carry: tuple) -> tuple:
            node, visits, value = carry
            visits = visits.at[node].add(1.0)
            value = value.at[node].set(rule(tree.children(node), visits, value, value[node]))
            return tree.parent[node], visits, value

        return jax.lax.while_loop(lambda carry: carry[0] >= 0, climb, (leaf, *carry))[1:], None

    (visits, value), _ = jax.lax.scan(one, (tree.visits, tree.value), leaves)
    return eqx.tree_at(lambda t: (t.visits, t.value), tree, (visits, value))


class Weighted(Backup):
    r"""N += 1 and V(parent) = sum_child N V / sum_child N   for a grown leaf and all above it (ReST-MCTS*: Zhang et al. 2024, arXiv
    2406.03816). Until one of its children is visited, a node keeps its own value."""

    def __call__(self, tree: Tree, leaves: Int[Array, " leaf"], made: Int[Array, "leaf child"]) -> Tree:
        """With visits and weighted values."""

        def rule(children: Array, visits: Array, value: Array, own: Array) -> Array:
            weight = jnp.where(children, visits, 0.0)
            total = jnp.sum(weight)
            return jnp.where(total > 0, jnp.sum(weight * value) / jnp.maximum(total, 1.0), own)

        return _upwards(tree, leaves, rule)


class Largest(Backup):
    """A value is that of the best child: what one would get who chose well."""

    def __call__(self, tree: Tree, leaves: Int[Array, " leaf"], made: Int[Array, "leaf child"]) -> Tree:
        """With visits and maxima."""

        def rule(children: Array, visits: Array, value: Array, own: Array) -> Array:
            best = jnp.max(jnp.where(children, value, -jnp.inf))
            return jnp.where(best > -jnp.inf, best, own)

        return _upwards(tree, leaves, rule)


class BestEnd(Extract):
    """The end with the highest value, the earliest of equal ones; where no end was found, the best leaf."""

    def __call__(self, tree: Tree, *, key: PRNGKeyArray) -> Int[Array, ""]:
        """The node."""
        ends = jnp.where(jnp.any(tree.finished), tree.finished, tree.leaf)
        return jnp.argmax(jnp.where(ends, tree.value, -jnp.inf)).astype(jnp.int32)


class MostVisited(Extract):
    """The child of the root that was visited most, and of equal ones the one of higher value; or one drawn by visits^(1 / temperature)."""

    temperature: Float[Array, ""] = eqx.field(converter=number, default=0.0)

    def __call__(self, tree: Tree, *, key: PRNGKeyArray) -> Int[Array, ""]:
        """The node."""
        children = tree.children(jnp.zeros((), jnp.int32))
        noise = self.temperature * jax.random.gumbel(key, tree.visits.shape)
        scores = jnp.log(tree.visits + 1e-6) + noise
        best = jnp.max(jnp.where(children, scores, -jnp.inf))
        return jnp.argmax(jnp.where(children & (scores >= best), tree.value, -jnp.inf)).astype(jnp.int32)
