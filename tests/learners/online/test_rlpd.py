"""RLPD's target of a random few and its late policy, and RLIF's rewards, by hand."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.examples import example_recording, example_spec
from policylab.learner import Clock
from policylab.learners.online.rlpd import some
from policylab.learners.online.sac import draws

KEY = jax.random.key(5)
SETTINGS = {"width": 8, "depth": 1, "batch_size": 32, "members": 4, "policy_period": 3}
FORM = lab.Gaussian(width=8, depth=1, state_dependent_std=True, squash="sample")


@pytest.fixture(scope="module")
def updated():
    """A learner, its state with other targets, a batch, and its compiled update."""
    learner = lab.RLIF(**SETTINGS, policy=FORM, temperature=0.3, entropy_backup=True)
    source = lab.Dataset.of(example_recording(example_spec())).serve(learner.needs)
    batch = source.next(None, {}, clock=Clock(jnp.asarray(0), jnp.asarray(9)), key=KEY)[1]
    state, other = (jax.jit(lambda k: learner.init(source.spec, key=k))(jax.random.key(seed)) for seed in (0, 1))
    state = {**state, "target": other["target"]}
    update = jax.jit(lambda state, batch, step: learner.update(state, batch, clock=Clock(step, jnp.asarray(9)), key=KEY))
    return state, batch, update


def q_of(critic, observation, action):
    return np.asarray(jax.vmap(critic.values)(observation, action), np.float64)


def test_the_target_is_the_minimum_of_a_few_critics(updated):
    state, batch, _ = updated
    chosen = [some(state["target"], 2, key=jax.random.key(i)) for i in range(20)]
    whole = q_of(state["target"], batch.observation, batch.action)
    drawn = set()
    for few in chosen:
        values = q_of(few, batch.observation, batch.action)
        drawn.add(tuple(int(np.abs(whole - column[:, None]).sum(0).argmin()) for column in values.T))
        assert min(np.abs(whole - column[:, None]).sum(0).min() for column in values.T) < 1e-5
    assert len(drawn) > 5
    assert all(a != b for a, b in drawn)  # without replacement


def test_take_overs_are_the_only_rewards(updated):
    state, batch, update = updated
    _, metrics = update(state, batch, jnp.asarray(0))
    goal_key, _ = jax.random.split(KEY)
    draw_key, subset_key = jax.random.split(goal_key)
    action, log_prob = draws(state["policy"].model, batch.next_observation, key=draw_key)
    value = q_of(some(state["target"], 2, key=subset_key), batch.next_observation, action).min(1) - 0.3 * np.asarray(log_prob)
    before = np.asarray(batch.extra["before_takeover"])
    assert 0 < before.sum() < 32
    goal = -1.0 * before + 0.99 * ~np.asarray(batch.terminal) * value
    values = q_of(state["critic"].model, batch.observation, batch.action)
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(np.sum((values - goal[:, None]) ** 2, 1)), rtol=1e-4)
    richer = replace(batch, reward=batch.reward + 7.0)
    _, other = update(state, richer, jnp.asarray(0))
    np.testing.assert_array_equal(other["critic_loss"], metrics["critic_loss"])


def test_the_policy_moves_after_every_so_many_updates_up_the_mean_of_all(updated):
    state, batch, update = updated
    early, metrics = update(state, batch, jnp.asarray(0))
    np.testing.assert_array_equal(jax.tree.leaves(early["policy"])[0], jax.tree.leaves(state["policy"])[0])
    assert not bool(metrics["policy_loss"].present)
    late, metrics = update(state, batch, jnp.asarray(2))
    assert bool(metrics["policy_loss"].present)
    _, policy_key = jax.random.split(KEY)
    action, log_prob = draws(state["policy"].model, batch.observation, key=policy_key)
    expected = np.mean(0.3 * np.asarray(log_prob) - q_of(late["critic"].model, batch.observation, action).mean(1))
    np.testing.assert_allclose(metrics["policy_loss"].value, expected, rtol=1e-4)


def test_critics_have_layer_norms_and_settings_that_fit(updated):
    state, _, _ = updated
    assert len(state["critic"].model.networks.members.norms) == 1
    with pytest.raises(lab.BadInput, match="5 of 4 critics"):
        lab.RLPD(members=4, subset=5).init(example_spec(), key=KEY)
    with pytest.raises(lab.BadInput, match=r"RLIF\.n is 2"):
        lab.RLIF(n=2).needs  # noqa: B018
