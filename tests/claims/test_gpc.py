"""The parts of GPC's experiment that its numbers rest on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import policylab as lab
from policylab.claims.imitation import gpc as study
from policylab.environment import unroll


def test_the_pilot_always_arrives_on_either_side_and_sensors_tell_halves_of_the_truth():
    play = jax.jit(
        lambda key: unroll(study.Pilot(jnp.asarray(0.1)), study.crossing(), episodes=100, horizon=study.HORIZON, key=key)
    )
    flown = play(jax.random.key(0))
    assert float(flown.success.mean()) > 0.98
    seen = jax.tree.map(lambda leaf: np.asarray(leaf)[:, 1:][np.asarray(flown.valid)], flown.observation)
    assert np.abs(seen["place"] - seen["truth"][:, :2]).std() < 2 * study.SENSOR
    np.testing.assert_allclose(seen["obstacle"] + seen["truth"][:, :2], seen["truth"][:, 2:], atol=6 * study.SENSOR)
    middle = np.abs(seen["truth"][:, 0]) < 0.2
    above = seen["truth"][middle, 1] > seen["truth"][middle, 3]
    assert 0.35 < above.mean() < 0.65


def test_averaged_actions_are_between_those_of_the_parents():
    forms = [lab.Diffusion(width=8, depth=1, levels=2) for _ in study.HALVES]
    parents = [
        form.build(study.data(half).spec, key=jax.random.key(i))
        for i, (form, half) in enumerate(zip(forms, study.HALVES, strict=True))
    ]
    pair = lab.Composed.of(*parents, parts=study.HALVES)
    observation = {"place": jnp.zeros(2), "obstacle": jnp.ones(2), "truth": jnp.zeros(4)}
    keys = jax.random.split(jax.random.key(5), 2)
    alone = [pair.with_weights(jnp.eye(2)[i]).act(observation, None, key=keys[i])[0] for i in range(2)]
    averaged = study.Averaged(pair).act(observation, None, key=jax.random.key(5))[0]
    np.testing.assert_allclose(averaged, (alone[0] + alone[1]) / 2, rtol=1e-5)
