"""PROPS: its losses by hand, what it keeps, plain PPO as its special case, and a behaviour that avoids what was seen too often."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.experience import Window
from policylab.learner import Clock
from policylab.learners.online.props import avoided, divergences
from policylab.policies.tabular import TabularPolicy

SPEC = lab.Spec(lab.Discrete(5), lab.Discrete(3))
TOTAL = 100


def windows(seed, length=4, environments=2):
    """Random steps in five states, one of which always meets the first action."""
    random = np.random.default_rng(seed)
    shape = (environments, length)
    states = random.integers(0, 5, (environments, length + 1))
    action = np.where(states[:, :-1] == 0, 0, random.integers(0, 3, shape))
    return Window(
        jnp.asarray(states[:, :-1], jnp.int32), jnp.asarray(action, jnp.int32), jnp.asarray(random.normal(size=shape), jnp.float32),
        jnp.asarray(states[:, 1:], jnp.int32), jnp.asarray(random.random(shape) < 0.2), jnp.zeros(shape, bool), jnp.ones(shape, bool),
        jnp.ones(shape, jnp.int32), extra={"log_prob": jnp.full(shape, -jnp.log(3.0))},
    )  # fmt: skip


def learner(**options):
    settings = {"steps": 4, "period": 2, "environments": 2, "batch_size": 8, "width": 8, "depth": 1, "policy": lab.Tabular()}
    return lab.PROPS(**{**settings, **options})


@pytest.fixture(scope="module")
def run():
    """Five updates of a learner that keeps two batches of two parts."""
    tuned = learner(behaviour_rate=0.05, behaviour_epochs=8, behaviour_stop=1.0, learning_rate=0.01)
    update = jax.jit(lambda s, b, step: tuned.update(s, b, clock=Clock(step, jnp.asarray(TOTAL)), key=jax.random.key(7)))
    state, batches, states = tuned.init(SPEC, key=jax.random.key(0)), [windows(i) for i in range(5)], []
    for step, batch in enumerate(batches):
        state, metrics = update(state, batch, jnp.asarray(step))
        states.append((state, metrics))
    return tuned, batches, states


def test_it_keeps_the_last_batches_in_order(run):
    _, batches, states = run
    kept = states[-1][0]["kept"]
    np.testing.assert_array_equal(kept.reward, np.concatenate([batch.reward for batch in batches[1:]], axis=1))
    assert np.asarray(states[1][0]["kept"].valid).sum() == 16  # only what was there


def test_the_target_moves_after_every_period(run):
    _, _, states = run
    tables = [np.asarray(state["model"].model["policy"].table) for state, _ in states]
    assert not tables[0].any()
    assert tables[1].any()
    np.testing.assert_array_equal(tables[1], tables[2])
    assert np.abs(tables[3] - tables[2]).max() > 0
    assert [bool(metrics["policy_loss"].present) for _, metrics in states] == [False, True, False, True, False]


def test_the_behaviour_avoids_what_was_seen_too_often(run):
    tuned, _, states = run
    state = states[0][0]
    products = tuned.products(state)
    acting, target = (np.asarray(products[name].table[0]) for name in ("explorer", "policy"))
    np.testing.assert_array_equal(target, 0.0)
    assert acting[0] < -0.05  # always taken in state 0, of three that are equally likely
    assert acting[1] == pytest.approx(acting[2], abs=1e-5)
    assert acting[1] > 0.02
    assert float(states[0][1]["behaviour_kl"]) > 0


def test_with_one_batch_and_no_behaviour_it_is_ppo():
    ours = learner(batches=1, behaviour_epochs=0)
    theirs = lab.PPO(environments=2, steps=8, batch_size=8, width=8, depth=1, policy=lab.Tabular(), learning_rate=1e-3,
                     entropy_weight=0.01, epochs=4, normalise=False)  # fmt: skip
    state, key = ours.init(SPEC, key=jax.random.key(0)), jax.random.key(7)
    batches = [windows(i) for i in range(2)]
    after = state
    update = jax.jit(lambda s, b, step: ours.update(s, b, clock=Clock(step, jnp.asarray(TOTAL)), key=key)[0])
    for step, batch in enumerate(batches):
        after = update(after, batch, jnp.asarray(step))
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *batches)
    clock = Clock(jnp.asarray(1), jnp.asarray(TOTAL))
    plain, _ = jax.jit(lambda s: theirs.update({"model": s}, joined, clock=clock, key=jax.random.split(key)[0]))(state["model"])
    for a, b in zip(jax.tree.leaves(after["model"].model), jax.tree.leaves(plain["model"].model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(after["behaviour"].table, after["model"].model["policy"].table)


def test_losses_by_hand():
    ratio = np.array([0.5, 0.9, 1.2, 2.0])
    np.testing.assert_allclose(avoided(jnp.log(ratio), 0.3), [0.7, 0.9, 1.2, 2.0], rtol=1e-6)  # too rare already: no gradient
    tables = [np.random.default_rng(i).normal(size=(5, 3)).astype(np.float32) for i in range(2)]
    p, q = (np.exp(table) / np.exp(table).sum(1, keepdims=True) for table in tables)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1), windows(0))
    target, policy = (TabularPolicy(jnp.asarray(table)) for table in tables)
    exact = np.sum(p * np.log(p / q), axis=1)[np.asarray(flat.observation)]
    np.testing.assert_allclose(jax.jit(divergences)(target, policy, flat, key=jax.random.key(0)), exact, rtol=1e-4)
    spec = lab.Spec(lab.Box((2,)), lab.Box((1,), -1.0, 1.0))
    form = lab.Gaussian(width=4, depth=1, squash="sample")
    target, policy = (form.build(spec, key=jax.random.key(seed)) for seed in (0, 1))
    many = replace(flat, observation=jnp.ones((8, 2)), action=jnp.zeros((8, 1)))
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf, 500, axis=0), many)
    (m, s), (n, t) = (np.asarray(policy.distribution(jnp.ones(2))) for policy in (target, policy))
    exact = np.sum(t - s + (np.exp(2 * s) + (m - n) ** 2) / (2 * np.exp(2 * t)) - 0.5)
    estimate = np.asarray(jax.jit(divergences)(target, policy, many, key=jax.random.key(0)))
    assert abs(float(estimate.mean()) - exact) < 4 * float(estimate.std()) / np.sqrt(4_000)
