"""Advantages and normalisations of groups of answers, each against numbers written out in NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.learner import Clock
from policylab.policies.tabular import TabularPolicy

REWARD = np.array([[1.0, 0.0, 0.5], [0.0, 2.0, 0.25]])
PARTS = np.arange(4) < np.array([[4, 2, 1], [3, 3, 4]])[..., None]
DRIFT = np.random.default_rng(0).standard_normal((2, 3, 4))
WEIGHT = np.array([[1.0, 1.0, 0.5], [1.0, 0.0, 1.0]])


def expected(mode, kl):
    reward = REWARD - kl * (DRIFT * PARTS).sum(-1)
    if mode == "batch":
        to_go = np.array(
            [
                [[sum(DRIFT[i, j, t] for t in range(s, 4) if PARTS[i, j, t]) for s in range(4)] for j in range(3)]
                for i in range(2)
            ]
        )
        gain = REWARD[..., None] - kl * to_go
        return np.where(PARTS, (gain - gain[PARTS].mean()) / gain[PARTS].std(), 0.0)
    apart = {
        "group": (reward - reward.mean(1, keepdims=True)) / reward.std(1, keepdims=True),
        "centred": reward - reward.mean(1, keepdims=True),
        "leave_one_out": reward - (reward.sum(1, keepdims=True) - reward) / 2,
        "group_batch": (reward - reward.mean(1, keepdims=True)) / reward.std(),
    }[mode]
    return apart[..., None] * PARTS


@pytest.mark.parametrize("kl", [0.0, 0.3])
@pytest.mark.parametrize("mode", ["group", "centred", "leave_one_out", "batch", "group_batch"])
def test_advantages_are_those_of_the_papers(mode, kl):
    learner = lab.GroupPolicyGradient(advantage=mode, anchor="reward", kl=kl, group=3)
    got = learner.advantages(jnp.asarray(REWARD), jnp.asarray(DRIFT), jnp.asarray(PARTS))
    np.testing.assert_allclose(got, expected(mode, kl), rtol=1e-4, atol=1e-5)


def test_an_answer_like_all_others_of_its_group_teaches_nothing():
    same = jnp.ones((1, 3)) * 0.1
    for mode in ("group", "centred", "leave_one_out", "group_batch"):
        got = lab.GroupPolicyGradient(advantage=mode, group=3).advantages(same, jnp.zeros((1, 3, 2)), jnp.ones((1, 3, 2), bool))
        assert float(jnp.abs(got).max()) < 1e-2


@pytest.mark.parametrize("mode", ["answer", "part", "constant"])
def test_normalisations_are_those_of_the_papers(mode):
    each = np.random.default_rng(1).standard_normal((2, 3, 4))
    weighted = each * PARTS * WEIGHT[..., None]
    wanted = {
        "answer": (weighted.sum(-1) / PARTS.sum(-1)).sum() / WEIGHT.sum(),
        "part": weighted.sum() / (PARTS * WEIGHT[..., None]).sum(),
        "constant": weighted.sum() / (WEIGHT.sum() * 4),
    }[mode]
    got = lab.GroupPolicyGradient(normalisation=mode).normalised(*(jnp.asarray(x) for x in (each, PARTS, WEIGHT)))
    assert float(got) == pytest.approx(wanted, rel=1e-5)


def test_ratios_count_up_to_a_bound_of_their_own_on_each_side():
    learner = lab.GroupPolicyGradient(clip_low=0.1, clip_high=0.3)
    ratio, advantage = np.array([[[0.5, 0.5, 2.0, 2.0, 1.0]]]), np.array([[[1.0, -1.0, 1.0, -1.0, 3.0]]])
    got = learner.clipped(jnp.log(jnp.asarray(ratio)), jnp.asarray(advantage))
    np.testing.assert_allclose(got, [[[0.5, -0.9, 1.3, -2.0, 3.0]]], rtol=1e-5)


def test_one_step_is_along_the_policy_gradient_and_away_from_no_reference():
    """Of a table: the gradient of the surrogate at ratio 1 is that of mean A log pi, whatever is clipped; the divergence adds none at the start."""
    table, sample = jnp.asarray([[0.3, -0.2, 0.1]]), jnp.asarray([[0, 2], [1, 0]])
    learner = lab.GroupPolicyGradient(group=2, advantage="centred", learning_rate=0.1, batch_size=2)
    spec = lab.Spec(lab.Discrete(1), lab.Discrete(3))
    state = learner.init(spec, key=jax.random.key(0), given={"start": TabularPolicy(table)})
    reward = jnp.asarray([[1.0, 0.0], [0.0, 3.0]])
    ends = jnp.ones((2, 2, 1), bool)
    batch = lab.Rated(jnp.zeros(2, jnp.int32), sample, reward[..., None], ends, jnp.ones((2, 2)), jnp.zeros((2, 2), jnp.int32))
    after, metrics = learner.update(state, batch, clock=Clock(jnp.asarray(0), jnp.asarray(1)), key=jax.random.key(0))
    advantage = reward - reward.mean(1, keepdims=True)
    gradient = jax.grad(lambda t: jnp.mean(advantage * jax.nn.log_softmax(t[0])[sample]))(table)
    moved = np.asarray(after["policy"].model.table - table)
    np.testing.assert_allclose(moved, 0.1 * np.sign(gradient), atol=1e-4)
    assert float(metrics["kl"]) == 0.0
    assert float(metrics["log_ratio"]) == 0.0
    assert float(metrics["reward"]) == pytest.approx(1.0)


def test_groups_of_the_policys_own_answers_find_the_best_choice():
    class Wanted(lab.Scorer):
        def scores(self, observation, action):
            return (action == observation)[None].astype(jnp.float32)

    spec = lab.Spec(lab.Discrete(4), lab.Discrete(4))
    source = lab.Responses.of(np.arange(4), Wanted(), spec=spec)
    learner = lab.GroupPolicyGradient(policy=lab.Tabular(), learning_rate=0.05, batch_size=8, epochs=2, anchor="none")
    policy = lab.train(learner, source, steps=80).policy()
    assert float(jnp.mean(jnp.diag(jax.nn.softmax(policy.table)))) > 0.9
