"""VaGraM's loss against its formula, and where it spends a small world's capacity."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.learner import Clock
from policylab.learners.worldmodel.ensemble import EnsembleDynamics
from policylab.learners.worldmodel.vagram import GRADIENT, ValueWeightedDynamics, shortened, value_gradients
from policylab.policies.deterministic import Deterministic
from policylab.worlds.ensemble import DynamicsEnsemble
from tests.small import continuous_dataset

_SHAPE = DynamicsEnsemble(members=2, elites=1, width=8, depth=1, deterministic=True)


@pytest.fixture(scope="module")
def case():
    """A world, a batch of 16 and gradients of 3 value functions at its next observations."""
    learner = ValueWeightedDynamics(_SHAPE, batch_size=16, quantile=1.0)
    data = continuous_dataset().serve(learner.needs)
    clock = Clock(jnp.asarray(0), jnp.asarray(1))
    batch = data.next(None, {}, clock=clock, key=jax.random.key(0))[1]
    gradient = jax.random.normal(jax.random.key(1), (16, 3, 3))
    world = jax.jit(lambda key: learner.init(data.spec, key=key))(jax.random.key(2))["world"].model
    return learner, world, dataclasses.replace(batch, extra={**batch.extra, GRADIENT: gradient})


def test_errors_count_by_the_squared_gradient_of_every_value_and_dimension(case):
    learner, world, batch = case
    expected = {True: np.zeros((16, 2)), False: np.zeros((16, 2))}
    for row in range(16):
        mean = np.asarray(world.predictions(batch.observation[row], batch.action[row])[0], np.float64)
        std = np.asarray(world.normaliser.std, np.float64)
        guess = np.asarray(batch.observation[row]) + mean[:, :3] * std
        paid = mean[:, 3] * float(world.reward_normaliser.std[0]) + float(world.reward_normaliser.mean[0])
        miss = guess - np.asarray(batch.next_observation[row])
        gradient = np.asarray(batch.extra[GRADIENT][row], np.float64)
        money = (paid - float(batch.reward[row])) ** 2
        plain = 0.5 * np.mean((miss / std) ** 2, axis=1)
        expected[True][row] = np.mean([(g**2 * miss**2).sum(1) for g in gradient], axis=0) + money + plain
        expected[False][row] = np.mean([(miss @ g) ** 2 for g in gradient], axis=0) + money + plain
    for split in (True, False):
        weighted = dataclasses.replace(learner, plain=0.5, split=split)
        loss, ranking = weighted.losses(world, batch)
        np.testing.assert_allclose(loss, expected[split], rtol=2e-3)
        np.testing.assert_array_equal(loss, ranking)


def test_long_gradients_are_shortened_to_the_quantile_of_their_lengths():
    gradient = jnp.array([[[3.0, 4.0]], [[0.0, 1.0]], [[2.0, 0.0]]])
    np.testing.assert_allclose(shortened(gradient, 0.5), [[[1.2, 1.6]], [[0.0, 1.0]], [[2.0, 0.0]]], rtol=1e-5)
    np.testing.assert_allclose(shortened(gradient, 1.0), gradient, rtol=1e-6)


def test_the_gradient_of_values_is_that_of_the_critics_at_the_policys_action_held_fixed():
    spec = continuous_dataset().spec
    agent = jax.jit(lambda key: lab.SAC(width=8, depth=1).init(spec, key=key))(jax.random.key(0))
    policy, critic = Deterministic(width=8, depth=1).build(spec, key=jax.random.key(1)), agent["critic"].model
    place, key = jnp.array([0.2, -0.4, 1.0]), jax.random.key(0)
    found = np.asarray(value_gradients((critic, agent["target"]), policy, place, key=key))
    action, _ = policy.act(place, None, key=key)
    for axis in range(3):
        nudge = jnp.zeros(3).at[axis].set(1e-2)
        slope = (critic.values(place + nudge, action) - critic.values(place - nudge, action)) / 2e-2
        np.testing.assert_allclose(found[:2, axis], slope, atol=2e-3)
    np.testing.assert_array_equal(found[:2], found[2:])  # targets equal the critics at the start


def test_the_weighted_loss_needs_critics_and_their_gradients(case):
    _, world, batch = case
    learner = lab.VaGraM(agent=lab.SAC(width=8, depth=1), dynamics=EnsembleDynamics(_SHAPE, batch_size=8), plain=0.5)
    assert (learner.fitter.plain, learner.fitter.batch_size, learner.fitter.world) == (0.5, 8, _SHAPE)
    with pytest.raises(lab.BadInput, match="critics of SAC"):
        lab.VaGraM(agent=lab.IQL()).init(continuous_dataset().spec, key=jax.random.key(0))
    with pytest.raises(lab.BadInput, match="use VaGraM"):
        learner.fitter.losses(world, dataclasses.replace(batch, extra={}))
