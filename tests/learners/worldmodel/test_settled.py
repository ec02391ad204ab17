"""A world in one stage, a policy in it in the next."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import policylab as lab
from tests.small import continuous_dataset


def test_every_seed_learns_in_the_world_of_its_own_seed():
    data = continuous_dataset()
    world = lab.EnsembleDynamics(lab.DynamicsEnsemble(members=2, elites=1, width=4, depth=1, deterministic=True), batch_size=8)
    agent = lab.BC(policy=lab.Deterministic(width=4, depth=1), batch_size=8)
    imagined = lab.Imagined(data, rollouts=10, every=1, capacity=10, real=0.0)
    run = lab.train([lab.Stage(world, data, 3), lab.Stage(lab.Settled(agent), imagined, 2)], seeds=2)
    before, after = run.earlier[0].products()["world"], run.products()["world"]
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), before, after))
    for seed in (0, 1):  # the last imagined rows are steps of this seed's world
        rows = jax.tree.map(lambda leaf: leaf[seed, 0], run.source_state.rows)  # noqa: B023  (used at once)
        own = run.products(seed=seed)["world"]
        expected = jax.jit(jax.vmap(lambda o, a: own.expected(o, a)[0]))(rows.observation, rows.action)  # noqa: B023  (used at once)
        np.testing.assert_allclose(rows.next_observation, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(lab.BadInput, match="a world that it is given"):
        lab.Settled(agent).init(data.spec, key=jax.random.key(0))
