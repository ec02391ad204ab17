"""Forms of several steps: what was done earlier counts, acting and judging agree to the digit, chunks are averaged as published."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.data.recording import Recording
from policylab.environments.pendulum import Pendulum
from policylab.environments.time_limit import TimeLimit
from policylab.errors import Unsupported
from policylab.experience import Spec
from policylab.policies.chunk import Plans
from policylab.spaces import Box, Discrete

KEY = jax.random.key(0)
SMALL = lab.Sequence(context=4, width=16, layers=1, heads=2)


def echo(episodes=30, length=12):
    """Random coins; the right action repeats the coin of the step before the last one."""
    coins = np.random.default_rng(0).integers(0, 2, (episodes, length + 1))
    action = np.concatenate([np.zeros((episodes, 2), int), coins[:, : length - 2]], axis=1)
    none = np.zeros(episodes * length, bool)
    spec = Spec(Discrete(2), Discrete(2), horizon=length)
    ends = none.copy()
    ends[length - 1 :: length] = True
    return Recording(coins.reshape(-1), action.reshape(-1), None, none, ends, np.full(episodes, length), spec)


def test_a_clone_remembers_what_it_saw():
    data = echo()
    run = lab.train(lab.BC(policy=SMALL, batch_size=32, learning_rate=1e-2), data, steps=250)
    loss = run.metrics[-1]["metrics"]["imitation_loss"][0]
    assert loss < 0.5, "0.69 without memory; half of the steps of a window have no two steps before them"
    policy, act = run.policy().mode(), jax.jit(lambda policy, o, m: policy.act(o, m, key=KEY))
    coins = np.random.default_rng(1).integers(0, 2, 12)
    memory, played = policy.initial_memory(key=KEY), []
    for coin in coins:
        action, memory = act(policy, jnp.asarray(coin), memory)
        played.append(int(action))
    np.testing.assert_array_equal(played[3:], coins[1:-2])


@pytest.mark.parametrize("horizon", [5, 50])
def test_what_was_sampled_is_judged_as_it_was_sampled(horizon):
    """Over windows longer than the context, that start in the middle of an episode and go on into the next one."""
    environment = TimeLimit(Pendulum(), horizon)
    policy = replace(SMALL, head=lab.Gaussian(depth=0)).build(environment.spec, key=KEY)
    policy = jax.tree.map(lambda leaf: 3.0 * leaf if leaf.ndim > 2 else leaf, policy)
    source = lab.Rollout(environment).serve({"windows": lab.Windows(2, future=7, fields=("log_prob",))})

    @jax.jit
    def batches(policy):
        products = {"policy": policy}
        state = source.init(products, key=KEY)
        clock = lab.Clock(jnp.asarray(0), jnp.asarray(2))
        state, _ = source.next(state, products, clock=clock, key=jax.random.key(1))
        _, batch = source.next(state, products, clock=clock, key=jax.random.key(2))
        return batch, jax.vmap(policy.log_prob)(batch)

    batch, again = batches(policy)
    np.testing.assert_allclose(again, batch.extra["log_prob"], atol=2e-4)


def test_a_chunk_is_the_average_of_the_plans_for_this_step_the_oldest_first():
    environment = Pendulum()
    policy = lab.Chunk(steps=3, width=8, depth=1, latent=2, decay=0.5).build(environment.spec, key=KEY).mode()
    seen = jax.random.normal(jax.random.key(3), (5, 3))
    plan = jax.jit(lambda policy, o: policy.plan(o, jnp.zeros(2)))
    plans = np.stack([plan(policy, o) for o in seen])  # [made at, step of it, 1]
    memory, act = policy.initial_memory(key=KEY), jax.jit(lambda policy, o, m: policy.act(o, m, key=KEY))
    for t in range(5):
        action, memory = act(policy, seen[t], memory)
        made = range(max(0, t - 2), t + 1)  # the oldest plan that still covers step t has weight 1
        weight = np.array([np.exp(-0.5 * i) for i in range(len(made))])
        expected = 2.0 * sum(w * plans[m, t - m] for w, m in zip(weight, made, strict=True)) / weight.sum()
        np.testing.assert_allclose(action, expected, atol=1e-5)
    played = lab.Chunk(steps=3, width=8, depth=1, latent=2, ensembling=False).build(environment.spec, key=KEY).mode()
    memory, act = played.initial_memory(key=KEY), jax.jit(lambda policy, o, m: policy.act(o, m, key=KEY))
    for t in range(5):
        action, memory = act(played, seen[t], memory)
        np.testing.assert_allclose(action, 2.0 * plans[t - t % 3, t % 3], atol=1e-5)
    assert isinstance(memory, Plans)


def test_the_loss_of_a_chunk_by_hand():
    policy = lab.Chunk(steps=3, width=8, depth=1, latent=2).build(Pendulum().spec, key=KEY)
    action = jnp.array([[1.0], [-2.0], [0.5]])
    seen = jax.random.normal(jax.random.key(4), (3, 3))
    no = jnp.zeros(3, bool)
    window = lab.Window(seen, action, jnp.zeros(3), seen, no, no, jnp.array([True, True, False]), jnp.ones(3, jnp.int32))
    found = jax.jit(lambda policy: policy.imitation_loss(window, key=KEY))(policy)
    encoder, decoder = policy.network.encoder, policy.network.decoder
    mean, log_std = np.split(np.asarray(encoder(jnp.concatenate([seen[0], action[:, 0] / 2.0]))), 2)
    log_std = np.clip(log_std, -4, 15)
    z = mean + np.exp(log_std) * np.asarray(jax.random.normal(KEY, (2,)))
    plan = np.tanh(np.asarray(decoder(jnp.concatenate([seen[0], jnp.asarray(z)]))))
    divergence = 0.5 * np.sum(mean**2 + np.exp(2 * log_std) - 2 * log_std - 1)
    expected = np.abs(plan - np.asarray(action)[:, 0] / 2.0) + 10.0 * divergence
    np.testing.assert_allclose(found, expected * np.array([1, 1, 0]), rtol=1e-4)
    with pytest.raises(Unsupported, match="windows of as many steps, not of 1"):
        policy.imitation_loss(jax.tree.map(lambda leaf: leaf[:1], window), key=KEY)


def test_behaviour_cloning_fits_chunks():
    start = np.random.default_rng(0).uniform(-1, 1, (100, 1, 1)).astype(np.float32)
    place = (start * 0.5 ** np.arange(7, dtype=np.float32)[:, None]).reshape(-1, 1)  # every step goes half of the way home
    action = (-0.5 * start * 0.5 ** np.arange(6, dtype=np.float32)[:, None]).reshape(-1, 1)
    none, ends = np.zeros(600, bool), np.arange(600) % 6 == 5
    spec = Spec(Box((1,)), Box((1,), -0.5, 0.5), horizon=6)
    data = Recording(place, action, None, none, ends, np.full(100, 6), spec)
    run = lab.train(lab.BC(policy=lab.Chunk(steps=3, width=32, latent=2), batch_size=64, learning_rate=3e-3), data, steps=300)
    policy, here = run.policy(), jnp.linspace(-0.9, 0.9, 7)[:, None]
    plan = jax.jit(jax.vmap(lambda o: policy.plan(o, jnp.zeros(2))))(here)[..., 0] * 0.5
    np.testing.assert_allclose(plan, -0.5 * here * 0.5 ** jnp.arange(3), atol=0.06)


def test_a_context_of_nothing_is_named():
    with pytest.raises(lab.BadInput, match=r"Sequence.context is 0"):
        lab.Sequence(context=0).build(Spec(Box((1,)), Box((1,), -1.0, 1.0)), key=KEY)
    with pytest.raises(lab.BadInput, match=r"Chunk.steps is 0"):
        lab.Chunk(steps=0).build(Spec(Box((1,)), Box((1,), -1.0, 1.0)), key=KEY)
