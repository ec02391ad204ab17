"""A world learned while acting has the scales of what was seen; with statistics of data it keeps theirs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.learner import Clock
from policylab.learners.worldmodel.rescaled import Rescaled

SPEC = lab.Spec(lab.Box((2,), -100.0, 100.0), lab.Box((1,), -1.0, 1.0))
SMALL = lab.EnsembleDynamics(lab.DynamicsEnsemble(members=2, elites=1, width=8, depth=1), batch_size=64)


def batch(key):
    """Observations around (3, -50), rewards around -10."""
    keys = jax.random.split(key, 3)
    seen = jnp.array([3.0, -50.0]) + jnp.array([0.1, 20.0]) * jax.random.normal(keys[0], (64, 2))
    action = jax.random.uniform(keys[1], (64, 1))
    reward = -10.0 + 4.0 * jax.random.normal(keys[2], (64,))
    none = jnp.zeros(64, bool)
    window = lab.Window(seen, action, reward, seen + 1.0, none, none, ~none, jnp.ones(64, jnp.int32))
    return jax.tree.map(lambda x: x, window), {"row": jnp.arange(64), "weight": jnp.ones(64)}


def test_scales_are_those_of_everything_seen_and_old_predictions_keep_their_units():
    from dataclasses import replace

    learner = Rescaled(SMALL)
    state = learner.init(SPEC, key=jax.random.key(0))
    update = jax.jit(lambda s, w, k: learner.update(s, w, clock=Clock(jnp.asarray(0), jnp.asarray(9)), key=k))
    seen, earned = [], []
    for number in range(3):
        window, extra = batch(jax.random.key(number))
        window = replace(window, extra=extra)
        state, metrics = update(state, window, jax.random.key(9))
        seen.append(np.asarray(window.observation))
        earned.append(np.asarray(window.reward))
    world = learner.products(state)["world"]
    np.testing.assert_allclose(world.normaliser.mean, np.concatenate(seen).mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(world.normaliser.std, np.concatenate(seen).std(axis=0) + 1e-3, rtol=1e-3)
    np.testing.assert_allclose(world.reward_normaliser.mean, [np.concatenate(earned).mean()], rtol=1e-4)
    np.testing.assert_allclose(world.reward_normaliser.std, [np.concatenate(earned).std() + 1e-3], rtol=1e-3)
    assert np.isfinite(float(metrics["squared_error"]))


def test_statistics_of_data_stay_as_they_are():
    numbers = lab.Statistics(*(jnp.full(2, x) for x in (1.0, 2.0, -3.0, 4.0)))
    spec = lab.Spec(SPEC.observation, SPEC.action, statistics={"observation": numbers})
    state = Rescaled(SMALL).init(spec, key=jax.random.key(0))
    assert set(state) == {"dynamics"}
    assert Rescaled(SMALL).products(state)["world"].normaliser.std[0] == pytest.approx(2.001)


def test_mbpo_learns_in_the_scales_of_what_it_saw():
    assert lab.MBPO().fitter == Rescaled(lab.MBPO().dynamics)
