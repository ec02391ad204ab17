"""Batches that are refilled hold kept rows alone, keep their shape, and count what they cost."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.learner import Clock
from policylab.sources.refill import PassRate
from tests.small import continuous_dataset

CLOCK = Clock(jnp.asarray(0), jnp.asarray(1))
SPEC = lab.Spec(lab.Discrete(8), lab.Discrete(2))


class Right(lab.Scorer):
    """Choice 1 is right, whatever the prompt."""

    def scores(self, observation, action):
        return (action == 1)[None].astype(jnp.float32)


class Chances(lab.Policy):
    """Choice 1 with a chance that differs between prompts."""

    chance: jax.Array

    def act(self, observation, memory, *, key):
        return jax.random.bernoulli(key, self.chance[observation]).astype(jnp.int32), memory


def drawn(tries, rows, chance, seed=0):
    source = lab.Responses.of(np.arange(8), Right(), spec=SPEC)
    refill = lab.Refill(source, PassRate(), tries=tries).serve({"answers": lab.Answers(rows, group=4)})
    products = {"explorer": Chances(jnp.asarray(chance, jnp.float32))}

    @jax.jit
    def both(key):
        state, batch = refill.next(refill.init(products, key=key), products, clock=CLOCK, key=key)
        return state, batch, refill.source.next(None, products, clock=CLOCK, key=jax.random.fold_in(key, 0))[1]

    return both(jax.random.key(seed))


def test_only_prompts_whose_answers_differ_fill_the_batch():
    state, batch, first = drawn(50, 16, [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 1.0])
    rate = np.asarray(batch.reward[..., 0]).mean(1)
    assert rate.shape == (16,)
    assert ((rate > 0) & (rate < 1)).all()
    assert np.asarray(batch.weight).all()
    kept = np.flatnonzero((np.asarray(first.reward[..., 0]).mean(1) % 1) > 0)
    np.testing.assert_array_equal(batch.prompt[: len(kept)], np.asarray(first.prompt)[kept])  # in the order of drawing
    assert 1 < int(state.draws) <= 50
    assert int(state.kept) == int(state.asked) == 16


def test_what_cannot_be_filled_has_no_weight():
    state, batch, _ = drawn(3, 16, [1.0] * 8)
    assert batch.reward.shape == (16, 4, 1)
    assert not np.asarray(batch.weight).any()
    assert (int(state.draws), int(state.kept), int(state.asked)) == (3, 0, 16)
    learner = lab.GroupPolicyGradient.named("dapo", group=4, batch_size=16, policy=lab.Tabular())
    before = learner.init(SPEC, key=jax.random.key(0))
    after, _ = learner.update(before, batch, clock=CLOCK, key=jax.random.key(0))
    np.testing.assert_array_equal(after["policy"].model.table, before["policy"].model.table)


def test_training_counts_its_draws_and_every_kind_of_batch_can_be_filtered():
    source = lab.Refill(lab.Responses.of(np.arange(8), Right(), spec=SPEC), PassRate(), tries=8)
    learner = lab.GroupPolicyGradient.named("dapo", policy=lab.Tabular(), learning_rate=0.1, batch_size=8, group=4)
    run = lab.train(learner, source, steps=30, seeds=2)
    assert (np.asarray(run.source_state.draws) > 30).all()
    assert np.asarray(jax.nn.softmax(run.policy().table))[:, 1].mean() > 0.8
    steps = lab.Refill(continuous_dataset(), lambda batch: batch.reward > -1.0, tries=20).serve({"steps": lab.Steps(32)})
    _, batch = jax.jit(lambda key: steps.next(steps.init({}, key=key), {}, clock=CLOCK, key=key))(jax.random.key(0))
    assert np.asarray(batch.valid).all()
    assert (np.asarray(batch.reward) > -1.0).all()


def test_what_cannot_be_refilled_is_refused():
    source = lab.Responses.of(np.arange(8), Right(), spec=SPEC)
    with pytest.raises(lab.BadInput, match="one request"):
        lab.Refill(source, PassRate()).serve({"a": lab.Answers(4), "b": lab.Answers(4)})
    with pytest.raises(lab.BadInput, match="at least one draw"):
        lab.Refill(source, PassRate(), tries=0).serve({"a": lab.Answers(4, group=2)})
