"""Priorities: rows drawn in proportion to a number each, in a tree of sums."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Priorities(eqx.Module):
    """A binary tree of sums over rows (Schaul et al. 2016, arXiv 1511.05952, appendix B.2.1): drawing and changing rows cost log2(rows).

    `nodes[1]` is the sum of all, node i that of 2 i and 2 i + 1, and row r stands at node `size + r`. `highest` is the highest
    priority ever set, which new rows get.
    """

    nodes: Float[Array, " node"]
    highest: Float[Array, ""]

    @staticmethod
    def none(rows: int) -> Priorities:
        """No row can be drawn yet."""
        size = 1 << max(rows - 1, 1).bit_length()
        return Priorities(jnp.zeros(2 * size), jnp.ones(()))

    @property
    def size(self) -> int:
        """Rows, rounded up to a power of two."""
        return self.nodes.shape[0] // 2

    @property
    def depth(self) -> int:
        """Levels below the root."""
        return self.size.bit_length() - 1

    def of(self, row: Int[Array, " row"]) -> Float[Array, " row"]:
        """The priority of each row."""
        return self.nodes[self.size + row]

    def set(self, row: Int[Array, " row"], priority: Float[Array, " row"]) -> Priorities:
        """New priorities for these rows; for one that is listed twice, either."""
        node = self.size + row
        nodes = self.nodes.at[node].set(priority)
        for _ in range(self.depth):
            node = node // 2
            nodes = nodes.at[node].set(nodes[2 * node] + nodes[2 * node + 1])  # from both children: rounding never adds up
        return Priorities(nodes, jnp.maximum(self.highest, jnp.max(priority)))

    def draw(self, uniform: Float[Array, " row"]) -> Int[Array, " row"]:
        """As many rows as there are numbers in [0, 1), each from its own stratum of equal probability."""
        count = uniform.shape[0]
        mass = (jnp.arange(count) + uniform) / count * self.nodes[1]
        node = jnp.ones(count, jnp.int32)
        for _ in range(self.depth):
            left, right = self.nodes[2 * node], self.nodes[2 * node + 1]
            turn = (mass >= left) & (right > 0)  # rounding must not lead to a row that cannot be drawn
            mass, node = jnp.where(turn, mass - left, mass), 2 * node + turn
        return node - self.size
