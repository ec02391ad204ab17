"""Process reward models of texts: the loss of labelled steps against NumPy, and what their scores add up to."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

import policylab as lab
from policylab.experience import Rated
from policylab.learner import Clock
from policylab.learners.imitation.fit import Fit
from policylab.policies.language import text_spec
from policylab.scorers.process_reward import ProcessRewards
from policylab.tokenizer import characters

TOKENIZER = characters("012")
SPEC = text_spec(TOKENIZER, prompt=4, answer=4)


def test_labels_of_steps_are_fitted_and_scores_add_up_to_log_odds():
    form = ProcessRewards(lab.Language(width=8, layers=1, heads=2))
    learner = Fit(form, learning_rate=1e-2, batch_size=3)
    scorer = form.build(SPEC, key=jax.random.key(0))
    scorer = replace(scorer, head=replace(scorer.head, weight=jnp.linspace(-1.0, 1.0, 8)[:, None], bias=jnp.full(1, 0.3)))
    prompt = TOKENIZER.tokens(["01", "2101", "0"], length=4)
    answer = TOKENIZER.tokens(["012", "1", "22"], length=4, kind=2, ended=True)
    label = jnp.asarray([[1.0, 0, 0, 0], [1, 1, 0, 0], [0.25, 0, 0, 0]])
    ends = jnp.asarray([[True, True, False, True], [False, True, False, False], [True, False, True, False]])
    batch = Rated(prompt, answer, label, ends, jnp.ones(3), jnp.zeros(3, jnp.int32))

    @jax.jit
    def of(scorer, batch):
        said = jax.vmap(scorer.scores)(batch.prompt, batch.sample)
        return scorer.log_odds(batch.prompt, batch.sample), scorer.losses(batch, key=jax.random.key(0)), said

    odds, losses, scores = of(scorer, batch)
    odds = np.asarray(odds, np.float64)
    assert np.all(odds[np.asarray(answer.kind) == 0] == 0)
    right = 1.0 / (1.0 + np.exp(-odds))
    each = -np.where(label > 0, label * np.log(right), 0.0) - (1 - label) * np.log(1 - right)
    by_hand = (each * ends).sum(axis=1) / np.asarray(ends).sum(axis=1)
    np.testing.assert_allclose(losses, by_hand, rtol=1e-4)

    written = np.asarray(answer.kind) == 2
    np.testing.assert_allclose(np.cumsum(scores, axis=1)[written], odds[written], atol=1e-5)

    @jax.jit
    def run(learner):
        step = lambda state, i: learner.update(state, batch, clock=Clock(i, jnp.asarray(80)), key=jax.random.key(0))
        state, metrics = jax.lax.scan(step, learner.init(SPEC, key=jax.random.key(1)), jnp.arange(80))
        return learner.products(state)["reward"].log_odds(prompt, answer), metrics["loss"]

    odds, losses = run(learner)
    assert losses[-1] < 0.5 * losses[0]
    assert odds[0, 0] > 0 > odds[0, 1]
