"""Trees grown by operators against plain Python that does the same on dictionaries."""

from __future__ import annotations

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.planners.backup import BestEnd, Kept, Largest, Mean, MostVisited, Weighted
from policylab.planners.expansion import Earned, Listed, Simulated, Valued
from policylab.planners.selection import PUCT, UCT, Frontier
from policylab.planners.tree import TreeSearch
from policylab.policies.tabular import TabularPolicy

BRANCH, SIZE = 3, 40  # three levels below the root: node n has children 3 n + 1 ... 3 n + 3, ends from 13 on
JUDGED = np.random.default_rng(0).uniform(size=SIZE).astype(np.float32)
TABLE = np.random.default_rng(1).normal(size=(SIZE, BRANCH)).astype(np.float32)


class Ternary(lab.Environment):
    """The state is a node; its reward on arrival is 1 at node 20."""

    @property
    def spec(self):
        return lab.Spec(lab.Discrete(SIZE), lab.Discrete(BRANCH), horizon=3)

    def reset(self, key):
        return jnp.asarray(0), jnp.asarray(0)

    def at(self, observation):
        return observation

    def step(self, state, action, key):
        after = jnp.minimum(3 * state + action + 1, SIZE - 1)
        return after, lab.Step(after, (after == 20).astype(jnp.float32), after >= 13, jnp.asarray(False))


class Lookup(eqx.Module):
    table: jax.Array

    def __call__(self, observation):
        return self.table[observation]


def search(select, backup, **settings):
    policy = TabularPolicy(jnp.asarray(TABLE))
    given = {"evaluate": Valued(Lookup(jnp.asarray(JUDGED))), "extract": BestEnd(), "rounds": 18} | settings
    evaluate, extract = given.pop("evaluate"), given.pop("extract")
    return TreeSearch(Ternary(), Listed(policy, 0.0, choices=BRANCH), evaluate, select, backup, extract, **given)


grown = jax.jit(lambda planner, start, key: planner.search(start, start, key=key))


def nodes(tree):
    """{node of the environment: (value, visits)} of a tree."""
    used = np.arange(tree.parent.shape[0]) < tree.count
    return {int(s): (float(v), float(n)) for s, v, n, u in zip(tree.state, tree.value, tree.visits, used, strict=True) if u}


def plain(rule, rounds):
    """{node: (value, visits)} by the textbook, with `rule` "uct" (ReST-MCTS*) or "puct" (running means)."""
    value, visits, children = {0: 0.0}, {0: 0.0}, {}
    log_prior = TABLE - np.log(np.exp(TABLE).sum(1, keepdims=True))
    for _ in range(rounds):
        path = [0]
        while children.get(path[-1]):
            node = path[-1]

            def bound(child, node=node):
                if rule == "uct":
                    seen = visits[child]
                    return value[child] + (0.7 * math.sqrt(2 * math.log(max(visits[node], 1)) / seen) if seen else 1.0)
                prior = math.exp(log_prior[node, child - 3 * node - 1])
                return value[child] + 1.0 * prior * math.sqrt(visits[node]) / (1 + visits[child])

            # children stand in the tree in the order of their priors
            path.append(max(children[node], key=bound))
        leaf = path[-1]
        new = [] if leaf >= 13 else [3 * leaf + 1 + a for a in np.argsort(-TABLE[leaf], kind="stable")]
        children[leaf] = new
        for child in new:
            value[child], visits[child] = float(JUDGED[child]), float(rule == "puct")
        for node in reversed(path):
            if rule == "uct":
                visits[node] += 1
                total = sum(visits[c] for c in children[node])
                value[node] = sum(visits[c] * value[c] for c in children[node]) / total if total else value[node]
            else:
                more = [float(JUDGED[c]) for c in new] or [float(JUDGED[leaf])]
                value[node] = (value[node] * visits[node] + sum(more)) / (visits[node] + len(more))
                visits[node] += len(more)
    return {node: (value[node], visits[node]) for node in value}


@pytest.mark.parametrize(("rule", "select", "backup"), [("uct", UCT(), Weighted()), ("puct", PUCT(), Mean())])
def test_it_grows_the_tree_of_plain_python(rule, select, backup):
    tree = grown(search(select, backup), jnp.asarray(0), jax.random.key(0))
    found, expected = nodes(tree), plain(rule, 18)
    assert found.keys() == expected.keys()
    for node, (value, visits) in expected.items():
        assert found[node] == pytest.approx((value, visits), abs=1e-5), node
    assert float(tree.spent) == float(tree.count) - 1


def test_several_leaves_at_once_are_different_and_give_consistent_means():
    planner = search(PUCT(), Mean(), leaves=4, rounds=8)
    starts = jnp.asarray([0, 2])
    trees = jax.jit(jax.vmap(lambda s: planner.search(s, s, key=jax.random.key(0))))(starts)
    tree = jax.tree.map(lambda leaf: leaf[0], trees)
    states = np.asarray(tree.state)[: int(tree.count)]
    assert len(set(states.tolist())) == len(states) > 22
    for i in range(1, int(tree.count)):
        if not tree.terminal[i] and tree.expanded[i]:
            below = [i] + [j for j in range(1, int(tree.count)) if is_below(tree, j, i)]
            weights = [1.0 if j == i or not tree.terminal[j] else float(tree.visits[j]) for j in below]
            np.testing.assert_allclose(tree.value[i], np.average(tree.judged[np.asarray(below)], weights=weights), atol=1e-5)
    alone = grown(planner, starts[1], jax.random.key(0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, atol=1e-6), trees, alone)


def is_below(tree, node, above):
    while node > 0:
        node = int(tree.parent[node])
        if node == above:
            return True
    return False


def test_a_beam_keeps_the_best_of_every_level_and_finds_what_plain_python_finds():
    planner = search(Frontier(), Kept(), leaves=2, rounds=4)
    planner = dataclasses.replace(planner, expand=dataclasses.replace(planner.expand, choices=2))
    tree = grown(planner, jnp.asarray(0), jax.random.key(0))
    best = lambda states: sorted(states, key=lambda s: -JUDGED[s])[:2]
    two = lambda s: [3 * s + 1 + a for a in np.argsort(-TABLE[s], kind="stable")[:2]]
    first = best(two(0) + two(0))  # the root is grown once for each place of the beam
    second = best([c for s in first for c in two(s)])
    third = [c for s in second for c in two(s)]
    chosen = int(tree.state[int(planner.extract(tree, key=jax.random.key(0)))])
    assert chosen == max(third, key=lambda s: JUDGED[s])
    assert float(tree.spent) == 12.0


def test_it_stops_at_its_budget_and_at_an_end_that_is_good_enough():
    tree = grown(search(UCT(), Weighted(), budget=7.0), jnp.asarray(0), jax.random.key(0))
    assert float(tree.spent) == 9.0
    earned = search(UCT(), Largest(), evaluate=Earned(), threshold=1.0, rounds=40)
    tree = grown(earned, jnp.asarray(0), jax.random.key(0))
    assert 20 in nodes(tree)
    assert float(tree.value[0]) == 1.0
    assert int(tree.count) < 40
    assert int(earned.chosen(tree, key=jax.random.key(0))) == 0  # 20 = 3 * 6 + 2, 6 = 3 * 1 + 3, 1 = 3 * 0 + 1


def test_a_greedy_rollout_mixes_into_the_best_child_and_is_paid_for():
    policy = TabularPolicy(jnp.asarray(TABLE))
    evaluate = Simulated(Valued(Lookup(jnp.asarray(JUDGED))), policy, mix=0.5, steps=3)
    tree = grown(search(UCT(), Weighted(), evaluate=evaluate, rounds=1), jnp.asarray(0), jax.random.key(0))
    best = max((1, 2, 3), key=lambda s: JUDGED[s])
    second = 3 * best + 1 + int(np.argmax(TABLE[best]))
    third = 3 * second + 1 + int(np.argmax(TABLE[second]))
    assert nodes(tree)[best][0] == pytest.approx(0.5 * JUDGED[best] + 0.5 * max(JUDGED[second], JUDGED[third]), abs=1e-6)
    assert float(tree.spent) == 5.0


def test_it_is_a_policy_that_plays_the_most_visited_move():
    planner = search(PUCT(), Mean(), extract=MostVisited(), rounds=6)
    tree = grown(planner, jnp.asarray(0), jax.random.key(0))
    visits = {int(tree.state[i]): float(tree.visits[i]) for i in (1, 2, 3)}
    move, _ = jax.jit(lambda p, k: p.act(jnp.asarray(0), None, key=k))(planner.mode(), jax.random.key(5))
    assert int(move) + 1 == max(visits, key=visits.get)
    with pytest.raises(lab.BadInput, match="at least 1"):
        search(UCT(), Mean(), rounds=0)
