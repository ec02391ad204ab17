"""Learners on their own answers and on scored ones: losses in NumPy, directions, and the optimum that each is known to have."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.learner import Clock
from policylab.policies.tabular import TabularPolicy

ROCK_PAPER_SCISSORS = jnp.asarray([[[0.5, 0.1, 0.9], [0.9, 0.5, 0.1], [0.1, 0.9, 0.5]]])
SPEC = lab.Spec(lab.Discrete(1), lab.Discrete(3))
CLOCK = Clock(jnp.asarray(0), jnp.asarray(1))


def test_inpo_regresses_on_half_over_eta_and_its_minimum_is_mirror_descent():
    learner = lab.INPO(tau=0.1, eta=0.4)
    h, p = np.array([0.3, -2.0]), np.array([1.0, 0.25])
    expected = p * (h - 1 / 0.8) ** 2 + (1 - p) * (h + 1 / 0.8) ** 2
    np.testing.assert_allclose(learner.losses(jnp.asarray(h), jnp.asarray(p)), expected, rtol=1e-6)
    random = np.random.default_rng(0)
    reference, iterate = (np.log(random.dirichlet(np.ones(3))) for _ in range(2))
    wins = np.asarray(ROCK_PAPER_SCISSORS[0])
    target = wins @ np.exp(iterate) / 0.4 + 0.25 * reference + 0.75 * iterate
    pairs = [(i, j) for i in range(3) for j in range(3)]
    mass = jnp.asarray([np.exp(iterate[i] + iterate[j]) for i, j in pairs])
    a, b = (jnp.asarray([pair[k] for pair in pairs]) for k in range(2))
    gap = lambda x: x[a] - x[b]

    def loss(x):
        h = gap(x) - 0.25 * gap(jnp.asarray(reference)) - 0.75 * gap(jnp.asarray(iterate))
        return jnp.sum(mass * learner.losses(h, jnp.asarray(wins)[a, b]))

    assert float(jnp.abs(jax.grad(loss)(jnp.asarray(target))).max()) < 1e-5


@pytest.fixture(scope="module")
def played():
    """INPO on rock, paper, scissors from a skewed start, at an eta at which one iteration is a step of a third of a nat."""
    start = TabularPolicy(jnp.asarray([[1.0, 0.0, -1.0]]))
    learner = lab.INPO(tau=0.2, eta=1.0, every=40, learning_rate=0.05, batch_size=256)
    source = lab.Comparisons.of(np.zeros(1, np.int32), lab.PreferenceTable(ROCK_PAPER_SCISSORS), spec=SPEC, sampled=True)
    return lab.train(learner, source, steps=1200, given={"start": start})


def test_inpo_on_comparisons_of_its_own_answers_reaches_the_nash_policy(played):
    wins, reference = np.asarray(ROCK_PAPER_SCISSORS[0]), np.array([1.0, 0.0, -1.0])
    nash = np.ones(3) / 3
    for _ in range(2000):  # the fixed point pi ~ ref exp(P(. > pi) / tau), by damped iteration
        step = np.exp(reference + wins @ nash / 0.2)
        nash = nash**0.95 * (step / step.sum()) ** 0.05
        nash /= nash.sum()
    found = np.asarray(jax.nn.softmax(played.policy().table[0]))
    assert np.abs(found - nash).max() < 0.06
    assert set(played.products(seed=0)) == {"policy", "explorer", "reference"}


def test_gpo_regresses_on_how_an_answer_does_against_its_group():
    random = np.random.default_rng(1)
    ratio, gain = random.standard_normal((2, 4, 3))
    expected = (ratio - (gain - gain.mean(1, keepdims=True)) / 0.7) ** 2
    np.testing.assert_allclose(lab.GPO(beta=0.7).losses(jnp.asarray(ratio), jnp.asarray(gain)), expected, rtol=1e-5)


def test_copg_goes_along_the_gradient_of_its_pairwise_loss_and_of_rloo():
    random = np.random.default_rng(2)
    table, reference = random.standard_normal((2, 1, 3)).astype(np.float32)
    sample, reward = np.array([[0, 2], [1, 0], [2, 1]]), random.standard_normal((3, 2))
    learner = lab.CoPG(beta=0.3)
    log = lambda x: jax.nn.log_softmax(x[0])

    def pairwise(x):
        ratio = (log(x) - log(jnp.asarray(reference)))[sample]
        error = (reward[:, 0] - reward[:, 1]) - 0.3 * (ratio[:, 0] - ratio[:, 1])
        return jnp.mean(error**2) / 0.6

    def surrogate(x):
        ratio = (log(x) - log(jnp.asarray(reference)))[sample]
        gain = jax.lax.stop_gradient(learner.advantages(jnp.asarray(reward), ratio))
        return -jnp.mean(jnp.sum(gain * log(x)[sample], axis=1))

    at = jnp.asarray(table)
    np.testing.assert_allclose(jax.grad(surrogate)(at), jax.grad(pairwise)(at), rtol=1e-4, atol=1e-5)
    four = random.standard_normal((2, 4))
    loo = four - (four.sum(1, keepdims=True) - four) / 3
    got = lab.CoPG(beta=0.1, group=4).advantages(jnp.asarray(four), jnp.zeros((2, 4)))
    np.testing.assert_allclose(got, loo, rtol=1e-5, atol=1e-6)
    plain = lab.CoPG(beta=0.1, baseline="none").advantages(jnp.asarray(four), jnp.ones((2, 4)))
    np.testing.assert_allclose(plain, four - 0.1, rtol=1e-5, atol=1e-6)


def test_copg_finds_the_optimum_from_answers_of_another_policy():
    random = np.random.default_rng(3)
    reward = np.array([0.2, 0.9, -0.4])
    sample = random.choice(3, p=[0.7, 0.1, 0.2], size=(512, 2))
    source = lab.Ratings.of(np.zeros(512, np.int32), sample, reward[sample], spec=SPEC)
    learner = lab.CoPG(beta=0.5, learning_rate=0.02, batch_size=128)
    run = lab.train(learner, source, steps=300, given={"start": TabularPolicy(jnp.zeros((1, 3)))})
    best = np.exp(reward / 0.5) / np.exp(reward / 0.5).sum()
    np.testing.assert_allclose(jax.nn.softmax(run.policy().table[0]), best, atol=0.01)


def test_iterated_dpo_answers_with_the_policy_of_the_last_iteration():
    learner = lab.Iterated(lab.DPO(policy=lab.Tabular(), learning_rate=0.1, batch_size=8), every=2, follow=True)
    source = lab.Comparisons.of(np.zeros(2, np.int32), lab.PreferenceTable(ROCK_PAPER_SCISSORS), spec=SPEC).serve(learner.needs)
    state = learner.init(SPEC, key=jax.random.key(0))
    update = jax.jit(lambda state, step, key: learner.update(
        state, source.next(None, learner.products(state), clock=CLOCK, key=key)[1], clock=Clock(step, jnp.asarray(4)), key=key)[0]
    )  # fmt: skip
    tables = []
    for step in range(4):
        state = update(state, jnp.asarray(step), jax.random.key(10 + step))
        tables.append(tuple(np.asarray(learner.products(state)[name].table) for name in ("policy", "explorer", "reference")))
    assert np.all(tables[0][1] == 0.0)
    assert not np.array_equal(tables[0][0], tables[0][1])
    for later in (1, 3):
        assert np.array_equal(tables[later][0], tables[later][1])
        assert np.array_equal(tables[later][0], tables[later][2])
    assert np.array_equal(tables[2][1], tables[1][0])


def test_responses_are_rated_by_the_comparisons_that_they_win():
    source = lab.Responses.of(np.zeros(2, np.int32), lab.PreferenceTable(ROCK_PAPER_SCISSORS), spec=SPEC, by="win_rate")
    served = source.serve({"answers": lab.Answers(4, group=3)})
    batch = served.next(None, {"explorer": TabularPolicy(jnp.zeros((1, 3)))}, clock=CLOCK, key=jax.random.key(0))[1]
    wins, sample = np.asarray(ROCK_PAPER_SCISSORS[0]), np.asarray(batch.sample)
    for row in range(4):
        for i in range(3):
            others = [wins[sample[row, i], sample[row, j]] for j in range(3) if j != i]
            assert float(batch.reward[row, i, 0]) == pytest.approx(np.mean(others), abs=1e-6)
    with pytest.raises(lab.BadInput, match="win rates need two"):
        source.serve({"answers": lab.Answers(4)})
