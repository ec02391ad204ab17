"""A picture of a tree of steps (`planners.tree.Tree`): what was written on every edge, and what was thought of it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from policylab import spaces
from policylab.environment import Environment
from policylab.environments.countdown import CountdownSteps
from policylab.environments.text import wording
from policylab.environments.text.draft import Draft
from policylab.errors import BadInput
from policylab.planners.tree import Tree
from policylab.reporting.drawings import placed
from policylab.reporting.figures import as_png, plotting
from policylab.tokenizer import Tokenizer

_LARGEST = 60  # nodes whose words can be read
_WHOLE = ("count", "spent")  # of a tree, not of its nodes
_WIDE, _LINES = 26, 2  # of what is written on a node


def most_visited(tree: Tree, most: int = _LARGEST) -> Tree:
    """One tree without its nodes that were visited least, so that at most `most` are left; of equals the better valued stay. Whoever stays
    has all its ancestors."""
    count, whole = int(tree.count), tree
    if count <= most:
        return tree
    tree = jax.device_get(tree)
    kept = {0}
    for node in sorted(range(1, count), key=lambda node: (-tree.visits[node], -tree.value[node], node)):
        line, at = [], node
        while at not in kept:
            line.append(at)
            at = int(tree.parent[at])
        if len(kept) + len(line) <= most:
            kept.update(line)
    rows = np.asarray(sorted(kept))
    number = np.full(tree.parent.shape[0] + 1, -1, np.int32)  # the last one is where the root's parent, -1, is looked up
    number[rows] = np.arange(len(rows))
    nodes = {
        name: jax.tree.map(lambda leaf: jnp.asarray(leaf[rows]), getattr(tree, name))
        for name in tree.__dataclass_fields__
        if name not in _WHOLE
    }
    nodes["parent"] = jnp.asarray(number[tree.parent[rows]])
    return Tree(**nodes, count=jnp.asarray(len(rows)), spent=whole.spent)


def named_step(environment: Environment, tree: Tree, node: int) -> str:
    """In words what led to a node, and for the root where the search began: texts as they read, choices by their labels, else numbers."""
    space, action = environment.spec.action, jax.tree.map(lambda leaf: leaf[node], tree.action)
    match environment:
        case Draft():
            state = jax.tree.map(lambda leaf: leaf[node], tree.state)
            told = (state.prompt, 1) if node == 0 else (action, 2)
            words = wording.read(
                Tokenizer.of(environment.tokenizer), np.asarray(told[0].ids), np.asarray(told[0].kind), of=told[1]
            )
        case CountdownSteps() if node == 0:
            words = f"{' '.join(str(n) for n in tree.state.numbers[0] if n > 0)} -> {tree.state.target[0]}"
        case CountdownSteps():
            words = environment.written(np.asarray(tree.state.numbers)[int(tree.parent[node])], int(action))
        case _ if node == 0:
            words = "here"
        case _ if isinstance(space, spaces.Discrete):
            words = str(space.labels[int(action)]) if space.labels else f"action {int(action)}"
        case _:
            words = f"({', '.join(f'{float(one):.2g}' for leaf in jax.tree.leaves(action) for one in np.ravel(leaf))})"
    lines = textwrap.wrap(" ".join(words.split()), _WIDE) or ["(nothing)"]
    return "\n".join(lines if len(lines) <= _LINES else [*lines[: _LINES - 1], "…"])


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
    colours, values = plt.get_cmap("cividis"), np.asarray(tree.value)[:count]
    low, high = min(0.0, float(values.min())), max(1.0, float(values.max()))
    for node, (across, depth) in place.items():
        if node:
            up, left = place[int(tree.parent[node])]
            axes.plot((left, depth), (-up, -across), color="#b0b0ae", linewidth=1.0, zorder=1)
        value = (float(tree.value[node]) - low) / (high - low)
        said = f"{words(tree, node)}\n{tree.value[node]:.2f}, {tree.visits[node]:.0f} visits"
        edge = {"edgecolor": "black", "linewidth": 1.6} if tree.terminal[node] else {"edgecolor": "none"}
        axes.text(
            depth, -across, said, ha="center", va="center", fontsize=7, color="white" if value < 0.55 else "black", zorder=2,
            bbox={"boxstyle": "round,pad=0.3", "facecolor": colours(value), **edge}, parse_math=False,
        )  # fmt: skip
    axes.set_xlim(-0.4, deepest + 0.4)
    axes.set_ylim(-rows + 0.4, 0.6)
    axes.set_axis_off()
    return as_png(figure)
