"""Every switch of the policy gradient of groups, against numbers written out in NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.learner import Clock
from policylab.learners.reasoning.policy_gradient import NAMED
from policylab.policies.tabular import TabularPolicy
from policylab.policies.truncation import cut_off

PARTS = np.arange(4) < np.array([[4, 2, 1], [3, 3, 4]])[..., None]
REWARD = np.array([[1.0, 0.0, 0.5], [0.0, 2.0, 0.25]])
LAST = PARTS & ~np.pad(PARTS, ((0, 0), (0, 0), (0, 1)))[..., 1:]
OUTCOME = np.where(LAST, REWARD[..., None], 0.0)
PROCESS = np.random.default_rng(3).uniform(size=(2, 3, 4)) * PARTS
DRIFT = np.random.default_rng(0).standard_normal((2, 3, 4))
WEIGHT = np.array([[1.0, 1.0, 0.5], [1.0, 0.0, 1.0]])


def found(learner, reward, *, weight=np.ones((2, 3)), ends=LAST):
    arrays = (jnp.asarray(x) for x in (reward, DRIFT, PARTS, weight, ends))
    return np.asarray(learner.advantages(*arrays))


def expected(baseline, scale, credit, kl, weight):
    """Answer by answer, in lists."""
    to_go = lambda x: np.array([x[t:].sum() for t in range(4)])
    gains = {}
    for i in range(2):
        for j in range(3):
            net = PROCESS[i, j] - kl * DRIFT[i, j] * PARTS[i, j]
            gains[i, j] = (to_go(net) if credit == "part" else np.full(4, net.sum()), np.flatnonzero(PARTS[i, j]))
    numbers = lambda rows: np.concatenate(
        [gains[r][0][gains[r][1]] if credit == "part" else gains[r][0][:1] for r in rows if weight[r] > 0] or [np.zeros(1)]
    )
    out = np.zeros((2, 3, 4))
    everyone = list(gains)
    for i, j in everyone:
        group = [(i, k) for k in range(3)]
        means = {
            "group": numbers(group).mean(), "batch": numbers(everyone).mean(), "none": 0.0,
            "leave_one_out": numbers([r for r in group if r != (i, j)]).mean(),
        }  # fmt: skip
        stds = {"group": numbers(group).std(), "batch": numbers(everyone).std(), "none": 1.0}
        out[i, j] = (gains[i, j][0] - means[baseline]) / stds[scale] * PARTS[i, j]
    return out


@pytest.mark.parametrize("credit", ["answer", "part"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("baseline", ["group", "leave_one_out", "batch", "none"])
def test_advantages_are_what_is_credited_minus_a_mean_over_a_deviation(baseline, scale, credit):
    learner = lab.GroupPolicyGradient(baseline=baseline, scale=scale, credit=credit, anchor="reward", kl=0.3, group=3)
    for weight in (np.ones((2, 3)), WEIGHT):
        counted = weight[..., None] > 0  # an answer that does not count may have any advantage
        wanted = expected(baseline, scale, credit, 0.3, weight)
        np.testing.assert_allclose(found(learner, PROCESS, weight=weight) * counted, wanted * counted, rtol=1e-3, atol=1e-4)


def test_advantages_are_those_of_the_papers():
    apart, kl = REWARD - REWARD.mean(1, keepdims=True), 0.3
    cost = kl * DRIFT * PARTS
    late = REWARD - cost.sum(-1)
    to_go = REWARD[..., None] - np.flip(np.cumsum(np.flip(cost, -1), -1), -1)
    wanted = {
        "grpo": (apart / REWARD.std(1, keepdims=True))[..., None],
        "dr-grpo": apart[..., None],
        "rloo": (late - (late.sum(1, keepdims=True) - late) / 2)[..., None],
        "reinforce++": (to_go - to_go[PARTS].mean()) / to_go[PARTS].std(),
        "lite-ppo": (apart / REWARD.std())[..., None],
        "dapo": (apart / REWARD.std(1, keepdims=True))[..., None],
    }
    assert set(wanted) == set(NAMED)
    for name, advantage in wanted.items():
        learner = lab.GroupPolicyGradient.named(name, group=3, kl=kl)
        drift = DRIFT if learner.anchor == "reward" else 0 * DRIFT
        got = learner.advantages(*(jnp.asarray(x) for x in (OUTCOME, drift, PARTS, np.ones((2, 3)), LAST)))
        np.testing.assert_allclose(got, advantage * PARTS, rtol=1e-4, atol=1e-5, err_msg=name)


def test_rewards_of_steps_are_standardised_among_the_steps_and_summed_from_each_on():
    """DeepSeekMath, section 4.1.3: a token gets the sum of the standardised rewards of the steps that end at it or later."""
    ends = LAST | (PARTS & (np.arange(4) == 1))
    steps = np.where(ends, PROCESS, 0.0)
    got = found(lab.GroupPolicyGradient(credit="step", group=3), steps, ends=ends)
    for i in range(2):
        listed = PROCESS[i][ends[i]]
        for j in range(3):
            for t in np.flatnonzero(PARTS[i, j]):
                later = PROCESS[i, j][(np.arange(4) >= t) & ends[i, j]]
                assert got[i, j, t] == pytest.approx(((later - listed.mean()) / listed.std()).sum(), abs=1e-4)


def test_an_answer_like_all_others_of_its_group_teaches_nothing():
    same, ones = jnp.full((2, 3, 1), 0.1), jnp.ones((2, 3, 2), bool)
    for baseline, scale in (("group", "group"), ("group", "batch"), ("leave_one_out", "none"), ("batch", "batch")):
        learner = lab.GroupPolicyGradient(baseline=baseline, scale=scale, group=3)
        got = learner.advantages(same, jnp.zeros((2, 3, 2)), ones, jnp.ones((2, 3)), ones)
        assert float(jnp.abs(got).max()) < 1e-6


def test_credit_for_parts_needs_rewards_of_parts():
    learner, ones = lab.GroupPolicyGradient(credit="part", group=3), jnp.ones((2, 3, 2), bool)
    with pytest.raises(lab.BadInput, match="no reward for each part"):
        learner.advantages(jnp.ones((2, 3, 1)), jnp.zeros((2, 3, 2)), ones, jnp.ones((2, 3)), ones)
    with pytest.raises(lab.BadInput, match="dr-grpo"):
        lab.GroupPolicyGradient.named("gppo")


@pytest.mark.parametrize("mode", ["answer", "part", "constant"])
def test_normalisations_are_those_of_the_papers(mode):
    each = np.random.default_rng(1).standard_normal((2, 3, 4))
    weighted = each * PARTS * WEIGHT[..., None]
    wanted = {
        "answer": (weighted.sum(-1) / PARTS.sum(-1)).sum() / WEIGHT.sum(),
        "part": weighted.sum() / (PARTS * WEIGHT[..., None]).sum(),
        "constant": weighted.sum() / (WEIGHT.sum() * 4),
    }[mode]
    share = lab.GroupPolicyGradient(normalisation=mode).shares(jnp.asarray(PARTS), jnp.asarray(WEIGHT))
    assert float(jnp.sum(share * each)) == pytest.approx(wanted, rel=1e-5)


def test_ratios_count_up_to_a_bound_of_their_own_on_each_side():
    learner = lab.GroupPolicyGradient(clip_low=0.1, clip_high=0.3)
    ratio, advantage = np.array([[[0.5, 0.5, 2.0, 2.0, 1.0]]]), np.array([[[1.0, -1.0, 1.0, -1.0, 3.0]]])
    got = learner.clipped(jnp.log(jnp.asarray(ratio)), jnp.asarray(advantage))
    np.testing.assert_allclose(got, [[[0.5, -0.9, 1.3, -2.0, 3.0]]], rtol=1e-5)


def test_one_step_is_along_the_policy_gradient_and_away_from_no_reference():
    """Of a table: the gradient of the surrogate at ratio 1 is that of mean A log pi, whatever is clipped; the divergence adds none at the start."""
    table, sample = jnp.asarray([[0.3, -0.2, 0.1]]), jnp.asarray([[0, 2], [1, 0]])
    learner = lab.GroupPolicyGradient(group=2, scale="none", learning_rate=0.1, batch_size=2)
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
    assert float(metrics["gradient"]) == pytest.approx(float(jnp.linalg.norm(gradient)), rel=1e-4)
    likely = np.asarray(jax.nn.log_softmax(table[0]))[np.asarray(sample)]
    assert float(metrics["entropy"]) == pytest.approx(-likely.mean(), rel=1e-5)


def test_answers_that_were_cut_off_are_known_and_can_be_left_out():
    tokenizer = lab.characters("ab.")
    spec = lab.text_spec(tokenizer, prompt=4, answer=3)
    start = lab.Language(width=8, layers=1, heads=2).build(spec, key=jax.random.key(0))
    answers = jnp.asarray([[4, 5, 1], [4, 1, 0], [4, 5, 5], [4, 5, 6]])  # ended, ended early, cut off, ended by a stop string
    sample = lab.Tokens(answers, jnp.where(answers > 0, 2, 0))
    assert np.asarray(cut_off(start, sample)).tolist() == [False, False, True, True]
    assert np.asarray(cut_off(start.sampled(stop=["b."]), sample)).tolist() == [False, False, True, False]
    prompt = tokenizer.tokens(["a"], length=4)
    grouped = jax.tree.map(lambda leaf: leaf[None], sample)
    reward = jnp.zeros((1, 4, 3)).at[0, :, 2].set(jnp.asarray([1.0, 0.0, 5.0, 1.0]))
    batch = lab.Rated(prompt, grouped, reward, reward > 0, jnp.ones((1, 4)), jnp.zeros((1, 4), jnp.int32))
    masked = lab.GroupPolicyGradient.named("dapo", group=4, learning_rate=0.1)
    less = lab.Rated(prompt, grouped, reward, reward > 0, jnp.asarray([[1.0, 1.0, 0.0, 0.0]]), jnp.zeros((1, 4), jnp.int32))
    clock, key = Clock(jnp.asarray(0), jnp.asarray(1)), jax.random.key(0)
    state = masked.init(spec, key=key, given={"start": start})
    update = jax.jit(lambda batch: masked.update(state, batch, clock=clock, key=key))
    (one, told), (other, _) = update(batch), update(less)
    assert float(told["truncated"]) == 0.5
    for a, b in zip(jax.tree.leaves(one["policy"].model), jax.tree.leaves(other["policy"].model), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_groups_of_the_policys_own_answers_find_the_best_choice():
    class Wanted(lab.Scorer):
        def scores(self, observation, action):
            return (action == observation)[None].astype(jnp.float32)

    spec = lab.Spec(lab.Discrete(4), lab.Discrete(4))
    source = lab.Responses.of(np.arange(4), Wanted(), spec=spec)
    learner = lab.GroupPolicyGradient(policy=lab.Tabular(), learning_rate=0.05, batch_size=8, epochs=2, anchor="none")
    policy = lab.train(learner, source, steps=80).policy()
    assert float(jnp.mean(jnp.diag(jax.nn.softmax(policy.table)))) > 0.9
