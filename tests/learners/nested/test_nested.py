"""Learners made of learners, against running the parts by hand."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environment import Step
from policylab.environments.joint import Joint
from policylab.environments.seats import seat
from policylab.environments.time_limit import TimeLimit
from policylab.experience import Spec
from policylab.learner import Clock
from policylab.spaces import Box, Discrete
from tests.small import continuous_dataset

CLOCK = Clock(jnp.asarray(0), jnp.asarray(10))


def same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), a, b)


class Lead(lab.Environment):
    """Two choose 0 or 1: the leader wants 1, the follower wants what the leader chooses."""

    both: float = eqx.field(static=True, default=0.0)

    @property
    def spec(self):
        return Spec(Box((1,)), Discrete(2), roles=("leader", "follower"))

    def reset(self, key):
        return jnp.zeros(()), jnp.ones((2, 1))

    def step(self, state, action, key):
        reward = jnp.stack([action[0] == 1, action[0] == action[1]]).astype(jnp.float32)
        return state, Step(jnp.ones((2, 1)), reward, jnp.zeros(2, bool), jnp.zeros(2, bool))


PLACE = TimeLimit(Joint(Lead()), 4)


def a2c(rate=1e-2):
    return lab.A2C(environments=4, steps=4, width=4, depth=1, learning_rate=rate, discount=0.0)


def ppo():
    return lab.PPO(
        environments=4, steps=4, batch_size=16, epochs=2, width=4, depth=1, normalise=False, discount=0.0, learning_rate=0.03
    )


def test_roles_learn_as_each_would_alone_and_both_reach_their_best():
    both = lab.Roles({"leader": ppo(), "follower": a2c(0.03)})
    source = lab.Rollout(PLACE).serve(both.needs)
    key = jax.random.key(1)

    @jax.jit
    def once():
        state = both.init(source.spec, key=key)
        products = both.products(state)
        batch = source.next(source.init(products, key=key), products, clock=CLOCK, key=key)[1]
        after, metrics = both.update(state, batch, clock=CLOCK, key=key)
        own = seat(batch, ("leader", "follower"), "follower")
        alone, _ = a2c(0.03).update(state["roles"]["follower"], own, clock=CLOCK, key=jax.random.split(key)[1])
        return after["roles"]["follower"], alone, metrics

    after, alone, metrics = once()
    same(after, alone)
    assert "leader/kl" in metrics
    assert "follower/entropy" in metrics
    run = lab.train(both, lab.Rollout(PLACE), steps=100)
    policy, observation = run.policy().mode(), PLACE.reset(key)[1]
    action, _ = policy.act(observation, policy.initial_memory(key=key), key=key)
    assert {role: int(choice) for role, choice in action.items()} == {"leader": 1, "follower": 1}


def test_members_are_copies_that_act_and_learn_for_themselves():
    copies = lab.Members(lab.PPO(environments=2, steps=4, batch_size=8, epochs=1, width=4, depth=1, normalise=False), 3)
    source = lab.Rollout(lab.load_task("cartpole").environment()).serve(copies.needs)
    key = jax.random.key(0)

    @jax.jit
    def once():
        state = copies.init(source.spec, key=key)
        products = copies.products(state)
        batch = source.next(source.init(products, key=key), products, clock=CLOCK, key=key)[1]
        after, metrics = copies.update(state, batch, clock=CLOCK, key=key)
        one, part = jax.tree.map(lambda leaf: leaf[2], (state["members"], batch))
        alone, _ = copies.learner.update(one, part, clock=CLOCK, key=jax.random.split(key, 3)[2])
        return batch, after, alone, metrics

    batch, after, alone, metrics = once()
    assert batch.reward.shape == (3, 2, 4)
    assert not np.allclose(batch.observation[0], batch.observation[1])
    same(jax.tree.map(lambda leaf: leaf[2], after["members"]), alone)
    assert np.ndim(metrics["kl"]) == 0
    assert copies.products(after)["policy"].size == 3
    with pytest.raises(lab.BadInput, match="what each does itself"):
        copies.update(after, jax.tree.map(lambda leaf: leaf[0], batch), clock=CLOCK, key=key)


def test_members_share_the_batches_of_a_dataset_and_two_learners_take_turns():
    small = lab.BC(policy=lab.Gaussian(width=4, depth=1), batch_size=8)
    turns = lab.Alternate(small, lab.Members(small, 2), every=3)
    assert turns.needs == small.needs
    source = continuous_dataset().serve(turns.needs)
    keys = jax.random.split(jax.random.key(0), 8)
    begin = state = jax.jit(lambda key: turns.init(source.spec, key=key))(keys[0])

    @jax.jit
    def once(state, alone, own, step, key):
        batch = source.next(None, {}, clock=CLOCK, key=key)[1]
        by_hand = small.update(alone, batch, clock=Clock(own, jnp.asarray(5)), key=key)[0]
        return *turns.update(state, batch, clock=Clock(step, jnp.asarray(8)), key=key), by_hand

    alone, own, seconds = begin["first"], 0, []
    for step in range(8):
        state, metrics, by_hand = once(state, alone, jnp.asarray(own), jnp.asarray(step), keys[step])
        mine = step // 3 % 2 == 0  # steps 0-2 and 6-7 are the first one's
        alone, own = (by_hand, own + 1) if mine else (alone, own)
        same(state["first"], alone)
        seconds.append(state["second"])
        assert {bool(m.present) for name, m in metrics.items() if name.startswith("first/")} == {mine}
        assert {bool(m.present) for name, m in metrics.items() if name.startswith("second/")} == {not mine}
    same(seconds[2], begin["second"])
    assert not np.allclose(*[jax.tree.leaves(seconds[i])[0] for i in (2, 5)])
    same(seconds[5], seconds[7])
    assert own == 5
    products = turns.products(state)
    assert {"policy", "second/policy"} <= set(products)


def test_roles_that_do_not_fit_are_said():
    with pytest.raises(lab.BadInput, match="the game has the roles leader, follower"):
        lab.Roles({"leader": a2c(), "other": a2c()}).init(PLACE.spec, key=jax.random.key(0))
    with pytest.raises(lab.BadInput, match="same steps and environments"):
        _ = lab.Roles({"leader": a2c(), "follower": lab.A2C()}).needs
