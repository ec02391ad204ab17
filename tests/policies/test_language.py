"""A language policy: one log-probability for sampling and training, padding that changes nothing, batches that change nothing."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import policylab as lab
from policylab.networks.optimisation import descend, trained
from policylab.policies.generation import drawn, joined
from policylab.policies.language import Language, text_spec
from policylab.policies.stops import stops_for
from policylab.policy import log_prob

TOKENIZER = lab.characters("abc \n")
SPEC = text_spec(TOKENIZER, prompt=16, answer=12)
PROMPTS = TOKENIZER.tokens(["abc", "a b c abc", "cc"], length=16)
KEYS = jax.random.split(jax.random.key(1), 3)
sample = jax.jit(jax.vmap(lambda policy, prompt, key: policy.sample(prompt, None, key=key)[:2], in_axes=(None, 0, 0)))


def of(row: int, tree):
    return jax.tree.map(lambda leaf: leaf[row], tree)


@pytest.fixture(scope="module")
def policy():
    fresh = Language(width=32, layers=2, heads=4, groups=2, family="qwen3").build(SPEC, key=jax.random.key(0))
    # Larger weights, so that the distribution is far from uniform and a mistake shows.
    return dataclasses.replace(fresh, network=jax.tree.map(lambda leaf: leaf * 3, fresh.network)).sampled(temperature=0.7)


@pytest.fixture(scope="module")
def written(policy):
    return sample(policy, PROMPTS, KEYS)


def window_of(prompts, answers):
    n = prompts.ids.shape[0]
    no = jnp.zeros(n, bool)
    return lab.Window(prompts, answers, jnp.zeros(n), prompts, no, no, ~no, jnp.ones(n, jnp.int32))


def test_on_policy_the_ratio_is_one(policy, written):
    answers, log_probability = written
    np.testing.assert_allclose(jnp.exp(log_prob(policy, window_of(PROMPTS, answers)) - log_probability), 1.0, atol=1e-5)
    whole = policy.log_probs(joined(PROMPTS, answers))
    np.testing.assert_allclose(whole.sum(axis=-1), log_probability, atol=1e-5)
    assert np.all((np.asarray(answers.kind) == 2).sum(axis=1) == (np.asarray(whole) != 0).sum(axis=1))


def test_an_answer_does_not_depend_on_its_batch_or_its_padding(policy, written):
    alone = policy.sample(of(1, PROMPTS), None, key=KEYS[1])
    np.testing.assert_array_equal(alone[0].ids, written[0].ids[1])
    longer = TOKENIZER.tokens(["a b c abc"], length=32)
    wider = policy.sample(of(0, longer), None, key=KEYS[1])
    np.testing.assert_array_equal(wider[0].ids, written[0].ids[1])
    np.testing.assert_allclose(wider[1], written[1][1], atol=1e-5)


def test_what_stands_on_padding_changes_no_bit(policy, written):
    dirty = dataclasses.replace(PROMPTS, ids=jnp.where(PROMPTS.kind == 0, 7, PROMPTS.ids))
    again = sample(policy, dirty, KEYS)
    np.testing.assert_array_equal(again[0].ids, written[0].ids)
    np.testing.assert_array_equal(again[1], written[1])


def test_log_probs_are_those_of_the_network_run_token_by_token(policy, written):
    """By hand: one unpadded pass per prefix, softmax in NumPy."""
    text = [int(i) for i, k in zip(PROMPTS.ids[2], PROMPTS.kind[2], strict=True) if k]
    total, run = 0.0, jax.jit(lambda ids, valid: policy.network(ids, valid))
    for token, kind in zip(written[0].ids[2], written[0].kind[2], strict=True):
        if kind == 0:
            break
        logits = np.asarray(run(jnp.asarray([text]), jnp.ones((1, len(text)), bool)))[0, -1].astype(np.float64) / 0.7
        total += logits[int(token)] - np.log(np.exp(logits).sum())
        text.append(int(token))
        if len(text) > 4:  # enough places; every new length is compiled anew
            break
    ours = np.asarray(policy.log_probs(joined(of(2, PROMPTS), of(2, written[0]))))
    assert ours[2 : len(text)].sum() == pytest.approx(total, abs=1e-4)


def test_many_answers_to_one_prompt_are_those_of_single_calls(policy):
    many = policy.act_many(of(0, PROMPTS), 3, key=KEYS[0])
    keys = jax.random.split(KEYS[0], 3)
    same = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[0], (3, *leaf.shape[1:])), PROMPTS)
    answers, log_probability = sample(policy, same, keys)
    np.testing.assert_array_equal(many.tokens.ids, answers.ids)
    np.testing.assert_allclose(many.log_probs.sum(axis=1), log_probability, atol=1e-5)


def test_several_policies_write_what_each_would_write_alone(policy):
    other = jax.tree.map(lambda leaf: leaf * 0.5, policy.network)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), policy.network, other)
    run = jax.jit(
        jax.vmap(
            lambda network: jax.vmap(lambda p, k: dataclasses.replace(policy, network=network).sample(p, None, key=k)[0].ids)(
                PROMPTS, KEYS
            )
        )
    )
    ids = run(both)
    np.testing.assert_array_equal(ids[0], sample(policy, PROMPTS, KEYS)[0].ids)
    np.testing.assert_array_equal(ids[1], sample(dataclasses.replace(policy, network=other), PROMPTS, KEYS)[0].ids)


def test_top_k_and_top_p_keep_what_sorting_keeps():
    random = np.random.default_rng(0)
    logits = random.normal(size=(64, 50)).astype(np.float32) * 2
    policy = (
        lab.Language(width=8, layers=1, heads=1).build(SPEC, key=jax.random.key(0)).sampled(temperature=0.8, top_k=7, top_p=0.6)
    )
    draw = jax.jit(jax.vmap(lambda u: drawn(jnp.asarray(logits), jnp.full(64, u), policy.sampling)))
    seen = np.asarray(draw(jnp.linspace(0, 0.9999, 200)))
    for row in range(64):
        weight = np.exp(logits[row] / 0.8)
        order = np.argsort(-weight)[:7]
        share = weight[order] / weight[order].sum()
        kept = order[: np.searchsorted(np.cumsum(share), 0.6) + 1]
        assert set(seen[:, row]) == set(kept)
        counts = np.array([(seen[:, row] == i).mean() for i in kept])
        np.testing.assert_allclose(counts, weight[kept] / weight[kept].sum(), atol=0.01)


def test_a_temperature_or_a_cut_compiles_nothing_anew(policy):
    before = sample._cache_size()
    sample(policy.sampled(temperature=0.1, top_k=3, top_p=0.5), PROMPTS, KEYS)
    assert sample._cache_size() == before


def test_the_mode_is_greedy(policy):
    mode = policy.mode()
    first = mode.act(of(0, PROMPTS), None, key=KEYS[0])[0]
    np.testing.assert_array_equal(first.ids, mode.act(of(0, PROMPTS), None, key=KEYS[1])[0].ids)
    logits = policy.token_logits(joined(of(0, PROMPTS), first))
    assert int(first.ids[0]) == int(jnp.argmax(logits[2]))


def test_a_stop_string_is_found_across_tokens():
    spelling = [b"", b"a", b"ab", b"ba", b"b", b"\n", b"xaby"]
    stops = stops_for(["aab", "\n"], spelling)
    table, complete = np.asarray(stops.table), stops.table.shape[0] - 1

    def runs(*ids):
        state = 0
        for i in ids:
            state = table[state, i]
        return state == complete

    assert runs(1, 2)
    assert runs(3, 1, 4)
    assert runs(1, 0, 1, 4)
    assert runs(4, 5)
    assert not runs(1, 3)
    assert not runs(2, 2)
    assert runs(1, 1, 1, 4)
    with pytest.raises(lab.BadInput, match="empty"):
        stops_for([""], spelling)


def test_writing_stops_where_the_string_is_complete(policy, written):
    stopped = policy.sampled(stop=["b"])
    ids, kind = (np.asarray(part) for part in sample(stopped, PROMPTS, KEYS)[0].__dict__.values())
    for row in range(3):
        full = np.asarray(written[0].ids[row])
        where = np.flatnonzero(full == 5)
        if len(where):
            np.testing.assert_array_equal(ids[row][kind[row] == 2], full[: where[0] + 1])
    assert (ids == 5).any()


def test_choices_are_compared_by_their_log_probabilities(policy):
    options = TOKENIZER.tokens(["a", "b", "cc"])
    chances = policy.choice(of(0, PROMPTS), options, key=KEYS[0])
    answers = TOKENIZER.tokens(["a", "b", "cc"], kind=2)
    same = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[0], (3, *leaf.shape[1:])), PROMPTS)
    by_hand = np.asarray(log_prob(policy, window_of(same, answers)))
    np.testing.assert_allclose(chances, np.exp(by_hand) / np.exp(by_hand).sum(), atol=1e-5)


def test_it_learns_a_sentence_and_its_sampling_is_never_trained(policy):
    text = TOKENIZER.tokens(["cab cab\n"] * 2, kind=2, ended=True)
    optimiser = optax.adamw(1e-2)

    @jax.jit
    def learn(state):
        loss = lambda p: (-p.log_probs(text).sum(), None)
        step = lambda state, _: descend(state, loss, optimiser)[:2]
        return jax.lax.scan(step, state, length=60)

    fresh = Language(width=32, layers=1, heads=2).build(SPEC, key=jax.random.key(0)).sampled(temperature=0.7)
    state, losses = learn(trained(fresh, optimiser))
    assert losses[-1] < 0.5 < losses[0]
    np.testing.assert_array_equal(state.model.sampling.temperature, fresh.sampling.temperature)


def test_checkpointing_changes_no_gradient():
    text = TOKENIZER.tokens(["cab cab\n"], kind=2)
    slope = jax.jit(jax.grad(lambda policy: policy.log_probs(text).sum(), allow_int=True))
    kept, anew = (
        slope(Language(width=8, layers=2, heads=1, checkpointing=on).build(SPEC, key=jax.random.key(0))) for on in (False, True)
    )
    for a, b in zip(jax.tree.leaves(kept.network), jax.tree.leaves(anew.network), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_settings_that_cannot_be_are_told():
    with pytest.raises(lab.BadInput, match="for texts"):
        Language().build(lab.Spec(lab.Box((3,)), lab.Discrete(2)), key=jax.random.key(0))
    fresh = Language(width=8, layers=1, heads=2).build(SPEC, key=jax.random.key(0))
    for wrong in ({"temperature": 0.0}, {"top_p": 0.0}, {"top_k": -1}, {"answer": 0}):
        with pytest.raises(lab.BadInput):
            fresh.sampled(**wrong)
    with pytest.raises(lab.BadInput, match="multiple"):
        Language(width=10, heads=4).build(SPEC, key=jax.random.key(0))
