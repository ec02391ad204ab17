"""The room of BESO's experiment is as its claim says."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from policylab.claims.imitation import beso as study
from policylab.environment import unroll
from policylab.policies.diffusion import Diffusion


def test_the_pilot_uses_both_sides_equally_and_survives():
    pilot = study.pilot()
    play = jax.jit(lambda key: unroll(pilot, study.plane(told=False), episodes=60, horizon=100, key=key))
    flown = play(jax.random.key(0))
    assert float(flown.lengths.mean()) > 98
    place = np.asarray(flown.observation["observation"])[:, 1:][np.asarray(flown.valid)]
    passing = np.abs(np.abs(place[:, 0]) - 1.0) < 0.4
    assert 0.4 < (place[passing, 1] > 0).mean() < 0.6
    visits = [np.sum(np.linalg.norm(place - stop, axis=1) < 0.4) for stop in np.asarray(study.plane().starts)]
    assert min(visits) > 100


def test_the_same_denoiser_is_asked_as_often_as_told():
    policy = Diffusion(width=8, depth=1, levels=3, masked="goal").build(study.data().spec, key=jax.random.key(0))
    again = study.sampled(policy, 3)
    np.testing.assert_allclose(again.levels.sigma, policy.levels.sigma, rtol=1e-6)
    assert len(study.sampled(policy, 30).levels.sigma) == 31
    free = study.sampled(policy, 3, guidance=0.0)
    seen = [{"observation": jnp.zeros(2), "goal": jnp.full(2, goal)} for goal in (-1.0, 1.0)]
    actions = [free.decode(one, jnp.ones(2)) for one in seen]
    np.testing.assert_array_equal(*actions)
