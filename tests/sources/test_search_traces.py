"""Batches mined from searched trees: right paths, inferred worth and sibling pairs, round by round."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environments.countdown import CountdownSteps
from policylab.learners.reasoning.rest_mcts_star import RestMCTSStar, inferred_values
from policylab.planners.backup import BestEnd, Weighted
from policylab.planners.expansion import Earned, Sampled, Valued
from policylab.planners.selection import UCT
from policylab.planners.tree import TreeSearch
from policylab.sources.search_traces import SearchTraces

WORLD = CountdownSteps(3, 9)
LEARNER = RestMCTSStar(batch_size=16, width=8, depth=1, policy=lab.Categorical(width=8, depth=1))


@pytest.fixture(scope="module")
def mined():
    products = LEARNER.products(LEARNER.init(WORLD.spec, key=jax.random.key(0)))
    search = TreeSearch(
        WORLD, Sampled(products["policy"], samples=4), Valued(products["value"]), UCT(), Weighted(), BestEnd(), rounds=12
    )
    source = SearchTraces(search, WORLD, problems=24, keep=1, values=inferred_values, gap=0.0)
    needs = {**LEARNER.needs, "pairs": lab.Pairs(8)}
    return source.serve(needs), jax.jit(lambda s, p, k: s.round(p, key=k))(source, products, jax.random.key(1)), products


def test_paths_lead_to_right_answers_and_every_problem_gives_as_many_as_are_kept(mined):
    source, traces, products = mined
    clock = lab.Clock(jnp.asarray(1), jnp.asarray(9))
    batch = jax.jit(lambda t, k: source.next(t, products, clock=clock, key=k)[1])(traces, jax.random.key(2))
    tree, path = traces.tree, np.asarray(traces.path)
    assert 0 < float(traces.solved) < 1
    for problem in range(24):
        ends = np.flatnonzero(np.asarray(traces.right[problem]) & (path[problem] > 0))
        assert len(ends) == bool(np.any(traces.right[problem]))
        on_path = set(np.flatnonzero(path[problem]))
        for node in ends:
            assert int(tree.state.numbers[problem, node][0]) == int(tree.state.target[problem, node])
            climbed = set()
            while node > 0:
                climbed.add(int(node))
                node = int(tree.parent[problem, node])
            assert climbed == on_path
    assert np.all(np.asarray(batch["paths"].valid))
    steps = jax.vmap(lambda o: o)(batch["values"].extra["return_to_go"])
    assert np.all((np.asarray(steps) >= 0) & (np.asarray(steps) <= 1))
    assert set(np.asarray(batch["pairs"].p)) <= {0.0, 1.0}
    assert not np.array_equal(batch["pairs"].a, batch["pairs"].b)


def test_pairs_are_the_best_and_the_worst_step_from_one_place(mined):
    _, traces, _ = mined
    tree = jax.tree.map(lambda leaf: np.asarray(leaf[0]), traces.tree)
    for node in np.flatnonzero(np.asarray(traces.pair[0])):
        children = [i for i in range(1, int(tree.count)) if tree.parent[i] == node]
        assert int(traces.better[0, node]) == max(children, key=lambda i: (tree.value[i], -i))
        assert int(traces.worse[0, node]) == min(children, key=lambda i: (tree.value[i], i))


def test_training_searches_anew_every_so_often_and_learns(mined):
    source = mined[0]
    rounds = SearchTraces(source.search, WORLD, problems=8, every=10, values=inferred_values)
    run = lab.train(LEARNER, rounds, steps=20)
    last = run.metrics[-1]["metrics"]
    assert np.isfinite(last["value_loss"]).all()
    assert np.all(np.asarray(last["imitation_loss"]) > 0)
    with pytest.raises(lab.BadInput, match="single steps"):
        source.serve({"windows": lab.Windows(4, future=2)})
    with pytest.raises(lab.BadInput, match="at least one problem"):
        SearchTraces(source.search, WORLD, problems=0)


def test_a_planner_is_collected_like_any_policy(mined):
    source, _, products = mined
    planner = dataclasses.replace(source.search.using(products), evaluate=Earned(), rounds=16)
    solved = lambda data: np.add.reduceat(data.reward, np.cumsum([0, *data.lengths[:-1]])) > 0
    data = lab.collect(planner, WORLD, 24, keep=solved)
    assert 0 < data.origin["episodes_kept"] < data.origin["episodes_played"] == 24
