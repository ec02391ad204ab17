"""COCOA: states taken apart, read bilinearly, and anchored where a seeker leads."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.examples import example_recording, example_spec
from policylab.learner import Clock
from policylab.learners.offline.cocoa import COCOA
from policylab.learners.worldmodel.ensemble import EnsembleDynamics
from policylab.networks.bilinear import Bilinear
from policylab.policies.deterministic import Deterministic
from policylab.sources.dataset import Dataset
from policylab.worlds.ensemble import DynamicsEnsemble

_SMALL = COCOA(
    learner=lab.IQL(width=8, depth=1, batch_size=16, policy=Deterministic(width=8, depth=1)),
    dynamics=EnsembleDynamics(DynamicsEnsemble(members=2, elites=1, width=8, depth=1)),
    rank=3, walk=4, horizon=2, seeker=Deterministic(width=8, depth=1, layer_norm=True),
)  # fmt: skip


@pytest.fixture(scope="module")
def run() -> lab.Run:
    return lab.train(_SMALL, example_recording(example_spec()), steps=40, seeds=2)


def test_features_are_inner_products_of_what_is_made_of_delta_and_of_the_anchor() -> None:
    network = Bilinear(2, 1, 4, rank=3, width=5, depth=1, activation="relu", layer_norm=False, key=jax.random.key(0))
    x = np.array([0.3, -1.0, 2.0, 0.5, 0.7], np.float32)  # anchor, delta, action
    by_hand = lambda mlp, v: np.maximum(v @ np.asarray(mlp.layers[0].weight) + np.asarray(mlp.layers[0].bias), 0.0)
    f = by_hand(network.of_delta, x[[2, 3, 4]]) @ np.asarray(network.of_delta.layers[1].weight)
    g = by_hand(network.of_anchor, x[[0, 1, 4]]) @ np.asarray(network.of_anchor.layers[1].weight)
    f, g = f + np.asarray(network.of_delta.layers[1].bias), g + np.asarray(network.of_anchor.layers[1].bias)
    feature = np.array([f[3 * t : 3 * t + 3] @ g[3 * t : 3 * t + 3] for t in range(5)])
    hidden = by_hand(network.head, feature)
    output = hidden @ np.asarray(network.head.layers[1].weight) + np.asarray(network.head.layers[1].bias)
    np.testing.assert_allclose(network.composed(jnp.asarray(x)), feature, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(network(jnp.asarray(x)), output, rtol=1e-4, atol=1e-5)


def test_the_anchor_is_where_the_seeker_leads_in_the_world_and_the_parts_make_the_observation(run: lab.Run) -> None:
    products = run.products(seed=1)
    anchors, world, seeker = products["anchors"], products["world"], products["seeker"]
    observation, place = jnp.array([0.2, -0.4, 1.1]), jnp.array([0.2, -0.4, 1.1])
    onward = jax.jit(lambda place: world.expected(place, seeker.act(place, None, key=jax.random.key(0))[0])[0])
    place = onward(onward(place))
    apart = jax.jit(lambda o: anchors(o, key=jax.random.key(5)))(observation)
    np.testing.assert_allclose(apart["anchor"], place, rtol=1e-5)
    np.testing.assert_allclose(apart["anchor"] + apart["delta"], observation, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda o: jnp.sum(anchors(o, key=jax.random.key(5))["anchor"])))(observation)
    np.testing.assert_array_equal(gradient, 0.0)


def test_random_anchors_are_observations_of_the_data() -> None:
    source = Dataset.of(example_recording(example_spec()))
    learner = dataclasses.replace(_SMALL, anchors="random")
    anchors = lab.train(learner, source, steps=20, seeds=1).products(seed=0)["anchors"]
    draw = jax.jit(jax.vmap(lambda key: anchors(jnp.zeros(3), key=key)["anchor"]))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 8)))
    known = np.asarray(source.observation)
    assert all((np.abs(known - anchor).max(axis=1) < 1e-6).any() for anchor in drawn)
    assert len(np.unique(drawn, axis=0)) > 3


def test_walks_go_back_along_one_direction_of_the_data(run: lab.Run) -> None:
    source = Dataset.of(example_recording(example_spec())).serve(_SMALL.needs)
    batch = source.next(None, {}, clock=Clock(jnp.asarray(0), jnp.asarray(1)), key=jax.random.key(0))[1]
    reverse = run.products(seed=0)["reverse_world"]
    quiet = dataclasses.replace(_SMALL, noise=0.0, scale=0.5)
    walks = jax.jit(lambda batch, key: quiet.walks(reverse, batch, key=key))(batch, jax.random.key(1))
    steps, rows = 4, 16
    acted = np.asarray(walks.action).reshape(steps, rows, 2)
    np.testing.assert_allclose(acted, np.broadcast_to(acted[:1], acted.shape), atol=1e-6)
    np.testing.assert_allclose(
        acted[0], 0.5 * np.roll(np.asarray(batch.action), 1, axis=0), atol=1e-6
    )  # half ranges are 2 about 0
    places = np.asarray(walks.observation).reshape(steps, rows, 3)
    _, noise_key = jax.random.split(jax.random.split(jax.random.key(1), steps)[0])
    first = jax.jit(jax.vmap(lambda s, a, k: reverse.step(s, a, k)[0]))(
        batch.next_observation, walks.action[:rows], jax.random.split(noise_key, rows)
    )
    np.testing.assert_allclose(places[0], first, rtol=1e-5)


def test_worlds_then_seeker_then_the_learner_and_each_only_in_its_time() -> None:
    source = Dataset.of(example_recording(example_spec())).serve(_SMALL.needs)
    state = jax.jit(lambda key: _SMALL.init(source.spec, key=key))(jax.random.key(0))
    batch = source.next(None, {}, clock=Clock(jnp.asarray(0), jnp.asarray(1)), key=jax.random.key(0))[1]
    update = jax.jit(lambda state, step: _SMALL.update(state, batch, clock=Clock(step, jnp.asarray(20)), key=jax.random.key(1)))
    changed = {}
    for step in (0, 3, 4, 5, 6, 19):  # 20% of 20 updates are 4, 10% are 2
        after = update(state, jnp.asarray(step))[0]
        moved = lambda name, after=after: any(
            not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(state[name]), jax.tree.leaves(after[name]), strict=True)
        )
        changed[step] = {name for name in ("world", "reverse", "seeker", "learner") if moved(name)}
    assert changed == {
        0: {"world", "reverse"}, 3: {"world", "reverse"}, 4: {"seeker"}, 5: {"seeker"}, 6: {"learner"}, 19: {"learner"},
    }  # fmt: skip


def test_the_policy_takes_whole_observations_and_survives_saving(run: lab.Run, tmp_path: Path) -> None:
    policy = lab.load_policy(run.save_policy(tmp_path / "policy.safetensors", seed=1))
    observation = jnp.array([0.2, -0.4, 1.1])
    act = lambda p: p.act(observation, None, key=jax.random.key(0))[0]
    np.testing.assert_array_equal(act(policy), act(run.policy(seed=1)))
    critic = run.critic(seed=1)
    inner = critic.critic.values(critic.anchors(observation, key=jax.random.key(0)), act(policy))
    np.testing.assert_array_equal(critic.values(observation, act(policy)), inner)


def test_a_learner_that_needs_more_than_transitions_is_refused() -> None:
    with pytest.raises(lab.BadInput, match="PRDC is not"):
        lab.train(COCOA(learner=lab.PRDC()), example_recording(example_spec()), steps=1)
