"""Every preference loss against numbers written out in NumPy, and policies that move towards what was preferred."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.hyperparameters import traced
from policylab.learner import Clock
from policylab.policies.answering import pair_log_prob
from policylab.policies.tabular import TabularPolicy

H = np.array([0.7, -1.3, 2.5, 0.0])
P = np.array([1.0, 0.0, 0.75, 1.0])
CLOCK = Clock(jnp.asarray(0), jnp.asarray(1))


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


ONE_SIDED = {
    "sigmoid": lambda h, beta: -log_sigmoid(beta * h),
    "ipo": lambda h, beta: (h - 1 / (2 * beta)) ** 2,
    "hinge": lambda h, beta: np.maximum(0.0, 1 - beta * h),
}


@pytest.mark.parametrize("loss", ONE_SIDED)
@pytest.mark.parametrize("labels", ["as_given", "conservative", "robust"])
def test_losses_are_those_of_the_papers(loss, labels):
    beta, flips = 0.3, 0.2
    win, lose = ONE_SIDED[loss](H, beta), ONE_SIDED[loss](-H, beta)
    as_labelled, reversed_ = P * win + (1 - P) * lose, P * lose + (1 - P) * win
    expected = {
        "as_given": as_labelled,
        "conservative": (1 - flips) * as_labelled + flips * reversed_,
        "robust": ((1 - flips) * as_labelled - flips * reversed_) / (1 - 2 * flips),
    }[labels]
    learner = lab.DPO(beta=beta, loss=loss, labels=labels, flips=flips)
    np.testing.assert_allclose(learner.losses(jnp.asarray(H), jnp.asarray(P)), expected, rtol=2e-5, atol=1e-6)


def test_robust_labels_are_unbiased_and_without_flips_change_nothing():
    clean = lab.DPO(beta=0.3).losses(jnp.asarray(H), jnp.ones(4))
    learner = lab.DPO(beta=0.3, labels="robust", flips=0.2)
    right, flipped = learner.losses(jnp.asarray(H), jnp.ones(4)), learner.losses(jnp.asarray(H), jnp.zeros(4))
    np.testing.assert_allclose(0.8 * right + 0.2 * flipped, clean, rtol=1e-5, atol=1e-6)
    without = traced(lab.DPO(beta=0.3, labels="robust", flips=0.0)).losses(jnp.asarray(H), jnp.asarray(P))
    assert np.array_equal(without, traced(lab.DPO(beta=0.3)).losses(jnp.asarray(H), jnp.asarray(P)))


def test_the_loss_of_a_batch_comes_from_the_log_ratios_of_both_policies():
    random = np.random.default_rng(0)
    tables = random.standard_normal((2, 3, 4)).astype(np.float32)
    state, a, b, weight = np.array([0, 2, 1]), np.array([1, 3, 0]), np.array([2, 0, 3]), np.array([1.0, 2.0, 0.5])
    p = np.array([1.0, 0.0, 1.0])
    start, reference = (TabularPolicy(jnp.asarray(table)) for table in tables)
    learner = lab.DPO(beta=0.5)
    spec = lab.Spec(lab.Discrete(3), lab.Discrete(4))
    begun = learner.init(spec, key=jax.random.key(0), given={"start": start, "reference": reference})
    columns = (jnp.asarray(x) for x in (state, a, b, p.astype(np.float32), weight.astype(np.float32)))
    after, metrics = learner.update(begun, lab.Preference(*columns), clock=CLOCK, key=jax.random.key(0))
    log = tables - np.log(np.exp(tables).sum(axis=-1, keepdims=True))
    ratio = log[0] - log[1]
    h = ratio[state, a] - ratio[state, b]
    each = -p * log_sigmoid(0.5 * h) - (1 - p) * log_sigmoid(-0.5 * h)
    assert float(metrics["loss"]) == pytest.approx(float((weight * each).sum() / weight.sum()), rel=1e-5)
    assert float(metrics["accuracy"]) == pytest.approx(float((weight * ((2 * p - 1) * h > 0)).sum() / weight.sum()))
    assert np.array_equal(after["reference"].table, tables[1])
    scored = learner.products(begun)["reward"]
    assert float(scored.score(jnp.asarray(2), jnp.asarray(3))) == pytest.approx(0.5 * ratio[2, 3], rel=1e-4)


def test_kto_is_the_papers_loss_with_a_shifted_estimate_of_the_divergence():
    beta, ratio, mismatched, good = 0.2, np.array([0.5, -1.0, 2.0]), np.array([0.4, 0.9, -0.1]), np.array([1.0, 0.0, 1.0])
    learner = lab.KTO(beta=beta, desirable=1.5, undesirable=0.5)
    z, sigmoid = mismatched.mean(), lambda x: 1 / (1 + np.exp(-x))
    expected = np.where(good == 1, 1.5 * (1 - sigmoid(beta * (ratio - z))), 0.5 * (1 - sigmoid(beta * (z - ratio))))
    given = (jnp.asarray(x) for x in (ratio, mismatched, good))
    np.testing.assert_allclose(learner.losses(*given), expected, rtol=1e-5)
    below = learner.losses(jnp.asarray(ratio), -jnp.ones(3), jnp.asarray(good))
    np.testing.assert_allclose(below[0], 1.5 * (1 - sigmoid(beta * 0.5)), rtol=1e-5)


def continuous_pairs():
    """Torques near the observation's first two numbers are preferred to others."""
    random = np.random.default_rng(1)
    observation = random.uniform(-1, 1, (256, 2)).astype(np.float32)
    a, b = random.uniform(-1, 1, (2, 256, 2)).astype(np.float32)
    p = (((a - observation) ** 2).sum(1) < ((b - observation) ** 2).sum(1)).astype(np.float32)
    spec = lab.Spec(lab.Box((2,)), lab.Box((2,), -1.0, 1.0))
    return lab.Preferences.of(observation, a, b, p, spec=spec), observation, a, b, p


def discrete_pairs():
    """Of three choices that of the larger number is preferred."""
    random = np.random.default_rng(2)
    observation = random.standard_normal((256, 3)).astype(np.float32)
    a = random.integers(0, 3, 256)
    b = (a + random.integers(1, 3, 256)) % 3
    rows = np.arange(256)
    p = (observation[rows, a] > observation[rows, b]).astype(np.float32)
    return lab.Preferences.of(observation, a, b, p, spec=lab.Spec(lab.Box((3,)), lab.Discrete(3))), observation, a, b, p


@pytest.mark.parametrize(("pairs", "form"), [(continuous_pairs, lab.Gaussian), (discrete_pairs, lab.Categorical)])
def test_one_file_aligns_torques_and_choices(pairs, form):
    source, observation, a, b, p = pairs()
    learner = lab.DPO(learning_rate=1e-2, batch_size=64, policy=form(width=16, depth=1))
    run = lab.train(learner, source, steps=120)
    first, second = pair_log_prob(run.policy(), *(jnp.asarray(x) for x in (observation, a, b)))
    agreed = float(np.mean((np.asarray(first) > np.asarray(second)) == (p == 1)))
    assert agreed > 0.85
    assert run.metrics[-1]["metrics"]["margin"][0] > 0.1


def test_kto_learns_from_good_and_bad_answers():
    random = np.random.default_rng(3)
    prompt, sample = random.standard_normal((256, 3)).astype(np.float32), random.integers(0, 3, 256)
    good = (sample == prompt.argmax(1)).astype(np.float32)
    source = lab.Ratings.of(prompt, sample, good, spec=lab.Spec(lab.Box((3,)), lab.Discrete(3)))
    learner = lab.KTO(learning_rate=1e-2, beta=1.0, policy=lab.Categorical(width=16, depth=1))
    policy = lab.train(learner, source, steps=120).policy().mode()
    chosen = jax.vmap(lambda o: policy.act(o, None, key=jax.random.key(0))[0])(jnp.asarray(prompt))
    assert float(np.mean(np.asarray(chosen) == prompt.argmax(1))) > 0.85


def test_everything_at_every_update_and_a_wrong_source_is_one_sentence():
    source = discrete_pairs()[0]
    run = lab.train(lab.DPO(batch_size=0, learning_rate=1e-2, policy=lab.Categorical(width=8, depth=1)), source, steps=2)
    assert np.isfinite(run.metrics[-1]["metrics"]["loss"]).all()
    with pytest.raises(lab.BadInput, match="choose a learner of pairs"):
        lab.train(lab.BC(), source, steps=1)
