"""Search over the steps of a language model: the tree holds what the model wrote, and the planner picks what its judge likes."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environments.grains import at_grain
from policylab.environments.text.draft import Draft
from policylab.learners.reasoning.rest_mcts_star import RestMCTSStar
from policylab.planners.steps import beam, best_of_n, majority_vote, outline, text_tree_search
from policylab.policies.generation import joined
from policylab.scorers.text_value import text_value

TOKENIZER = lab.characters("abc\n")
SPEC = lab.text_spec(TOKENIZER, prompt=8, answer=12, horizon=1)
PROMPT = jax.tree.map(lambda leaf: leaf[0], TOKENIZER.tokens(["abc\n"], length=8))
A = TOKENIZER.encode("a")[0]


class CountA(lab.Scorer):
    """How many "a" an answer has."""

    def scores(self, observation, action):
        return ((action.ids == A) & (action.kind == 2)).astype(jnp.float32)


class Sayings(lab.Environment):
    """One prompt; the reward is the number of "a"."""

    @property
    def spec(self):
        return SPEC

    def reset(self, key):
        return jnp.asarray(0), PROMPT

    def step(self, state, action, key):
        return state, lab.Step(PROMPT, CountA().score(PROMPT, action), jnp.asarray(True), jnp.asarray(False))


@pytest.fixture(scope="module")
def policy():
    return jax.jit(lambda k: lab.Language(width=16, layers=1, heads=2, context=64).build(SPEC, key=k))(jax.random.key(0))


@eqx.filter_jit
def searched(planner, key):
    tree = planner.search(PROMPT, planner.environment.at(PROMPT), key=key)
    return tree, planner.chosen(tree, key=key)


def text(tokens):
    return TOKENIZER.decode(np.asarray(tokens.ids)[np.asarray(tokens.kind) == 2])


def test_a_draft_goes_on_at_any_text_and_shows_what_the_step_grain_shows():
    draft, grain = Draft.of(SPEC, longest=4), at_grain(Sayings(), "step", longest=4)
    state, seen = jax.jit(grain.reset)(jax.random.key(0))

    @jax.jit
    def both(seen, state, action):
        key = jax.random.key(0)
        return draft.step(draft.at(seen), action, key)[1], *grain.step(state, action, key)

    for piece in ("ab\n", "c\n"):
        action = jax.tree.map(lambda leaf: leaf[0], TOKENIZER.tokens([piece], length=4, kind=2))
        told, state, step = both(seen, state, action)
        seen = step.observation
        count = int(jnp.sum(seen.kind > 0))
        np.testing.assert_array_equal(told.observation.ids[:count], seen.ids[:count])
        np.testing.assert_array_equal(told.observation.kind[:count], seen.kind[:count])
    assert text(draft.at(seen).written) == "ab\nc\n"
    assert not bool(told.terminal)
    with pytest.raises(lab.BadInput, match="of texts"):
        Draft.of(lab.Spec(lab.Box((2,)), lab.Box((2,))), longest=4)


def test_best_of_n_and_votes_pick_among_the_answers_that_the_policy_gives(policy):
    planner = best_of_n(policy, SPEC, CountA(), n=6)
    tree, answer = searched(planner, jax.random.key(1))
    scores = [text(jax.tree.map(lambda leaf, i=i: leaf[i], tree.action)).count("a") for i in range(1, 7)]
    assert text(answer).count("a") == max(scores) > min(scores)
    assert answer.ids.shape == (12,)
    assert float(tree.spent) == float(jnp.sum(tree.action.kind == 2))
    own = policy.log_probs(
        joined(jax.tree.map(lambda leaf: leaf[None], PROMPT), jax.tree.map(lambda leaf: leaf[1:2], tree.action))
    )
    np.testing.assert_allclose(tree.prior[1], own.sum(), rtol=1e-4)
    short = dataclasses.replace(policy, answer=1)
    spec = lab.text_spec(TOKENIZER, prompt=8, answer=1, horizon=1)
    votes = majority_vote(short, spec, n=9)
    tree, answer = searched(votes, jax.random.key(2))
    said = [text(jax.tree.map(lambda leaf, i=i: leaf[i], tree.action)).strip() for i in range(1, 10)]
    assert said.count(text(answer).strip()) == max(map(said.count, said))


def test_beams_and_trees_of_steps_share_what_is_written_above(policy):
    wide = beam(policy, SPEC, CountA(), beams=2, samples=3, longest=4, rounds=3)
    tall = text_tree_search(policy, SPEC, CountA(), rule="rest-mcts-star", longest=4, rounds=4, leaves=2, rollout=2)
    for planner in (wide, tall):
        tree, answer = searched(planner, jax.random.key(0))
        for node in range(1, int(tree.count)):
            before = text(jax.tree.map(lambda leaf, n=int(tree.parent[node]): leaf[n], tree.state.written))
            piece = text(jax.tree.map(lambda leaf, n=node: leaf[n], tree.action))
            now = text(jax.tree.map(lambda leaf, n=node: leaf[n], tree.state.written))
            assert before + piece == now or len(now) >= 12
            assert "\n" not in piece[:-1]
            assert int(jnp.sum(tree.action.kind[node] == 2)) <= 4
            if planner is wide:
                assert float(tree.value[node]) == now.count("a")
        ends = np.asarray(tree.terminal)[: int(tree.count)]
        if ends.any():
            assert text(answer) in {
                text(jax.tree.map(lambda leaf, n=int(n): leaf[n], tree.state.written)) for n in np.flatnonzero(ends)
            }
        assert len(outline(tree, SPEC.tokenizer).splitlines()) >= int(tree.count) - 1
    with pytest.raises(lab.BadInput, match="at most 0 tokens"):
        text_tree_search(policy, SPEC, CountA(), longest=0)


def test_a_planner_acts_at_the_grain_of_steps(policy):
    step = text_tree_search(policy, SPEC, CountA(), longest=4, rounds=1, whole=False)
    world = at_grain(Sayings(), "step", longest=4)
    episodes = jax.jit(lambda p: lab.unroll(p, world, episodes=2, horizon=3, key=jax.random.key(0)))(step)
    assert np.all(np.asarray(jnp.sum(episodes.action.kind == 2, axis=-1)) >= 1)
    assert episodes.action.ids.shape == (2, 3, 4)


def test_a_value_of_texts_guides_as_well(policy):
    value = text_value(policy)
    planner = text_tree_search(policy, SPEC, value, longest=4, rounds=2)
    tree, _ = searched(planner, jax.random.key(0))
    assert np.all(np.asarray(tree.value) == 0.0)
    learner = RestMCTSStar(batch_size=4)
    products = learner.products(learner.init(planner.environment.spec, key=jax.random.key(0), given={"start": policy}))
    assert planner.using(products).evaluate.value.head.weight.shape == (16, 1)
