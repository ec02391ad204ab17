"""The torus of RAVL's experiment is as its claim says."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from policylab.claims.offline import ravl as study


def test_a_place_is_seen_and_found_again_and_the_way_around_is_closed():
    torus = study.Torus()
    places = jax.random.uniform(jax.random.key(0), (50, 2), minval=-3.1, maxval=3.1)
    np.testing.assert_allclose(jax.vmap(lambda p: torus.at(torus.see(p)))(places), places, atol=1e-5)
    place, key = jnp.array([3.1, 0.0]), jax.random.key(0)
    for _ in range(2):
        place, step = torus.step(place, jnp.array([1.0, 0.0]), key)
    np.testing.assert_allclose(place, [3.1 + 0.4 - 2 * np.pi, 0.0], atol=1e-5)
    np.testing.assert_allclose(torus.at(step.observation), place, atol=1e-5)
    assert float(torus.step(jnp.array(study.HILL), jnp.zeros(2), key)[1].reward) == 1.0


def test_the_hill_is_out_of_reach_of_the_log_and_within_that_of_rollouts():
    data = study.data()
    rows = np.asarray(data.row_of)[: int(data.count)]
    logged = np.asarray(jax.vmap(study.Torus().at)(data.observation[rows]))
    assert np.abs(logged).max() <= study.LOGGED_WITHIN
    further = study.HILL[0] - study.LOGGED_WITHIN
    assert study.STEP < further < study.SHORT * study.STEP
    steps = [study.source(horizon).rollouts * horizon for horizon in (study.SHORT, study.LONG)]
    assert abs(steps[0] - steps[1]) <= 0.02 * steps[0]  # as many imagined steps for either horizon
