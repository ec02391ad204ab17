"""Drawings of what methods do inside: pictures of the right things, and one sentence where there is nothing to draw."""

from __future__ import annotations

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import policylab as lab
from policylab.environments.finite import gridworld
from policylab.environments.pointmass import PointMass
from policylab.examples import example_spec
from policylab.reporting import drawings

KEY = jax.random.key(0)


def opened(picture):
    image = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    assert min(image.shape[:2]) > 100
    assert image.std() > 1, "not one colour"
    return image


@pytest.mark.parametrize("form", [lab.Diffusion(width=8, depth=1, levels=4), lab.Flow(width=8, depth=1, levels=4)])
def test_what_noise_becomes_is_what_decode_gives(form):
    spec = example_spec()
    policy = form.build(spec, key=KEY)
    seen, noise = jnp.zeros(spec.observation.shape), jax.random.normal(KEY, (3, policy.noise_space.shape[0]))
    levels, found = drawings.denoised(policy, seen, noise)
    assert found.shape == (5, 3, policy.noise_space.shape[0])
    assert levels[-1] == 0.0
    decoded = jax.vmap(lambda n: policy.decode(seen, n))(noise)
    ends = jax.vmap(lambda unit: policy.scaler.to_environment(jnp.clip(unit, -1.0, 1.0)))(found[-1])
    np.testing.assert_allclose(ends.reshape(decoded.shape), decoded, atol=1e-5)
    opened(drawings.denoising(policy, seen, samples=20, key=KEY))


def test_plans_made_of_noise_are_drawn_step_by_step():
    plans = lab.Spec(lab.Box((2,)), lab.Box((5, 2), -1.0, 1.0))
    policy = lab.Diffusion(width=8, depth=1, levels=4).build(plans, key=KEY)
    opened(drawings.denoising(policy, jnp.zeros(2), samples=3, parts=(1, 0), key=KEY))


def test_plans_are_drawn_where_they_lead():
    planner = lab.RandomShooting(PointMass(), horizon=5, population=20)
    opened(drawings.plans(planner, jnp.array([-0.8, 0.0]), key=KEY))


def test_a_tree_has_its_leaves_side_by_side_and_parents_above_them():
    children = np.array([[1, -1, 2], [3, 4, -1], [-1, -1, -1], [-1, -1, -1], [-1, -1, -1]])
    place = drawings.placed(children)
    assert place == {3: (0.0, 2.0), 4: (1.0, 2.0), 1: (0.5, 1.0), 2: (2.0, 1.0), 0: (1.25, 0.0)}
    search = lab.MonteCarloTreeSearch(gridworld(("S.G",)), simulations=8)
    found = jax.jit(lambda planner, o: planner.search(o, key=KEY))(search, jnp.zeros((), jnp.int32))
    opened(drawings.tree(found, actions=("up", "right", "down", "left")))
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), found)
    with pytest.raises(lab.BadInput, match="these are 2 searches: draw one of them"):
        drawings.tree(two)


def test_an_archive_is_drawn_with_the_best_on_top():
    places = np.random.default_rng(0).uniform(size=(50, 2))
    opened(drawings.archive(places, places[:, 0]))
    with pytest.raises(lab.BadInput, match=r"\[member, 2\]"):
        drawings.archive(places[:, :1], places[:, 0])


def test_what_cannot_be_drawn_is_said():
    spec = example_spec()
    policy = lab.Deterministic(width=8).build(spec, key=KEY)
    with pytest.raises(lab.BadInput, match="does not denoise"):
        drawings.denoising(policy, jnp.zeros(spec.observation.shape), key=KEY)
    with pytest.raises(lab.BadInput, match="tries no listed plans"):
        drawings.plans(policy, jnp.zeros(spec.observation.shape), key=KEY)
    one = lab.Diffusion(width=8, depth=1).build(lab.Spec(spec.observation, lab.Box((1,), -1.0, 1.0)), key=KEY)
    with pytest.raises(lab.BadInput, match="the action has 1 part: choose two"):
        drawings.denoising(one, jnp.zeros(spec.observation.shape), parts=(0, 2), key=KEY)
    opened(drawings.denoising(one, jnp.zeros(spec.observation.shape), samples=20, key=KEY))
