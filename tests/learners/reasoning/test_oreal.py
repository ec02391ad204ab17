"""OREAL's equations against numbers written out in NumPy, and what its switches leave of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.learner import Clock
from policylab.policies.answering import group_log_probs
from policylab.scorers.token_reward import likely_right, likely_wrong

TOKENIZER = lab.characters("ab")
SPEC = lab.text_spec(TOKENIZER, prompt=2, answer=4)
PARTS = np.arange(4) < np.array([[4, 2], [3, 1], [2, 2]])[..., None]
sigma = lambda x: 1.0 / (1.0 + np.exp(-x))


def test_a_right_answer_counts_one_minus_the_pass_rate_of_the_others_and_a_wrong_one_that_rate():
    right = np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    others = np.array([[right[i][np.arange(4) != j].mean() for j in range(4)] for i in range(2)])
    np.testing.assert_allclose(lab.OREAL(group=4).advantages(jnp.asarray(right)), right - others, rtol=1e-6)
    plain = lab.OREAL(group=4, reshaped=False).advantages(jnp.asarray(right))
    np.testing.assert_array_equal(plain, 2 * right - 1)


def test_tokens_count_by_how_sure_their_reward_is():
    w = np.array([-3.0, -0.1, 0.0, 0.1, 3.0])
    np.testing.assert_allclose(likely_right(jnp.asarray(w)), np.maximum(2 * sigma(w) - 1, 0), atol=1e-6)
    np.testing.assert_allclose(likely_wrong(jnp.asarray(w)), np.maximum(1 - 2 * sigma(w), 0), atol=1e-6)


def test_the_three_terms_are_each_over_their_own_tokens():
    random = np.random.default_rng(0)
    log_probs, before, frozen = -random.uniform(size=(3, 3, 2, 4))
    weights, advantage = random.uniform(size=(3, 2, 4)), np.array([[0.8, -0.2], [0.5, -0.5], [0.1, -0.9]])
    counts = PARTS & np.array([True, True, False])[:, None, None]  # the third prompt does not count
    good = [(i, 0, t) for i in range(2) for t in range(4) if PARTS[i, 0, t]]
    bad = [(i, 1, t) for i in range(2) for t in range(4) if PARTS[i, 1, t]]
    ratio = lambda at: np.exp(frozen[at] - log_probs[at]) - (frozen[at] - log_probs[at]) - 1
    wanted = (
        -sum(weights[at] * advantage[at[:2]] * log_probs[at] for at in good) / len(good),
        sum(weights[at] * -advantage[at[:2]] * (log_probs[at] - before[at]) for at in bad) / len(bad),
        sum(map(ratio, good + bad)) / len(good + bad),
    )
    got = lab.OREAL().losses(*(jnp.asarray(x) for x in (log_probs, before, frozen, weights, advantage, counts)))
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_first_the_token_reward_learns_what_is_right_and_then_the_policy_does_it():
    """Four answers to each of two prompts; those that end in a are right."""
    start = lab.Language(width=16, layers=1, heads=2).build(SPEC, key=jax.random.key(0))
    learner = lab.OREAL(learning_rate=1e-2, reward_rate=1e-2, warm_up=60, batch_size=2, group=4, kl=0.0, weight_decay=0.0)
    prompt = TOKENIZER.tokens(["a", "b"], length=2)
    ids = jnp.tile(jnp.asarray([[4, 4, 1, 0], [5, 4, 1, 0], [4, 5, 1, 0], [5, 5, 1, 0]]), (2, 1, 1))
    sample = lab.Tokens(ids, jnp.where(ids > 0, 2, 0))
    reward = jnp.zeros((2, 4, 4)).at[:, :2, 2].set(1.0)
    batch = lab.Rated(prompt, sample, reward, reward > 0, jnp.ones((2, 4)), jnp.zeros((2, 4), jnp.int32))
    update = jax.jit(
        lambda state, i: learner.update(
            state, batch, clock=Clock(i, jnp.asarray(80)), key=jax.random.fold_in(jax.random.key(1), i)
        )
    )
    likely = jax.jit(lambda policy: jnp.sum(group_log_probs(policy, prompt, sample), axis=-1))
    state = learner.init(SPEC, key=jax.random.key(0), given={"start": start})
    before = np.asarray(likely(start))
    for i in range(60):
        state, metrics = update(state, jnp.asarray(i))
    assert float(metrics["learned"]) == 1.0
    np.testing.assert_array_equal(np.asarray(likely(state["policy"].model)), before)  # the policy stands still
    score = learner.products(state)["reward"]
    each = lambda i, j: score.scores(
        *jax.tree.map(lambda leaf: leaf[i], (prompt, jax.tree.map(lambda leaf: leaf[:, j], sample)))
    )
    parts = np.array([[np.asarray(each(i, j)) for j in range(4)] for i in range(2)])
    assert (parts.sum(-1) > 0).tolist() == [[True, True, False, False]] * 2  # log-odds of being right
    assert not parts[..., 3].any()  # padding has no part in it
    for i in range(60, 80):
        state, metrics = update(state, jnp.asarray(i))
    moved = np.asarray(likely(state["policy"].model)) - before
    assert moved[:, :2].min() > moved[:, 2:].max()


def test_without_token_weights_any_policy_will_do_and_prompts_without_contrast_teach_nothing():
    spec = lab.Spec(lab.Discrete(2), lab.Discrete(3))
    learner = lab.OREAL(token_weights=False, kl=0.0, negative=0.0, weight_decay=0.0, learning_rate=0.1, group=3, batch_size=2)
    state = learner.init(spec, key=jax.random.key(0), given={"start": lab.Tabular().build(spec, key=jax.random.key(1))})
    sample, reward = jnp.asarray([[0, 1, 2], [0, 1, 2]]), jnp.asarray([[0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    ends = jnp.ones((2, 3, 1), bool)
    batch = lab.Rated(jnp.arange(2), sample, reward[..., None], ends, jnp.ones((2, 3)), jnp.zeros((2, 3), jnp.int32))
    after, metrics = learner.update(state, batch, clock=Clock(jnp.asarray(0), jnp.asarray(1)), key=jax.random.key(0))
    moved = np.asarray(after["policy"].model.table - state["policy"].model.table)
    assert moved[0, 2] > 0 > moved[0, :2].max()  # the right answer of the first prompt is cloned
    assert not moved[1].any()
    assert float(metrics["learned"]) == 0.5
    with pytest.raises(lab.BadInput, match="token_weights=False"):
        lab.OREAL(policy=lab.Tabular()).init(spec, key=jax.random.key(0))
