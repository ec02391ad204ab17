"""OREAL's equations against numbers written out in NumPy, and what its switches leave of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.learner import Clock
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


class EndsInA(lab.Scorer):
    """Right: the last letter before the end is a."""

    def scores(self, observation, action):
        count = jnp.sum(action.kind == 2)
        last = jnp.arange(4) == count - 1
        letter = action.ids[jnp.maximum(count - 2, 0)] == 4
        return jnp.where(last & letter & jnp.any(action.ids == 1), 1.0, 0.0)


@pytest.fixture(scope="module")
def run():
    start = lab.Language(width=16, layers=1, heads=2).build(SPEC, key=jax.random.key(0))
    learner = lab.OREAL(learning_rate=1e-2, reward_rate=1e-2, warm_up=10, batch_size=8, group=8, kl=0.0)
    asked = lab.Responses.of(TOKENIZER.tokens(["a", "b"], length=2), EndsInA(), spec=SPEC)
    return start, lab.train(learner, asked, steps=60, given={"start": start}, progress=False)


def test_right_answers_become_common_after_the_warm_up(run):
    _, trained = run
    rewards = [row["metrics"]["reward"][0] for row in trained.metrics]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:10]) + 0.3
    assert (
        np.ptp([row["metrics"]["parts"][0] for row in trained.metrics[:10]]) > 0
    )  # answers differ while the policy stands still


def test_the_token_reward_gives_log_odds_of_being_right_part_by_part(run):
    _, trained = run
    reward = trained.products(seed=0)["reward"]
    prompt = jax.tree.map(lambda leaf: leaf[0], TOKENIZER.tokens(["a"], length=2))
    good, bad = (lab.Tokens(jnp.asarray(ids), jnp.asarray([2, 2, 2, 0])) for ids in ([5, 4, 1, 0], [4, 5, 1, 0]))
    parts = np.asarray(reward.scores(prompt, good))
    assert parts.shape == (4,)
    assert parts[3] == 0.0
    assert float(reward.score(prompt, good)) == pytest.approx(parts.sum(), rel=1e-5)
    assert float(reward.score(prompt, good)) > float(reward.score(prompt, bad))


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
