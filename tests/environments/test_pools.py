"""envpool's side of things without envpool: a stand-in keeps its conventions, and every promise of the pool is tried on it."""

from __future__ import annotations

import importlib.util
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environment import unroll
from policylab.environments import envpool
from policylab.environments.envpool import EnvPool
from policylab.environments.hosted import explained
from policylab.environments.pools import Pools
from policylab.errors import BadInput

LIMIT = 5
NUMBERS = itertools.count()  # arguments of their own give every test a host of its own


class Walkers:
    """Steps along a line from a random start, as envpool's pools do it: an episode ends by itself beyond 2, and by the clock after 5 steps;
    what is moved after its end begins anew instead."""

    def __init__(self, seeds):
        self.random = [np.random.default_rng(seed) for seed in seeds]
        self.place, self.time, self.done = np.zeros(len(seeds)), np.zeros(len(seeds), int), np.zeros(len(seeds), bool)
        self.calls = []

    def reset(self, ids=None):
        ids = np.arange(len(self.random), dtype=np.int32) if ids is None else ids
        for one in ids:
            self.place[one], self.time[one], self.done[one] = self.random[one].uniform(-0.1, 0.1), 0, False
        return self.place[ids, None].copy(), {"env_id": ids}

    def send(self, actions, ids):
        self.calls.append(len(ids))
        self.sent = ids
        for one, action in zip(ids, actions, strict=True):
            assert not self.done[one], "what has ended must be reset, not moved"
            self.place[one] += action[0]
            self.time[one] += 1
            self.done[one] = self.place[one] > 2 or self.time[one] == LIMIT

    def recv(self):
        back = self.sent[::-1]  # envpool may answer in another order, and says which
        truncated = self.time[back] == LIMIT
        terminal = self.done[back] & ~truncated
        reached = (self.place[back] > 2).astype(float)
        return self.place[back, None].copy(), self.place[back], terminal, truncated, {"env_id": back, "success": reached}


@pytest.fixture
def environment(monkeypatch):
    """`EnvPool` over the stand-in, with a host of its own."""
    opened = []

    def pools(*_):
        spec = lab.Spec(lab.Box((1,)), lab.Box((1,), -1.0, 1.0), horizon=LIMIT, environment="envpool:Walkers")
        make = lambda seeds: opened.append(Walkers(seeds)) or opened[-1]
        return Pools(make, spec, lambda value: np.array(value, np.float32), "success", capacity=4)

    monkeypatch.setattr(envpool, "_pools", pools)
    made = EnvPool("Walkers", number=next(NUMBERS))
    made.host.opened = opened
    return made


class Steady(lab.Policy):
    """The same step always."""

    step: jax.Array

    def act(self, observation, memory, *, key):
        return self.step, memory


def test_episodes_end_in_their_own_time_and_show_their_last_observation(environment):
    roll = jax.jit(lambda policy, key: unroll(policy, environment, episodes=3, horizon=7, key=key))
    play = lambda step, key: jax.device_get(roll(Steady(jnp.asarray([step])), jax.random.key(key)))
    one, same, other = play(0.1, 1), play(0.1, 1), play(0.1, 2)
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert not np.array_equal(one.observation[:, 0], other.observation[:, 0])
    assert one.lengths.tolist() == [LIMIT] * 3
    assert one.truncated.sum() == 3
    assert not one.terminal.any()
    fast, rows = play(1.0, 1), np.arange(3)
    last = fast.observation[:, 0, 0] + fast.lengths
    np.testing.assert_allclose(fast.observation[rows, fast.lengths, 0], last, rtol=1e-6)
    assert set(fast.lengths.tolist()) <= {2, 3}
    assert fast.terminal.sum() == 3
    assert not fast.truncated.any()
    np.testing.assert_array_equal(fast.success, 1.0)
    np.testing.assert_array_equal(fast.observation[:, -1], fast.observation[rows, fast.lengths])


def test_rollouts_go_on_in_place_with_one_call_for_all_copies_of_all_seeds(environment):
    def roll(seed):
        keys = jax.random.split(seed, 3)
        state, observation = jax.vmap(environment.reset)(keys)

        def move(carry, _):
            state, seen = carry
            state, following, step = jax.vmap(environment.step_and_renew)(state, jnp.full((3, 1), 0.1), keys, keys)
            return (state, following), (seen, step.observation, step.truncated)

        return jax.lax.scan(move, (state, observation), length=7)[1]

    rolled = jax.jit(jax.vmap(roll))
    seen, led, truncated = jax.device_get(rolled(jax.random.split(jax.random.key(0), 2)))
    (pool,) = environment.host.opened
    assert pool.calls == [6] * 7
    np.testing.assert_array_equal(np.flatnonzero(truncated[0, :, 0]), [4])
    np.testing.assert_allclose(led[:, 4], seen[:, 0] + 0.5, rtol=1e-5)  # the last one, not the one after the reset
    np.testing.assert_allclose(led[:, :4], seen[:, 1:5], rtol=1e-6)
    assert np.abs(seen[:, 5]).max() <= 0.1
    again = jax.device_get(rolled(jax.random.split(jax.random.key(0), 2)))[0]
    np.testing.assert_array_equal(again, seen)  # later episodes of the same keys, too
    # What a key begins does not depend on its neighbours.
    alone = environment.reset(jax.random.split(jax.random.split(jax.random.key(0), 2)[1], 3)[2])[1]
    np.testing.assert_array_equal(alone, seen[1, 0, 2])


def test_starts_are_shared_and_old_states_are_refused(environment):
    tables = Steady(jnp.asarray([[0.1], [-0.1]]))
    play = jax.jit(jax.vmap(lambda p: unroll(p, environment, episodes=2, horizon=3, key=jax.random.key(0))))
    observation = play(tables).observation
    np.testing.assert_array_equal(observation[0, :, 0], observation[1, :, 0])
    np.testing.assert_allclose(observation[0, :, 1] - observation[1, :, 1], 0.2, rtol=1e-5)
    key, still = jax.random.key(3), jnp.zeros(1)
    start, _ = environment.reset(key)
    middle, _ = environment.step(start, still, key)
    environment.step(middle, still, key)
    with pytest.raises(BadInput, match=r"envpool:Walkers was stepped twice"), explained():
        environment.step(middle, still, key)
    for number in range(environment.host.capacity):
        environment.reset(jax.random.key(number))
    with pytest.raises(BadInput, match=r"left for \d+ newer ones"):
        environment.host.step(np.array([start.slot]), np.zeros(1, np.int32), np.zeros((1, 1), np.float32))


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r'Hopper-v5 of envpool needs .* pip install "policylab\[envpool\]"'):
        lab.EnvPool("Hopper-v5", horizon=7)
