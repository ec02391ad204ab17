"""The point among walls: what stops it, what ends an episode, and what wanderers log there."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environments.walled import Walled
from policylab.tasks.wanderers import Wanderer, played

KEY = jax.random.key(0)
ROWS = ("#####", "#r#g#", "#...#", "#####")


@pytest.fixture(scope="module")
def plane():
    return Walled.of(ROWS, starts="r", goals="g")


step = jax.jit(lambda plane, state, action: plane.step(state, action, KEY)[1])


def after(plane, place, action, goal=(9.0, 9.0)):
    state = {"observation": jnp.array(place), "goal": jnp.array(goal)}
    return step(plane, state, jnp.array(action))


def test_it_conforms_and_starts_where_it_is_told(plane):
    report = lab.check(plane)
    assert report.passed, str(report)
    _, seen = jax.jit(jax.vmap(lambda key: plane.reset(key)))(jax.random.split(KEY, 200))
    assert np.abs(np.asarray(seen["observation"]) - [-1.0, 0.5]).max() <= 0.25
    assert np.abs(np.asarray(seen["goal"]) - [1.0, 0.5]).max() <= 0.25
    assert plane.picture(jax.tree.map(lambda leaf: np.asarray(leaf[0]), seen)).shape[2] == 3


def test_walls_stop_the_point_and_it_slides_along_them(plane):
    free = after(plane, (0.0, -0.5), (1.0, 0.0))
    np.testing.assert_allclose(free.observation["observation"], [0.2, -0.5], atol=1e-6)
    assert float(free.info["touched"]) == 0.0
    slid = after(plane, (-0.6, 0.5), (1.0, 1.0))  # the wall between start and goal
    np.testing.assert_allclose(slid.observation["observation"], [-0.6, 0.7], atol=1e-6)
    held = after(plane, (0.0, -0.1), (0.0, 1.0))
    np.testing.assert_allclose(held.observation["observation"], [0.0, -0.1], atol=1e-6)
    assert not bool(held.terminal)
    lost = after(Walled.of(ROWS, deadly=True), (0.0, -0.1), (0.0, 1.0))
    assert bool(lost.terminal)
    assert float(lost.info["success"]) == 0.0


def test_arriving_ends_the_episode(plane):
    there = after(plane, (1.0, 0.0), (0.0, 1.0), goal=(1.0, 0.5))
    assert bool(there.terminal)
    assert float(there.info["success"]) == 1.0
    assert float(there.reward) == 0.0
    assert float(after(plane, (1.0, -0.5), (0.0, 1.0), goal=(1.0, 0.5)).reward) == -1.0


def test_every_cell_but_the_own_can_be_a_goal_and_bad_maps_are_refused():
    anywhere = Walled.of(ROWS)
    assert len(anywhere.pairs) == 5 * 4
    with pytest.raises(lab.BadInput, match="walls"):
        Walled.of(("###", "#..", "###"))
    with pytest.raises(lab.BadInput, match="cannot start"):
        Walled.of(("###", "#r#", "###"))


def test_wanderers_take_all_ways_and_touch_no_wall(plane):
    stops = jnp.array([[-1.0, 0.5], [1.0, 0.5]])
    around = [[-1.0, -0.5], [1.0, -0.5]]
    points = jnp.array([[[*around, [1.0, 0.5]]], [[*around[::-1], [-1.0, 0.5]]]])
    pilot = Wanderer(stops, jnp.array([[1], [0]]), points, *jnp.array([0.1, 0.2, 0.2]))
    free = Walled.of(ROWS, starts="r", goals="g", radius=0.0)
    log = played(pilot, free, episodes=3, length=80, seed=0)
    assert log.steps == 240
    assert not log.terminal.any()
    assert log.truncated.sum() == 3
    for stop in np.asarray(stops):
        assert (np.linalg.norm(log.observation["observation"] - stop, axis=1) < 0.2).sum() > 3
