"""Learning for goals: how goals enter observations, who acts without being told one, and BESO's update."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import policylab as lab
from policylab.learner import Clock
from policylab.learners.imitation.goal_conditioned import Hindsight
from policylab.policies.aimed import Aimed
from policylab.policies.diffusion import Diffusion
from policylab.policy import imitation_loss
from tests.small import continuous_recording

KEY = jax.random.key(0)
SMALL = lab.Deterministic(width=8, depth=1)


def named(recording):
    """The same with a part of the observation that states a goal and one that tells it."""
    space = lab.Composite((("state", lab.Box((3,))), ("achieved", lab.Box((2,))), ("desired", lab.Box((2,)))))
    observation = {
        "state": recording.observation, "achieved": 5 * recording.observation[:, :2] + 1, "desired": 0 * recording.observation[:, :2]
    }  # fmt: skip
    return lab.Recording(
        observation, recording.action, None, recording.terminal, recording.truncated, recording.lengths,
        lab.Spec(space, recording.spec.action),
    )  # fmt: skip


@pytest.fixture(scope="module")
def dataset():
    return lab.Dataset.of(continuous_recording(episodes=4, length=6, reward=False))


def test_a_batch_as_its_goals_tell_it(dataset):
    batch = dataset.serve({"it": lab.Steps(50, goals=lab.Goals())}).next(
        None, {}, clock=Clock(jnp.asarray(0), jnp.asarray(1)), key=KEY
    )[1]
    seen = Hindsight().batch(batch)
    reached = np.asarray(batch.extra["reached"])
    np.testing.assert_array_equal(seen.reward, reached - 1.0)
    np.testing.assert_array_equal(seen.terminal, reached)
    np.testing.assert_array_equal(seen.observation["goal"], seen.next_observation["goal"])
    np.testing.assert_array_equal(seen.observation["observation"], batch.observation)
    assert 0 < reached.sum() < 50


def test_goals_take_the_statistics_of_what_states_them():
    spec = lab.Dataset.of(named(continuous_recording(episodes=4, length=6))).spec
    seen = Hindsight("achieved", "desired").spec(spec)
    assert seen.observation == spec.observation
    known, before = seen.statistics["observation"], spec.statistics["observation"]
    np.testing.assert_array_equal(known.std[5:], before.std[3:5])
    np.testing.assert_array_equal(known.std[:5], before.std[:5])
    plain = Hindsight("achieved").spec(spec)
    np.testing.assert_array_equal(plain.statistics["observation"].mean[7:], before.mean[3:5])
    with pytest.raises(lab.BadInput, match="do not fit into 'desired'"):
        Hindsight("state", "desired").spec(spec)
    with pytest.raises(lab.BadInput, match="no named parts"):
        Hindsight("", "desired").spec(continuous_recording().spec)


def test_a_learner_with_goals_in_its_observations_learns_to_go_where_it_is_told():
    """On a line where the action is the step taken, the cloned action points at the goal."""
    random = np.random.default_rng(0)
    step = random.choice([-1.0, 1.0], (40, 1)).repeat(8, axis=1).reshape(-1, 1).astype(np.float32)
    place = np.concatenate([np.concatenate([[[0.0]], np.cumsum(move, 0)]) for move in step.reshape(40, 8, 1)]).astype(
        np.float32
    )
    ends = np.zeros(320, bool)
    ends[7::8] = True
    spec = lab.Spec(lab.Box((1,)), lab.Box((1,), -1.0, 1.0))
    log = lab.Recording(place, step, None, np.zeros(320, bool), ends, np.full(40, 8), spec)
    learner = lab.GoalConditioned(lab.BC(learning_rate=1e-2, batch_size=64, policy=SMALL), 0.0, 1.0, 0.0)
    policy = lab.train(learner, lab.Dataset.of(log), steps=150).policy(seed=0)
    assert isinstance(policy, Aimed)
    for goal in (-6.0, 6.0):
        action = policy.towards(jnp.array([goal])).act(jnp.zeros(1), None, key=KEY)[0]
        assert float(action[0] * np.sign(goal)) > 0.8


def test_beso_steps_as_adamw_and_acts_with_the_average(dataset):
    form = Diffusion(width=8, depth=1, levels=2, masked="goal")
    learner = lab.BESO(batch_size=16, learning_rate=1e-2, average=0.9, policy=form)
    source = dataset.serve(learner.needs)
    batch = source.next(None, {}, clock=Clock(jnp.asarray(0), jnp.asarray(1)), key=KEY)[1]
    state = jax.jit(lambda: learner.init(source.spec, key=KEY))()
    first = state["policy"].model
    after, _ = jax.jit(lambda s: learner.update(s, batch, clock=Clock(jnp.asarray(250), jnp.asarray(1000)), key=KEY))(state)

    loss = lambda network: jnp.mean(
        imitation_loss(dataclasses.replace(first, network=network), Hindsight().batch(batch), key=KEY)
    )
    optimiser = optax.adamw(1e-2 * 0.99**2, weight_decay=0.01)  # 250 updates: the rate has been lowered twice
    by_hand = lambda network: optimiser.update(jax.grad(loss)(network), optimiser.init(network), network)[0]
    expected = optax.apply_updates(first.network, jax.jit(by_hand)(first.network))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, after["policy"].model.network, expected)
    jax.tree.map(lambda mean, a, b: close(mean, 0.9 * a + 0.1 * b), after["average"].network, first.network, expected)
    acts = learner.products(after)["policy"].policy
    jax.tree.map(close, acts.network, after["average"].network)
