"""Which leaves of a tree to grow next: by bounds (UCT), by bounds and priors (PUCT), or level by level (beams, independent chains)."""

from __future__ import annotations

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from policylab.planners.shooting import number
from policylab.planners.tree import Select, Tree


class Descend(Select):
    """From the root to the child with the highest score, again and again, until a node has no children.

    Of several leaves the later ones are looked for as if the earlier ones had been visited once more (virtual visits: Chaslot et al. 2008,
    with their own value in the place of a loss); a leaf that is found twice counts once.
    """

    @abstractmethod
    def scores(
        self, tree: Tree, node: Int[Array, ""], children: Bool[Array, " node"], visits: Float[Array, " node"]
    ) -> Float[Array, " node"]:
        """How much each child of `node` deserves to be looked at; what it says of other nodes does not matter."""

    def __call__(self, tree: Tree, leaves: int, *, key: PRNGKeyArray) -> Int[Array, " leaf"]:
        """The leaves."""
        inner = ~tree.leaf & tree.used

        def descend(visits: Float[Array, " node"]) -> Int[Array, ""]:
            def down(node: Int[Array, ""]) -> Int[Array, ""]:
                children = tree.children(node)
                scores = jnp.where(children, self.scores(tree, node, children, visits), -jnp.inf)
                return jnp.argmax(scores).astype(jnp.int32)

            return jax.lax.while_loop(lambda node: inner[node], down, jnp.zeros((), jnp.int32))

        def one(visits: Float[Array, " node"], _: None) -> tuple[Float[Array, " node"], Int[Array, ""]]:
            leaf = descend(visits)
            return tree.along(leaf, jnp.ones(()), visits), leaf

        _, found = jax.lax.scan(one, tree.visits, None, length=leaves)
        before = jnp.arange(leaves)[:, None] > jnp.arange(leaves)
        again = jnp.any(before & (found[:, None] == found), axis=1)
        return jnp.where(again, -1, found)


class UCT(Descend):
    r"""value + c sqrt(2 ln N_parent / N)   (Kocsis and Szepesvari 2006), and value + `first` for a child that was never visited.

    Defaults are those of ReST-MCTS* (Zhang et al. 2024, arXiv 2406.03816), for values in [0, 1].
    """

    exploration: Float[Array, ""] = eqx.field(converter=number, default=0.7)
    first: Float[Array, ""] = eqx.field(converter=number, default=1.0)

    def scores(
        self, tree: Tree, node: Int[Array, ""], children: Bool[Array, " node"], visits: Float[Array, " node"]
    ) -> Float[Array, " node"]:
        """The bound."""
        total = jnp.log(jnp.maximum(visits[node], 1.0))
        bonus = self.exploration * jnp.sqrt(2.0 * total / jnp.maximum(visits, 1.0))
        return tree.value + jnp.where(visits > 0, bonus, self.first)


class PUCT(Descend):
    r"""value + c p sqrt(N_parent) / (1 + N)   (Rosin 2011; Silver et al. 2017).

    p is the softmax over the siblings of log prior / `temperature`: of sampled steps only their proportions matter, not how long they are.
    """

    exploration: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    temperature: Float[Array, ""] = eqx.field(converter=number, default=1.0)

    def scores(
        self, tree: Tree, node: Int[Array, ""], children: Bool[Array, " node"], visits: Float[Array, " node"]
    ) -> Float[Array, " node"]:
        """The bound."""
        prior = jax.nn.softmax(jnp.where(children, tree.prior / self.temperature, -jnp.inf))
        return tree.value + self.exploration * prior * jnp.sqrt(visits[node]) / (1.0 + visits)


class Frontier(Select):
    """Level by level: the best ends and newest nodes, by value; ends keep their places and are not grown. In the first round the root as
    often as there are places.

    With one child to a leaf these are independent chains (best-of-n, votes), with several a beam (step-level beam search: Chen et al. 2024,
    arXiv 2405.03553).
    """

    def __call__(self, tree: Tree, leaves: int, *, key: PRNGKeyArray) -> Int[Array, " leaf"]:
        """The nodes to go on from."""
        newest = tree.depth == jnp.max(jnp.where(tree.used, tree.depth, 0))
        candidate = tree.used & ~tree.expanded & (tree.terminal | newest)
        scores = jnp.where(candidate, tree.value, -jnp.inf)
        order = jnp.argsort(-scores, stable=True)
        order = jnp.pad(order, (0, max(0, leaves - order.shape[0])))[:leaves]
        place = jnp.arange(leaves) < jnp.sum(candidate)
        chosen = jnp.where(place & ~tree.terminal[order], order, -1).astype(jnp.int32)
        return jnp.where(tree.count == 1, jnp.zeros(leaves, jnp.int32), chosen)
