"""PRDC and RIQL against NumPy and a k-d tree; corruption of data."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

import policylab as lab
from policylab.data.corruption import corrupted
from policylab.learner import Everything
from policylab.learners.offline.prdc import PRDC, nearest_rows
from policylab.learners.offline.riql import RIQL, huber_loss
from policylab.policies.deterministic import Deterministic
from policylab.sources.dataset import Dataset
from tests.learners.offline.test_continuous_losses import (
    CLOCK,
    KEY,
    SMALL,
    compiled,
    policy_actions,
    prepare,
    q_of,
    state_values,
)
from tests.small import continuous_dataset, continuous_recording, discrete_recording

FORM = Deterministic(width=8, depth=1)


@pytest.fixture(scope="module")
def dataset():
    return continuous_dataset()


@pytest.mark.parametrize(("rows", "block"), [(300, 64), (257, 4096), (1024, 256)])
def test_nearest_rows_are_those_of_a_tree(rows, block):
    random = np.random.default_rng(rows)
    points, table = random.standard_normal((50, 4)).astype(np.float32), random.standard_normal((rows, 4)).astype(np.float32)
    valid = random.random(rows) < 0.7
    found = np.asarray(nearest_rows(jnp.asarray(points), jnp.asarray(table), jnp.asarray(valid), block=block))
    _, expected = cKDTree(table[valid]).query(points)
    np.testing.assert_array_equal(found, np.flatnonzero(valid)[expected])


@pytest.mark.parametrize("beta", [0.0, 2.0, 50.0])
def test_prdc_by_hand(dataset, beta):
    learner = PRDC(**SMALL, noise=0.0, beta=beta, policy=FORM)
    state, batch = prepare(learner, dataset, "target_policy", "target_critic")
    update = compiled(learner)
    after, metrics = update(state, batch)
    steps = batch["transitions"]
    next_action = policy_actions(state["target_policy"], steps.next_observation)
    goal = np.asarray(steps.reward) + 0.99 * np.asarray(steps.continues) * q_of(
        state["target_critic"], steps.next_observation, next_action
    ).min(1)
    values = q_of(state["critic"].model, steps.observation, steps.action)
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(np.sum((values - goal[:, None]) ** 2, 1)), rtol=1e-4)

    recording, known = continuous_recording(), dataset.spec.statistics["observation"]
    logged = recording.observation[recording.observation_rows]
    normal = lambda s: (np.asarray(s, np.float64) - np.asarray(known.mean)) / (np.asarray(known.std) + 1e-3)
    own = np.asarray(policy_actions(state["policy"].model, steps.observation)) / 2.0  # actions in [-2, 2]: half the range is 2
    tree = cKDTree(np.concatenate([beta * normal(logged), recording.action / 2.0], axis=1))
    _, nearest = tree.query(np.concatenate([beta * normal(steps.observation), own], axis=1))
    gap = np.mean((own - recording.action[nearest] / 2.0) ** 2)
    q = q_of(after["critic"].model, steps.observation, jnp.asarray(2.0 * own))[:, 0]
    np.testing.assert_allclose(metrics["gap"].value, gap, rtol=1e-4)
    np.testing.assert_allclose(metrics["policy_loss"].value, gap - 2.5 / np.abs(q).mean() * q.mean(), rtol=1e-4)
    late, _ = update(state, batch, 1)
    np.testing.assert_array_equal(jax.tree.leaves(late["policy"])[0], jax.tree.leaves(state["policy"])[0])


def test_the_whole_data_are_served_without_a_copy(dataset):
    served = dataset.serve({"data": Everything()})
    window = served.next(None, {}, clock=CLOCK, key=KEY)[1]
    recording = continuous_recording()
    assert window.observation is dataset.observation
    np.testing.assert_array_equal(np.asarray(window.action)[np.asarray(window.valid)], recording.action)
    np.testing.assert_array_equal(
        np.asarray(window.next_observation)[np.asarray(window.valid)], recording.observation[recording.observation_rows + 1]
    )
    light = Dataset.of(recording, weight=np.arange(recording.steps) % 2).serve({"data": Everything()})
    assert int(light.next(None, {}, clock=CLOCK, key=KEY)[1].valid.sum()) == recording.steps // 2


def test_huber_loss_by_hand():
    np.testing.assert_allclose(huber_loss(jnp.array([-0.5, 1.0, 3.0]), 1.0), [0.125, 0.5, 2.5], rtol=1e-6)
    np.testing.assert_allclose(huber_loss(jnp.array([-0.2, 5.0]), 2.0), [0.08, 4.875], rtol=1e-5)  # b = 1/4


def test_riql_by_hand(dataset):
    learner = RIQL(**SMALL, members=4, quantile=0.25, sigma=2.0, lowest_goal=-1.5, highest_goal=0.5, policy=FORM)
    state, batch = prepare(learner, dataset, "target")
    _, metrics = compiled(learner)(state, batch)
    targets = np.sort(q_of(state["target"], batch.observation, batch.action), axis=1)
    q = 0.25 * targets[:, 0] + 0.75 * targets[:, 1]  # the quarter quantile of 4 numbers, linearly interpolated at 0.75
    v = np.asarray(state_values(state["value"].model, batch.observation), np.float64)
    np.testing.assert_allclose(metrics["value_loss"], np.mean(np.where(q < v, 0.3, 0.7) * (q - v) ** 2), rtol=1e-4)
    following = np.asarray(state_values(state["value"].model, batch.next_observation), np.float64)
    goal = np.asarray(batch.reward) + 0.99 * np.asarray(batch.continues) * following
    assert (goal < -1.5).any()
    error = np.abs(np.clip(goal, -1.5, 0.5)[:, None] - q_of(state["critic"].model, batch.observation, batch.action))
    loss = np.where(error < 0.25, 2.0 * error**2, error - 0.125)
    np.testing.assert_allclose(metrics["critic_loss"], loss.mean(), rtol=1e-4)
    weight = np.minimum(np.exp(3.0 * (q - v)), 100.0)
    own = np.asarray(policy_actions(state["policy"].model, batch.observation), np.float64)
    cloning = np.mean((own - np.asarray(batch.action)) ** 2 / 4.0, axis=1)
    np.testing.assert_allclose(metrics["policy_loss"], np.mean(weight * cloning), rtol=1e-4)


@pytest.mark.parametrize("kind", ["observation", "action", "reward", "dynamics"])
def test_corruption_hits_one_column_of_about_its_share(kind):
    clean = continuous_recording(episodes=80)
    found = corrupted(clean, kind, share=0.3, range=1.0, seed=4)
    assert found.steps == clean.steps
    columns = {
        name: (np.asarray(a).reshape(clean.steps, -1), np.asarray(b).reshape(clean.steps, -1))
        for name, a, b in (
            ("observation", clean.observation[clean.observation_rows], found.observation[found.observation_rows]),
            ("dynamics", clean.observation[clean.observation_rows + 1], found.observation[found.observation_rows + 1]),
            ("action", clean.action, found.action),
            ("reward", clean.reward, found.reward),
        )
    }
    for name, (before, after) in columns.items():
        hit = (before != after).any(axis=1)
        if name != kind:
            assert not hit.any(), name
            continue
        assert 0.26 < hit.mean() < 0.34
        assert hit.sum() == found.origin["corruption"]["hit"]
        noise = after[hit] if name == "reward" else (after - before)[hit] / before.std(axis=0)
        largest = 30.0 if name == "reward" else 1.0
        assert np.abs(noise).max() <= largest * 1.0001
        np.testing.assert_allclose(noise.std(axis=0), largest / np.sqrt(3), rtol=0.1)  # that of a uniform distribution
    again = corrupted(clean, kind, share=0.3, range=1.0, seed=4)
    np.testing.assert_array_equal(again.observation, found.observation)
    np.testing.assert_array_equal(again.reward, found.reward)
    np.testing.assert_array_equal(Dataset.of(found).count, clean.steps)


def test_corruption_refuses_what_it_cannot_do():
    recording = continuous_recording()
    for options, words in (
        ({"kind": "colour"}, "choose one of observation"),
        ({"kind": "action", "share": 1.5}, "from 0 to 1"),
        ({"kind": "action", "range": -1.0}, "at least 0"),
    ):
        with pytest.raises(lab.BadInput, match=words):
            corrupted(recording, **options)
    with pytest.raises(lab.BadInput, match="no rewards"):
        corrupted(continuous_recording(reward=False), "reward")
    with pytest.raises(lab.BadInput, match="needs numbers"):
        corrupted(discrete_recording(), "action")
