"""A picture of a tree of steps (`planners.tree.Tree`): what was written on every edge, and what was thought of it."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from policylab.errors import BadInput
from policylab.planners.tree import Tree
from policylab.reporting.drawings import placed
from policylab.reporting.figures import as_png, plotting

_LARGEST = 60  # nodes whose words can be read


def searched(tree: Tree, words: Callable[[Tree, int], str]) -> bytes:
    """A PNG of one tree, from left to right: a box per step with `words(tree, node)`, its value and its visits, coloured by the value; ends
    have a thick border. Raises `BadInput` for several trees, and for more nodes than can be read."""
    tree = jax.device_get(tree)
    if tree.parent.ndim != 1:
        raise BadInput(
            f"these are {tree.parent.shape[0]} trees: draw one of them, as in jax.tree.map(lambda leaf: leaf[0], tree)"
        )
    count = int(tree.count)
    if count > _LARGEST:
        raise BadInput(f"a tree of {count} nodes cannot be read: search at most {_LARGEST}")
    below = [[i for i in range(1, count) if tree.parent[i] == node] for node in range(count)]
    widest = max(map(len, below), default=0)
    place = placed(np.asarray([row + [-1] * (widest - len(row)) for row in below], np.int32).reshape(count, widest))
    plt = plotting()
    deepest = max(depth for _, depth in place.values())
    rows = sum(not row for row in below)
    figure, axes = plt.subplots(figsize=(2.2 + 2.6 * deepest, 0.8 + 0.42 * rows))
    colours = plt.get_cmap("cividis")
    for node, (across, depth) in place.items():
        if node:
            up, left = place[int(tree.parent[node])]
            axes.plot((left, depth), (-up, -across), color="#b0b0ae", linewidth=1.0, zorder=1)
        value = float(np.clip(tree.value[node], 0.0, 1.0))
        said = f"{words(tree, node)}\n{tree.value[node]:.2f}, {tree.visits[node]:.0f} visits"
        edge = {"edgecolor": "black", "linewidth": 1.6} if tree.terminal[node] else {"edgecolor": "none"}
        axes.text(
            depth, -across, said, ha="center", va="center", fontsize=7, color="white" if value < 0.55 else "black", zorder=2,
            bbox={"boxstyle": "round,pad=0.3", "facecolor": colours(value), **edge},
        )  # fmt: skip
    axes.set_xlim(-0.4, deepest + 0.4)
    axes.set_ylim(-rows + 0.4, 0.6)
    axes.set_axis_off()
    return as_png(figure)
