"""HILP: its losses by hand, distances of a small maze against counting steps, and what the policy can be told."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import policylab as lab
from policylab.learner import Clock
from policylab.learners.representation.hilp import HILP
from policylab.policies.prompted import Prompted
from tests.small import continuous_recording

KEY, CLOCK = jax.random.key(0), Clock(jnp.asarray(0), jnp.asarray(100))
TINY = {"width": 8, "depth": 1, "dimension": 3, "batch_size": 12}


def test_distances_are_those_of_goal_conditioned_iql():
    learner = HILP(**TINY)
    source = lab.Dataset.of(continuous_recording(episodes=4, length=6, reward=False)).serve(learner.needs)

    @jax.jit
    def once():
        state = learner.init(source.spec, key=KEY)
        state["slow encoder"] = jax.tree.map(lambda leaf: 0.9 * leaf, state["slow encoder"])
        batch = source.next(None, {}, clock=CLOCK, key=KEY)[1]
        reached = jnp.arange(12) < 3
        goal = jnp.where(reached[:, None], batch.observation, batch.extra["goal"])
        batch = dataclasses.replace(batch, extra={"goal": goal, "reached": reached})
        phi = {
            (name, of): jax.vmap(state[name] if name == "slow encoder" else state[name].model)(states)
            for name in ("encoder", "slow encoder")
            for of, states in (("here", batch.observation), ("after", batch.next_observation), ("goal", goal))
        }
        return state, phi, learner.update(state, batch, clock=CLOCK, key=KEY)

    state, phi, (after, metrics) = once()
    phi = {name: np.asarray(value, np.float64) for name, value in phi.items()}
    value = lambda name, of: -np.sqrt(np.maximum(((phi[name, of] - phi[name, "goal"]) ** 2).sum(-1), 1e-6))
    total = 0.0
    for i in range(12):
        reward, goes_on = (0.0, 0.0) if i < 3 else (-1.0, 0.99)
        following, slow, now = value("slow encoder", "after")[i], value("slow encoder", "here")[i], value("encoder", "here")[i]
        advantage = reward + goes_on * following.min() - slow.mean()
        total += sum((0.95 if advantage >= 0 else 0.05) * (reward + goes_on * following - now) ** 2)
    assert float(metrics["distance_loss"]) == pytest.approx(total / 12, rel=1e-4)
    followed = jax.tree.map(lambda slow, online: 0.995 * slow + 0.005 * online, state["slow encoder"], state["encoder"].model)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after["slow encoder"], followed)


def chain(states: int, *, walks: int, length: int):
    """Random walks along a row of numbered states; the action is the step."""
    random = np.random.default_rng(0)
    place = np.zeros((walks, length + 1), np.int32)
    place[:, 0] = random.integers(states, size=walks)
    step = random.choice([-1, 1], (walks, length))
    for t in range(length):
        place[:, t + 1] = np.clip(place[:, t] + step[:, t], 0, states - 1)
    ends = np.zeros((walks, length), bool)
    ends[:, -1] = True
    return lab.Recording(
        place.reshape(-1), step.reshape(-1, 1).astype(np.float32), None, np.zeros(walks * length, bool), ends.reshape(-1),
        np.full(walks, length), lab.Spec(lab.Discrete(states), lab.Box((1,), -1.0, 1.0)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def learned():
    learner = HILP(
        dimension=4, batch_size=64, width=32, depth=1, learning_rate=3e-3, target_rate=0.05, discount=0.95, skill_discount=0.9, temperature=30.0,
    )  # fmt: skip
    return lab.train(learner, lab.Dataset.of(chain(7, walks=60, length=30)), steps=600).products(seed=0)


def test_distances_grow_with_the_steps_between_states_of_a_table(learned):
    phi = np.asarray(jax.vmap(learned["encoder"])(jnp.arange(7)))
    found = np.linalg.norm(phi[:, None] - phi[None], axis=-1)
    steps = np.abs(np.arange(7)[:, None] - np.arange(7)[None])
    apart = steps > 0
    assert scipy.stats.spearmanr(found[apart], steps[apart]).statistic > 0.95
    assert 0.5 < np.median(found[steps == 1]) < 1.5  # one step costs about 1


def test_the_policy_goes_where_it_is_told_and_gains_what_it_is_shown(learned):
    policy = learned["policy"].mode()
    assert isinstance(policy, Prompted)
    act = jax.jit(lambda policy, state: policy.act(state, None, key=KEY)[0][0])
    assert float(act(policy.towards(jnp.asarray(6)), jnp.asarray(3))) > 0.1
    assert float(act(policy.towards(jnp.asarray(0)), jnp.asarray(3))) < -0.1
    states = jnp.arange(7)
    assert float(act(policy.rewarded(states, 1.0 * (states > 3)), jnp.asarray(3))) > 0.1
    assert float(act(policy.rewarded(states, -1.0 * states), jnp.asarray(3))) < -0.1
    assert float(jnp.linalg.norm(policy.rewarded(states, -1.0 * states).skill)) == pytest.approx(1.0, rel=1e-5)
