"""Trees of steps are drawn, one at a time and not too large to read."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import policylab as lab
from policylab.environments.countdown import CountdownSteps, Sum
from policylab.environments.finite import gridworld
from policylab.environments.text.draft import Draft, Drafted
from policylab.planners.tree import Tree
from policylab.reporting.searched import most_visited, named_step, searched
from policylab.tokenizer import characters


def stacked(*nodes):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *nodes)


def made(parent, **given):
    """A tree of as many nodes as there are parents, with zeros for the rest."""
    count, zero = len(parent), jnp.zeros(len(parent))
    parent = jnp.asarray(parent)
    nodes = {"parent": parent, "depth": parent, "action": parent, "prior": zero, "gain": zero, "judged": zero, "value": zero}
    nodes |= {"visits": zero, "terminal": zero > 0, "expanded": zero > 0, "state": zero, "observation": zero}
    return Tree(**{**nodes, "count": jnp.asarray(count), "spent": jnp.zeros(()), **given})


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


def test_a_large_tree_keeps_what_was_visited_most_and_the_way_to_it():
    parent = [-1, 0, 0, 1, 2, 3, 4]
    visits = jnp.asarray([9.0, 1.0, 5.0, 1.0, 2.0, 7.0, 2.0])
    kept = most_visited(made(parent, visits=visits, action=jnp.arange(7)), 6)
    assert int(kept.count) == 6
    assert kept.action.tolist() == [0, 1, 2, 3, 4, 5]  # node 5 brought 3 and 1 with it; of 4 and 6 there was room for one
    assert kept.parent.tolist() == [-1, 0, 0, 1, 2, 3]
    assert searched(kept, lambda tree, node: str(node))[:4] == b"\x89PNG"
    whole = made(parent)
    assert int(most_visited(whole).count) == 7


def test_steps_are_named_in_the_words_of_the_environment():
    tree = made([-1, 0], action=jnp.asarray([0, 1]))
    assert named_step(gridworld(("S.G",)), tree, 0) == "here"
    assert named_step(gridworld(("S.G",)), tree, 1) in ("action 1", "right")
    sums = stacked(*(Sum(jnp.asarray(numbers), jnp.asarray(8)) for numbers in ([6, 2], [8, 0])))
    found = made([-1, 0], action=jnp.asarray([0, 0]), state=sums)
    assert named_step(CountdownSteps(2), found, 0) == "6 2 -> 8"
    assert named_step(CountdownSteps(2), found, 1) == "6+2=8"
    tokenizer = characters("ab c$")
    spell = lambda text, kind: lab.Tokens(jnp.asarray(tokenizer.encode(text), jnp.int32), jnp.full(len(text), kind, jnp.int32))
    node = Drafted(spell("aa", 1), spell("", 2))
    text = made([-1, 0], action=stacked(*[spell("b$ $c", 2)] * 2), state=stacked(node, node))
    draft = Draft(4, 8, 5, tokenizer.json)
    assert named_step(draft, text, 0) == "aa"
    assert named_step(draft, text, 1) == "b$ $c"
    assert searched(text, lambda tree, node: named_step(draft, tree, node))[:4] == b"\x89PNG"  # a dollar begins no formula
