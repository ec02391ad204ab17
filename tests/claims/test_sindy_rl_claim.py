"""The arms of SINDy-RL's experiment get what its claim says."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from policylab.claims.worldmodel import sindy_rl as study
from policylab.learner import Clock
from policylab.learners.worldmodel.ensemble import EnsembleDynamics
from policylab.worlds.ensemble import DynamicsEnsemble
from tests.small import continuous_dataset


def test_the_networks_get_their_gradient_steps_one_after_the_other():
    shape = DynamicsEnsemble(members=2, elites=1, width=4, depth=1)
    many, one = study.Neural(shape, batch_size=8, passes=3), EnsembleDynamics(shape, batch_size=8)
    data = continuous_dataset().serve(many.needs)
    key, clock = jax.random.key(0), Clock(jnp.asarray(0), jnp.asarray(1))
    batch = data.next(None, {}, clock=clock, key=key)[1]
    assert batch.reward.shape == (24,)
    start = jax.jit(lambda key: one.init(data.spec, key=key))(key)
    at_once, _ = jax.jit(lambda state: many.update(state, batch, clock=clock, key=key))(start)
    step = jax.jit(lambda state, part: one.update(state, part, clock=clock, key=key)[0])
    for i in range(3):
        start = step(start, jax.tree.map(lambda leaf, i=i: leaf[8 * i : 8 * (i + 1)], batch))
    for a, b in zip(jax.tree.leaves(at_once["world"].model), jax.tree.leaves(start["world"].model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_both_worlds_see_as_many_real_steps():
    replay = study.dreams().source
    asked = replay.warmup + replay.environments * replay.collect * (study.UPDATES // replay.updates)
    assert asked == study.REAL
    assert study.sindy().fit_every == study.neural().fit_every == replay.updates
    assert study.sindy().agent == study.neural().agent == study.agent()
