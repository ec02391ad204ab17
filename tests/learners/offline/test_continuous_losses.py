"""Losses of the continuous offline learners, against plain NumPy on the networks' outputs."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

import policylab as lab
from policylab.hyperparameters import describe
from policylab.learner import Clock
from policylab.learners.offline.awac import AWAC
from policylab.learners.offline.cql import CQL, soft_maximum
from policylab.learners.offline.iql import IQL, expectile_loss
from policylab.learners.offline.rebrac import ReBRAC
from policylab.learners.offline.td3_bc import TD3BC
from policylab.policies.deterministic import Deterministic
from policylab.policies.gaussian import Gaussian
from policylab.policy import actions, log_prob
from policylab.registry import learner_class
from tests.small import continuous_dataset, continuous_recording

CLOCK = Clock(jnp.asarray(0), jnp.asarray(10))
SMALL = {"width": 8, "depth": 1, "batch_size": 16}
KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def dataset():
    return continuous_dataset()


def prepare(learner, dataset, *targets):
    """A batch, and a state whose targets differ from the networks that they follow."""
    batch = dataset.serve(learner.needs).next(None, {}, clock=CLOCK, key=jax.random.key(3))[1]
    state, other = (learner.init(dataset.spec, key=jax.random.key(seed)) for seed in (0, 1))
    return {**state, **{name: other[name] for name in targets}}, batch


def compiled(learner):
    """(state, batch, step) -> the update, compiled once for every step, and quickly: it runs twice."""

    def update(state, batch, step=0):
        return learner.update(state, batch, clock=Clock(jnp.asarray(step), CLOCK.total), key=KEY)

    return jax.jit(update, compiler_options={"xla_backend_optimization_level": 0})


critic_values = jax.jit(lambda critic, observation, action: jax.vmap(critic.values)(observation, action))
state_values = jax.jit(lambda value, observation: jax.vmap(value)(observation))
policy_actions = jax.jit(lambda policy, observation, key=KEY: actions(policy, observation, key=key))
likelihoods = jax.jit(log_prob)


def q_of(critic, observation, action):
    return np.asarray(critic_values(critic, observation, action), np.float64)


def test_expectile_loss_by_hand():
    np.testing.assert_allclose(expectile_loss(jnp.array([-2.0, 0.0, 3.0]), 0.7), [0.3 * 4, 0.0, 0.7 * 9], rtol=1e-6)


def test_iql_by_hand(dataset):
    learner = IQL(**SMALL, policy=Gaussian(width=8, depth=1))
    state, batch = prepare(learner, dataset, "target")
    update = compiled(learner)
    after, metrics = update(state, batch)
    q = q_of(state["target"], batch.observation, batch.action).min(1)
    v = np.asarray(state_values(state["value"].model, batch.observation), np.float64)
    np.testing.assert_allclose(metrics["value_loss"], np.mean(np.where(q < v, 0.3, 0.7) * (q - v) ** 2), rtol=1e-4)
    new_v = after["value"].model
    goal = np.asarray(batch.reward) + 0.99 * np.asarray(batch.continues) * np.asarray(
        state_values(new_v, batch.next_observation)
    )
    values = q_of(state["critic"].model, batch.observation, batch.action)
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(np.sum((values - goal[:, None]) ** 2, 1)), rtol=1e-4)
    weight = np.minimum(np.exp(3.0 * (q - np.asarray(state_values(new_v, batch.observation)))), 100.0)
    likelihood = np.asarray(likelihoods(state["policy"].model, batch), np.float64)
    np.testing.assert_allclose(metrics["policy_loss"], -np.mean(weight * likelihood), rtol=1e-4)


def test_td3_bc_by_hand(dataset):
    learner = TD3BC(**SMALL, noise=0.0, policy=Deterministic(width=8, depth=1))
    state, batch = prepare(learner, dataset, "target_policy", "target_critic")
    update = compiled(learner)
    after, metrics = update(state, batch)
    next_action = policy_actions(state["target_policy"], batch.next_observation, KEY)
    goal = np.asarray(batch.reward) + 0.99 * np.asarray(batch.continues) * q_of(
        state["target_critic"], batch.next_observation, next_action
    ).min(1)
    values = q_of(state["critic"].model, batch.observation, batch.action)
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(np.sum((values - goal[:, None]) ** 2, 1)), rtol=1e-4)
    own = policy_actions(state["policy"].model, batch.observation, KEY)
    q = q_of(after["critic"].model, batch.observation, own)[:, 0]
    cloning = np.mean((np.asarray(own) - np.asarray(batch.action)) ** 2 / 4.0)  # actions in [-2, 2]: half the range is 2
    np.testing.assert_allclose(metrics["policy_loss"].value, cloning - 2.5 / np.abs(q).mean() * q.mean(), rtol=1e-4)
    late, _ = update(state, batch, 1)
    np.testing.assert_array_equal(jax.tree.leaves(late["policy"])[0], jax.tree.leaves(state["policy"])[0])


def test_rebrac_penalises_the_next_action(dataset):
    learner = ReBRAC(**SMALL, noise=0.0, critic_penalty=0.3, policy_penalty=0.2, policy=Deterministic(width=8, depth=1))
    state, batch = prepare(learner, dataset, "target_policy", "target_critic")
    update = compiled(learner)
    after, metrics = update(state, batch)
    next_action = policy_actions(state["target_policy"], batch.next_observation, KEY)
    distance = np.sum((np.asarray(next_action) - np.asarray(batch.extra["next_action"])) ** 2, 1) / 4.0
    value = q_of(state["target_critic"], batch.next_observation, next_action).min(1) - 0.3 * distance
    goal = np.asarray(batch.reward) + 0.99 * np.asarray(batch.continues) * value
    values = q_of(state["critic"].model, batch.observation, batch.action)
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(np.sum((values - goal[:, None]) ** 2, 1)), rtol=1e-4)
    own = policy_actions(state["policy"].model, batch.observation, KEY)
    q = q_of(after["critic"].model, batch.observation, own).min(1)
    cloning = np.sum((np.asarray(own) - np.asarray(batch.action)) ** 2, 1) / 4.0
    np.testing.assert_allclose(metrics["policy_loss"].value, np.mean(0.2 * cloning - q / np.abs(q).mean()), rtol=1e-4)


def test_awac_by_hand(dataset):
    learner = AWAC(**SMALL, policy=Gaussian(width=8, depth=1))
    state, batch = prepare(learner, dataset, "target")
    update = compiled(learner)
    after, metrics = update(state, batch)
    next_key, own_key, _ = jax.random.split(KEY, 3)
    policy, critic = state["policy"].model, after["critic"].model
    next_action = policy_actions(policy, batch.next_observation, next_key)
    goal = np.asarray(batch.reward) + 0.99 * np.asarray(batch.continues) * q_of(
        state["target"], batch.next_observation, next_action
    ).min(1)
    values = q_of(state["critic"].model, batch.observation, batch.action)
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(np.sum((values - goal[:, None]) ** 2, 1)), rtol=1e-4)
    own = q_of(critic, batch.observation, actions(policy, batch.observation, key=own_key)).min(1)
    weight = np.minimum(np.exp(q_of(critic, batch.observation, batch.action).min(1) - own), 100.0)
    likelihood = np.asarray(likelihoods(policy, batch), np.float64)
    np.testing.assert_allclose(metrics["policy_loss"], -np.mean(weight * likelihood), rtol=1e-4)


def test_the_soft_maximum_estimates_the_integral():
    """For Q(a) = -a^2 / 2 on [-4, 4] the integral of exp Q is sqrt(2 pi) but for the tails."""
    sample = np.random.default_rng(0).uniform(-4, 4, 200_000)
    estimate = soft_maximum(jnp.asarray(-(sample**2) / 2)[None, :, None], jnp.full((1, len(sample)), -np.log(8.0)))
    np.testing.assert_allclose(estimate[0, 0], 0.5 * np.log(2 * np.pi), atol=0.01)


def test_cql_by_hand(dataset):
    learner = CQL(**SMALL, samples=3, policy=Gaussian(width=8, depth=1, squash="sample", state_dependent_std=True))
    state, batch = prepare(learner, dataset, "target")
    update = compiled(learner)
    after, metrics = update(state, batch)
    _, next_key, many_key, uniform_key = jax.random.split(KEY, 4)
    critic, policy = state["critic"].model, after["policy"].model
    sample = jax.jit(jax.vmap(lambda o, k: policy.sample(o, None, key=k)[0]))
    next_action = sample(batch.next_observation, jax.random.split(next_key, 16))
    goal = np.asarray(batch.reward) + 0.99 * np.asarray(batch.continues) * q_of(
        state["target"], batch.next_observation, next_action
    ).min(1)
    sampled, densities = jax.jit(learner._sampled_actions)(policy, batch, critic, many_key, uniform_key)
    elsewhere = np.stack([q_of(critic, batch.observation, sampled[:, i]) for i in range(9)], 1)
    soft = logsumexp(elsewhere - np.asarray(densities, np.float64)[..., None], axis=1) - np.log(9)
    values = q_of(critic, batch.observation, batch.action)
    by_hand = np.sum(np.mean((values - goal[:, None]) ** 2, 0) + 5.0 * np.mean(soft - values, 0))
    np.testing.assert_allclose(metrics["critic_loss"], by_hand, rtol=1e-4)
    np.testing.assert_allclose(densities[:, :3], -2 * np.log(4.0), rtol=1e-5)  # uniform on [-2, 2]^2


def shifted_loss(learner):
    """Mean squared distance to the best action after training on one-step episodes.

    The best action is -state[:2]; the data scatter around it shifted by 0.8, and cloning keeps the shift.
    """
    recording = continuous_recording(episodes=600, length=1)
    action = np.clip(recording.action + 0.8, -2, 2).astype(np.float32)
    state = recording.observation[recording.observation_rows]
    recording = replace(recording, action=action, reward=-np.sum((action + state[:, :2]) ** 2, axis=1).astype(np.float32))
    test = jax.random.normal(jax.random.key(7), (300, 3)) * 0.5
    taken = policy_actions(lab.train(learner, recording, steps=600).policy().mode(), test)
    return float(jnp.mean(jnp.sum((taken + test[:, :2]) ** 2, axis=1)))


@pytest.fixture(scope="module")
def cloning_loss():
    return shifted_loss(lab.BC(learning_rate=3e-3, policy=Deterministic(width=32, depth=1)))


@pytest.mark.parametrize("name", ["td3-bc", "awac", "iql", "rebrac", "cql"])
def test_improves_on_cloning(name, cloning_loss):
    names = {row["name"]: row["default"] for row in describe(learner_class(name))}
    small = {
        "learning_rate": 3e-3,
        "policy_rate": 3e-3,
        "batch_size": 128,
        "width": 32,
        "samples": 4,
        "policy_penalty": 0.1,
        "weight": 0.5,
    }
    learner = learner_class(name)(
        **{key: value for key, value in small.items() if key in names},
        policy=replace(names["policy"], width=32, depth=1),
    )
    assert shifted_loss(learner) < 0.8 * cloning_loss
