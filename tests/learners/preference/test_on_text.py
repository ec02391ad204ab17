"""The files that align torques and choices align texts: cloning, pairs, good and bad answers, groups, on one tiny language policy."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.data.preferences import Chat, Judged, Pair, Rating
from policylab.learner import Clock
from policylab.networks.mlp import Linear
from policylab.policies.answering import answer_log_probs, pair_log_prob
from policylab.policies.language import text_spec
from policylab.scorers.text_reward import text_reward
from policylab.tokenizer import characters

FORM = lab.Language(width=16, layers=1, heads=2)
SPEC_TOKENIZER = characters("ab?")
SPEC = text_spec(SPEC_TOKENIZER, prompt=8, answer=4)
PAIRS = Judged("pairs", tuple(Pair("a?" if i % 2 else "bb?", "ab", "b", 1.0) for i in range(8)))


@pytest.fixture(scope="module")
def start():
    return FORM.build(SPEC, key=jax.random.key(0))


def test_pairs_of_texts_are_learned_from(start):
    source = lab.Preferences.of_rows(PAIRS, spec=SPEC)
    run = lab.train(lab.DPO(learning_rate=3e-3, batch_size=8), source, steps=30, given={"start": start})
    row = source.rows(jnp.arange(2))
    a, b = pair_log_prob(run.policy(), row.observation, row.a, row.b)
    first, second = pair_log_prob(start, row.observation, row.a, row.b)
    assert np.all(np.asarray((a - b) - (first - second)) > 1.0)
    tokens = np.asarray(row.a.kind)
    assert tokens.tolist() == [[2, 2, 2, 0]] * 2  # two letters and the end
    implied = run.products(seed=0)["reward"]
    one = jax.tree.map(lambda leaf: leaf[0], row)
    parts = implied.scores(one.observation, one.a)
    assert parts.shape == (4,)
    assert float(parts[3]) == 0.0
    assert float(parts.sum()) == pytest.approx(0.1 * float(a[0] - first[0]), rel=1e-3)


def test_the_log_probability_of_an_answer_is_that_of_its_tokens_one_after_the_other(start):
    source = lab.Preferences.of_rows(PAIRS, spec=SPEC)
    row = source.rows(jnp.arange(2))
    found = np.asarray(answer_log_probs(start, row.observation, row.a))
    for i in range(2):
        prompt = np.asarray(row.observation.ids[i])[np.asarray(row.observation.kind[i]) == 1]
        answer = np.asarray(row.a.ids[i])[:3]
        text = lab.Tokens(jnp.asarray(np.concatenate([prompt, answer])), jnp.ones(len(prompt) + 3, jnp.int32))
        log = np.asarray(jax.nn.log_softmax(start.token_logits(text)))
        for t in range(3):
            assert found[i, t] == pytest.approx(log[len(prompt) - 1 + t, answer[t]], abs=1e-4)


def test_ratings_of_texts_stand_on_the_last_token_and_groups_are_learned_from(start):
    ratings = Judged("ratings", (Rating("a?", "ab", 2.0, "x"), Rating("b?", "b", 1.0, "y")))
    source = lab.Ratings.of_rows(ratings, spec=SPEC)
    assert np.asarray(source.reward).tolist() == [[0, 0, 2, 0], [0, 1, 0, 0]]
    assert np.asarray(source.rater).tolist() == [0, 1]

    class Letters(lab.Scorer):
        """How many letters are a."""

        def scores(self, observation, action):
            return ((action.ids == 3) & (action.kind == 2)).astype(jnp.float32)

    prompts = jax.tree.map(np.asarray, source.prompt)
    learner = lab.GroupPolicyGradient(learning_rate=1e-2, batch_size=4, group=4, anchor="none")
    asked = lab.Responses.of(prompts, Letters(), spec=SPEC).serve(learner.needs)
    state = learner.init(SPEC, key=jax.random.key(0), given={"start": start})

    @jax.jit
    def step(state, number):
        clock, key = Clock(number, jnp.asarray(20)), jax.random.fold_in(jax.random.key(1), number)
        batch = asked.next(None, learner.products(state), clock=clock, key=key)[1]
        return learner.update(state, batch, clock=clock, key=key)

    rewards = []
    for number in range(20):
        state, metrics = step(state, jnp.asarray(number))
        rewards.append(float(metrics["reward"]))
        assert float(metrics["log_ratio"]) == 0.0  # on policy the ratio is 1
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.5


def test_an_outcome_model_rates_every_part_and_its_parts_add_up(start):
    learner = lab.ImplicitPRM(beta=0.5, learning_rate=3e-3, batch_size=8)
    ratio, right = np.array([1.0, -2.0]), np.array([1.0, 1.0])
    losses = learner.losses(jnp.asarray(ratio), jnp.asarray(right))
    np.testing.assert_allclose(losses, np.log1p(np.exp(-0.5 * ratio)), rtol=1e-5)
    np.testing.assert_allclose(learner.losses(jnp.asarray(ratio), jnp.zeros(2)), np.log1p(np.exp(0.5 * ratio)), rtol=1e-5)
    rows = tuple(Rating("a?", answer, float(answer.endswith("a"))) for answer in ("aa", "ab", "ba", "bb"))
    source = lab.Ratings.of_rows(Judged("ratings", rows), spec=SPEC)
    run = lab.train(learner, source, steps=40, given={"start": start})
    reward = run.products(seed=0)["reward"]
    one = lambda i: jax.tree.map(lambda leaf: leaf[i], (source.prompt, source.sample))
    scores = np.array([reward.scores(*one(i)) for i in range(4)])
    assert (scores.sum(1) > 0).tolist() == [True, False, True, False]
    assert np.all(scores[:, 3] == 0.0)  # two letters and the end; what is padded has no part in it


def test_a_reward_model_of_texts_reads_the_answers_last_token_and_learns_which_is_preferred(start):
    model = text_reward(start)
    source = lab.Preferences.of_rows(PAIRS, spec=SPEC)
    row = source.rows(jnp.arange(2))
    one = jax.tree.map(lambda leaf: leaf[0], row)
    head = Linear(jnp.ones((16, 1)), jnp.full(1, 0.5))
    scores = dataclasses.replace(model, head=head).scores(one.observation, one.a)
    text = np.concatenate([np.asarray(one.observation.ids)[:3], np.asarray(one.a.ids)[:3]])
    last = np.asarray(start.hidden(lab.Tokens(jnp.asarray(text), jnp.ones(6, jnp.int32))))[5]
    np.testing.assert_allclose(scores, [0, 0, last.sum() + 0.5, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.losses(row, key=jax.random.key(0)), np.log(2.0), rtol=1e-6)
    fit = lab.Fit(lab.TextRewards(FORM), learning_rate=1e-2, batch_size=8)
    fitted = lab.train(fit, source, steps=30, given={"start": model}).products(seed=0)["reward"]
    assert float(fitted.prefer(one.observation, one.a, one.b, key=jax.random.key(0))[0]) > 0.9


def test_cloning_texts_is_behaviour_cloning():
    said = Judged("pairs", (Pair("a?", "ab", "b"), Pair("b?", "b", "ab", 0.0)))
    source = lab.Demonstrations.of_rows(said, spec=SPEC)
    assert np.asarray(source.answer.kind).tolist() == [[2, 2, 2, 0], [2, 2, 2, 0]]
    policy = lab.train(lab.BC(policy=FORM, learning_rate=1e-2, batch_size=8), source, steps=60).policy()
    writer = SPEC_TOKENIZER.texts(
        jax.jit(jax.vmap(lambda o: policy.mode().act(o, None, key=jax.random.key(0))[0]))(source.prompt)
    )
    assert writer == ["ab", "ab"]
    chats = Judged("chats", (Chat(({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})),))
    template = "{% for m in messages %}{{ m['content'] }}?{% endfor %}"
    spec = text_spec(characters("ab?", template=template), prompt=8, answer=4)
    one = lab.Demonstrations.of_rows(chats, spec=spec)
    assert SPEC_TOKENIZER.texts(jax.tree.map(lambda leaf: leaf[:1], one.prompt)) == ["a?"]
    with pytest.raises(lab.BadInput, match="asks for more"):
        lab.train(lab.BC(policy=lab.Sequence()), source, steps=1)
