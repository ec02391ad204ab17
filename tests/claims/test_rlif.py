"""What the experiment on take-overs rests on: the shortest way around the disc, and who is stopped."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from policylab.claims.online import rlif as study


def test_the_way_to_go_is_the_shortest_around_the_disc():
    clear, goal = study.CLEAR, study.GOAL[0]
    togo = jax.jit(jax.vmap(study.way_to_go))
    straight, far = togo(jnp.array([[0.5, 0.4], [-goal, 1e-4]]))
    np.testing.assert_allclose(straight, np.hypot(0.3, 0.4), rtol=1e-4)
    around = 2 * np.sqrt(goal**2 - clear**2) + clear * (np.pi - 2 * np.arccos(clear / goal))  # two tangents and the arc between
    np.testing.assert_allclose(far, around, rtol=4e-3)  # arccosines are cut off near pi
    # Along any way that keeps clear of the disc it falls by no more than what was gone: here along a polygon of 400 sides.
    angle = np.linspace(np.pi, 0.0, 401)
    ring = 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    left = np.asarray(togo(jnp.asarray(ring)))
    gone = np.linalg.norm(np.diff(ring, axis=0), axis=1)
    assert np.all(left[:-1] - left[1:] <= gone + 1e-3)


def test_the_best_pilot_is_never_stopped_and_one_that_stands_still_is():
    rule, pilot = study.watched(), study.pilot(0.0)
    places = jax.random.uniform(jax.random.key(0), (200, 2), minval=-0.9, maxval=-0.5)
    act = lambda place: pilot.act(place, None, key=jax.random.key(0))[0]
    call = jax.jit(jax.vmap(lambda place, action, key: rule.calls(place, action, action, key=key)))
    keys = jax.random.split(jax.random.key(1), 200)
    assert float(call(places, jax.vmap(act)(places), keys).mean()) < 0.12
    assert float(call(places, jnp.zeros((200, 2)), keys).mean()) > 0.85
