"""PPO of texts: advantages of a transcript of two turns by hand, the loss in NumPy, and a policy and a value that are learned."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.learner import Clock
from policylab.learners.reasoning.token_ppo import advantages, transcript
from policylab.policies.generation import joined

TOKENIZER = lab.characters("ab?")
SPEC = lab.text_spec(TOKENIZER, prompt=4, answer=6)
FORM = lab.Language(width=16, layers=1, heads=2)
CLOCK = Clock(jnp.asarray(0), jnp.asarray(1))
# Two rows: "a?" answered by two turns with a given token between them, and "b" by one short turn.
PROMPT = lab.Tokens(jnp.asarray([[4, 6, 0, 0], [5, 0, 0, 0]]), jnp.asarray([[1, 1, 0, 0], [1, 0, 0, 0]]))
SAMPLE = lab.Tokens(
    jnp.asarray([[4, 5, 6, 4, 1, 0], [5, 1, 0, 0, 0, 0]]), jnp.asarray([[2, 2, 1, 2, 2, 0], [2, 2, 0, 0, 0, 0]])
)
REWARD = jnp.asarray([[0.0, 0.5, 0.25, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 0.0, 0.0, 0.0]])

FOUR_LETTERS = lab.Tokens(jnp.asarray([4, 4, 4, 4]), jnp.full(4, 2))


def batch(weight=(1.0, 1.0)):
    return lab.Rated(PROMPT, SAMPLE, REWARD, REWARD > 0, jnp.asarray(weight), jnp.zeros(2, jnp.int32))


@pytest.fixture(scope="module")
def start():
    return FORM.build(SPEC, key=jax.random.key(0))


def test_advantages_of_two_turns_are_those_of_their_tokens_one_after_the_other():
    _, reward, written = transcript(batch())
    assert np.asarray(written[0]).tolist() == [False, False, True, True, False, True, True, False, False, False]
    assert np.asarray(reward[0]).tolist() == [0, 0, 0, 0.5, 0.25, 0, 1, 0, 0, 0]
    value = np.random.default_rng(0).standard_normal((2, 10)).astype(np.float32)
    got = np.asarray(advantages(reward, jnp.asarray(value), written, discount=0.9, trace=0.8))
    v = value[0, [2, 3, 5, 6]]  # what was given between the turns is no step, and its reward belongs to the step before
    r, after, later, wanted = [0.0, 0.75, 0.0, 1.0], 0.0, 0.0, []
    for step in (3, 2, 1, 0):
        later = r[step] + 0.9 * after - v[step] + 0.9 * 0.8 * later
        after = v[step]
        wanted.insert(0, later)
    np.testing.assert_allclose(got[0, [2, 3, 5, 6]], wanted, rtol=1e-5)
    assert not got[0, [0, 1, 4, 7, 8, 9]].any()
    assert got[1, 2] == pytest.approx(-1.0 - value[1, 2], rel=1e-5)


def test_the_first_pass_is_the_policy_gradient_of_the_whitened_advantages_and_the_error_of_the_value(start):
    """At ratio 1, of values that are 0: surrogate -mean(A) = 0, error half the mean square of the returns, in which the divergence counts."""
    reference = FORM.build(SPEC, key=jax.random.key(1))
    learner = lab.TokenPPO(epochs=1, batch_size=2, kl=0.3, discount=0.9, trace=0.8)
    state = learner.init(SPEC, key=jax.random.key(0), given={"start": start, "reference": reference})
    _, metrics = jax.jit(lambda: learner.update(state, batch(), clock=CLOCK, key=jax.random.key(0)))()
    _, reward, written = transcript(batch())
    own, other = (np.asarray(policy.log_probs(joined(PROMPT, SAMPLE))) for policy in (start, reference))
    net = np.asarray(reward) - 0.3 * np.where(written, own - other, 0.0)
    goals = []
    for row, places in ((0, [2, 3, 5, 6]), (1, [1, 2])):
        earned = net[row, places] + np.array([0.0, 0.25, 0.0, 0.0])[: len(places)] * (row == 0)
        goals += [sum(0.72 ** (k - t) * earned[k] for k in range(t, len(places))) for t in range(len(places))]
    assert float(metrics["surrogate"]) == pytest.approx(0.0, abs=1e-5)
    assert float(metrics["value_loss"]) == pytest.approx(0.5 * np.mean(np.square(goals)), rel=1e-3)
    assert float(metrics["kl"]) == pytest.approx(np.where(written, own - other, 0.0).sum(1).mean(), rel=1e-3)
    assert float(metrics["entropy"]) == pytest.approx(-own[np.asarray(written)].mean(), rel=1e-3)


def test_letters_that_are_paid_for_are_written_the_value_foretells_them_and_the_run_is_kept(start, tmp_path):
    class Letters(lab.Scorer):
        """How many letters are a, each where it stands."""

        def scores(self, observation, action):
            return ((action.ids == 4) & (action.kind == 2)).astype(jnp.float32)

    learner = lab.TokenPPO(learning_rate=1e-2, batch_size=16, kl=0.01, value_weight=0.5, epochs=2, policy=FORM)
    asked = lab.Responses.of(TOKENIZER.tokens(["a?", "b?"], length=4), Letters(), spec=SPEC)
    run = lab.train(learner, asked, steps=30, given={"start": start})
    rewards = [row["metrics"]["reward"][0] for row in run.metrics]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 2.0
    value = run.products(seed=0)["value"]
    prompt = jax.tree.map(lambda leaf: leaf[0], TOKENIZER.tokens(["a?"], length=8))
    foretold = [float(value(prompt)), float(value(joined(prompt, FOUR_LETTERS)))]
    assert foretold[0] > foretold[1] + 1.0  # before any letter is written there is more to come
    run.save(tmp_path / "run")
    again = lab.load_run(tmp_path / "run").policy()
    for old, new in zip(jax.tree.leaves(run.policy()), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(np.asarray(old), np.asarray(new))


def test_what_is_no_text_is_refused(start):
    with pytest.raises(lab.BadInput, match="for texts"):
        lab.TokenPPO().init(lab.Spec(lab.Discrete(2), lab.Discrete(2)), key=jax.random.key(0))
    tuned = lab.adapt(start, rank=2, lines=("query",), key=jax.random.key(2))
    learner = dataclasses.replace(lab.TokenPPO(batch_size=2), anchor="loss")
    state = learner.init(SPEC, key=jax.random.key(0), given={"start": tuned})
    assert state["reference"] is None  # it is inside
    assert learner.products(state)["reference"] is tuned.base.policy
