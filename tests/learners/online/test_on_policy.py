"""Advantages and losses of the on-policy learners against loops in NumPy and rlax; PPO learns to balance."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rlax

import policylab as lab
from policylab.environment import unroll
from policylab.examples import example_spec
from policylab.experience import Window
from policylab.learner import Clock
from policylab.learners.online.ppo import clipped_objective
from policylab.learners.online.reinforce import discounted_to_go
from policylab.policy import log_prob
from policylab.scorers.advantage import advantages

CLOCK = Clock(jnp.asarray(0), jnp.asarray(10))
KEY = jax.random.key(5)


def windows(*, environments=3, steps=8, discrete=True, terminal=0.15, truncated=0.15, valid=True):
    """Random experience with ends of both kinds inside."""
    random = np.random.default_rng(3)
    shape = (environments, steps)
    ended = random.uniform(size=shape)
    action = random.integers(0, 3, shape) if discrete else random.uniform(-1.9, 1.9, (*shape, 2)).astype(np.float32)
    observation, following = (random.standard_normal((*shape, 3)).astype(np.float32) for _ in range(2))
    mask = (
        np.arange(steps) < np.array([steps, steps - 3, 2])[:environments, None] if valid == "padded" else np.ones(shape, bool)
    )
    columns = (
        observation, action, random.standard_normal(shape).astype(np.float32), following, ended < terminal, ended > 1 - truncated,
        mask, np.ones(shape, np.int32),
    )  # fmt: skip
    log_probability = np.log(random.uniform(0.2, 0.6, shape)).astype(np.float32)
    return Window(*map(jnp.asarray, columns), extra={"log_prob": jnp.asarray(log_probability)})


def by_hand(window, value, after, discount, trace):
    """Generalised advantages as a loop over time."""
    reward, terminal, truncated, valid = (np.asarray(getattr(window, n)) for n in ("reward", "terminal", "truncated", "valid"))
    out = np.zeros(reward.shape)
    for e in range(reward.shape[0]):
        later = 0.0
        for t in reversed(range(reward.shape[1])):
            if not valid[e, t]:
                later = 0.0
                continue
            delta = reward[e, t] + discount * (not terminal[e, t]) * after[e, t] - value[e, t]
            later = delta + discount * trace * (not (terminal[e, t] or truncated[e, t])) * later
            out[e, t] = later
    return out


@pytest.mark.parametrize("valid", [True, "padded"])
@pytest.mark.parametrize("trace", [0.0, 0.9, 1.0])
def test_advantages_are_those_of_a_loop(trace, valid):
    window = windows(valid=valid)
    value, after = (np.random.default_rng(n).standard_normal((3, 8)).astype(np.float32) for n in (1, 2))
    ours = jax.vmap(lambda w, v, n: advantages(w, v, n, discount=0.97, trace=trace))(
        window, jnp.asarray(value), jnp.asarray(after)
    )
    np.testing.assert_allclose(ours, by_hand(window, value, after, 0.97, trace), rtol=1e-4, atol=1e-5)


def test_advantages_are_those_of_rlax_where_no_time_limit_strikes():
    window = jax.tree.map(lambda leaf: leaf[0], windows(truncated=-1.0, terminal=0.3))
    value = jnp.asarray(np.random.default_rng(1).standard_normal(9), jnp.float32)
    ours = advantages(window, value[:-1], value[1:], discount=0.97, trace=0.9)
    theirs = rlax.truncated_generalized_advantage_estimation(window.reward, 0.97 * window.continues, 0.9, value)
    assert window.terminal.any()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_clipped_objective_by_hand():
    ratio, advantage = jnp.array([0.5, 0.5, 1.0, 1.5, 1.5, 1.1]), jnp.array([2.0, -2.0, 3.0, 2.0, -2.0, 1.0])
    expected = [1.0, -1.6, 3.0, 2.4, -3.0, 1.1]  # the smaller of w A and clip(w, 0.8, 1.2) A
    np.testing.assert_allclose(clipped_objective(jnp.log(ratio), advantage, 0.2), expected, rtol=1e-5)
    slope = jax.grad(lambda x: clipped_objective(x, advantage, 0.2).sum())(jnp.log(ratio))
    np.testing.assert_allclose(slope, [1.0, 0.0, 3.0, 0.0, -3.0, 1.1], rtol=1e-5)  # w A where it is not clipped
    rlaxs = rlax.clipped_surrogate_pg_loss(ratio, advantage, 0.2)
    np.testing.assert_allclose(-np.mean(expected), rlaxs, rtol=1e-5)


@pytest.mark.parametrize("discrete", [True, False])
def test_one_step_of_ppo_by_hand(discrete):
    """With one minibatch and one epoch, the metrics are those of the losses before the step."""
    window = windows(discrete=discrete)
    learner = lab.PPO(width=8, depth=1, environments=3, steps=8, batch_size=24, epochs=1)
    state = learner.init(example_spec(discrete=discrete), key=KEY)
    after, metrics = jax.jit(lambda s: learner.update(s, window, clock=CLOCK, key=KEY))(state)
    model = state["model"].model
    value, following = (
        np.asarray(jax.vmap(jax.vmap(model["value"]))(o)) for o in (window.observation, window.next_observation)
    )
    advantage = by_hand(window, value, following, 0.99, 0.95)
    np.testing.assert_allclose(metrics["value_loss"], np.mean(advantage**2), rtol=1e-4)  # V - R is minus the advantage
    ratio = np.exp(np.asarray(log_prob(model["policy"], window)) - np.asarray(window.extra["log_prob"]))
    normal = (advantage - advantage.mean()) / advantage.std()
    objective = np.minimum(ratio * normal, np.clip(ratio, 0.8, 1.2) * normal)
    np.testing.assert_allclose(metrics["policy_loss"], -objective.mean(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(metrics["clipped"], np.mean(np.abs(ratio - 1) > 0.2), rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], np.mean(ratio - 1 - np.log(ratio)), rtol=1e-3)
    assert not np.array_equal(after["model"].model["policy"].network.layers[0].weight, model["policy"].network.layers[0].weight)


def test_observations_are_normalised_by_all_that_were_seen():
    """Sampling and training see the same numbers: the normalisers change after an update, for policy and value alike."""
    batches = [
        windows(),
        jax.tree.map(lambda leaf: 3 * leaf + 1 if leaf.dtype == jnp.float32 else leaf, windows(valid="padded")),
    ]
    learner = lab.PPO(width=8, depth=1, batch_size=24, epochs=1)
    state = learner.init(dataclasses.replace(example_spec(discrete=True), statistics={}), key=KEY)
    update = jax.jit(lambda state, window: learner.update(state, window, clock=CLOCK, key=KEY)[0])
    for batch in batches:
        state = update(state, batch)
    rows = np.concatenate([np.asarray(b.observation)[np.asarray(b.valid)] for b in batches])
    for part in state["model"].model.values():
        np.testing.assert_allclose(part.normaliser.mean, rows.mean(0), rtol=1e-4)
        np.testing.assert_allclose(part.normaliser.std, rows.std(0) + 1e-3, rtol=1e-4)


def test_ppo_refuses_minibatches_that_leave_steps_over():
    learner = lab.PPO(width=4, depth=1, batch_size=7)
    state = learner.init(example_spec(discrete=True), key=KEY)
    with pytest.raises(lab.BadInput, match="does not divide the 24 steps"):
        learner.update(state, windows(), clock=CLOCK, key=KEY)


def test_one_step_of_a2c_by_hand():
    window = windows()
    learner = lab.A2C(width=8, depth=1)
    state = learner.init(example_spec(discrete=True), key=KEY)
    after, metrics = jax.jit(lambda s: learner.update(s, window, clock=CLOCK, key=KEY))(state)
    model = state["model"].model
    value, following = (
        np.asarray(jax.vmap(jax.vmap(model["value"]))(o)) for o in (window.observation, window.next_observation)
    )
    advantage = by_hand(window, value, following, 0.99, 1.0)
    likelihood = np.asarray(log_prob(model["policy"], window))
    np.testing.assert_allclose(metrics["policy_loss"], -np.mean(likelihood * advantage), rtol=1e-4)
    np.testing.assert_allclose(metrics["value_loss"], np.mean(advantage**2), rtol=1e-4)
    logits = np.asarray(jax.vmap(jax.vmap(model["policy"].action_logits))(window.observation), np.float64)
    share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(metrics["entropy"], -np.mean(np.sum(share * np.log(share), -1)), rtol=1e-4)

    def loss(model):
        entropy = jax.vmap(jax.vmap(model["policy"].entropy))(window.observation).mean()
        error = jnp.mean((jax.vmap(jax.vmap(model["value"]))(window.observation) - advantage - value) ** 2)
        return -jnp.mean(log_prob(model["policy"], window) * advantage) + 0.5 * error - 0.01 * entropy

    gradient = jax.grad(lambda weight: loss({**model, "value": _with_last(model["value"], weight)}))(_last(model["value"]))
    whole = optax.tree.norm(
        [leaf for leaf in jax.tree.leaves(jax.grad(loss, allow_int=True)(model)) if leaf.dtype == np.float32]
    )
    gradient = gradient * jnp.minimum(1.0, 0.5 / whole)
    expected = _last(model["value"]) - 7e-4 * gradient / (jnp.sqrt(0.01 * gradient**2) + 1e-5)
    np.testing.assert_allclose(_last(after["model"].model["value"]), expected, rtol=1e-4, atol=1e-6)


def _last(value):
    return value.network.layers[-1].weight


def _with_last(value, weight):
    return eqx.tree_at(_last, value, weight)


def test_reinforce_by_hand():
    window = windows(valid="padded")
    gain = discounted_to_go(window.reward, 0.9)
    np.testing.assert_allclose(gain[0, 5], sum(0.9**k * window.reward[0, 5 + k] for k in range(3)), rtol=1e-5)
    learner = lab.REINFORCE(width=8, depth=1, discount=0.9)
    state = learner.init(example_spec(discrete=True), key=KEY)
    _, metrics = jax.jit(lambda s: learner.update(s, window, clock=CLOCK, key=KEY))(state)
    valid, likelihood = np.asarray(window.valid), np.asarray(log_prob(state.model, window))
    total, reward = 0.0, np.asarray(window.reward) * valid
    back = np.stack([sum(0.9 ** (k - t) * reward[:, k] for k in range(t, 8)) for t in range(8)], axis=1)
    for e in range(3):
        for t in range(8):
            if valid[e, t]:
                others = np.mean([back[o, t] for o in range(3) if o != e])
                total += likelihood[e, t] * (back[e, t] - others)
    np.testing.assert_allclose(metrics["policy_loss"], -total / 3 / 100, rtol=1e-4)
    np.testing.assert_allclose(metrics["return"], reward.sum() / 3, rtol=1e-5)
    np.testing.assert_allclose(metrics["length"], valid.sum() / 3)


def test_ppo_balances_the_pole():
    environment = lab.load_task("cartpole").environment()
    learner = lab.PPO(environments=8, steps=128, batch_size=256, epochs=8, learning_rate=3e-3, width=32)
    run = lab.train(learner, lab.Rollout(environment), steps=30)
    found = unroll(run.policy(), environment, episodes=10, horizon=500, key=jax.random.key(9))
    assert float(found.returns.mean()) > 200, "30 720 steps should do; a random policy keeps it up for 22"


def test_reinforce_balances_for_longer():
    environment = lab.load_task("cartpole").environment()
    learner = lab.REINFORCE(learning_rate=1e-2, width=16, depth=1)
    run = lab.train(learner, lab.Rollout(environment, steps=100), steps=30)
    assert run.metrics[-1]["metrics"]["return"][0] > 60, "a random policy gets 22"


def test_a2c_balances_for_longer():
    environment = lab.load_task("cartpole").environment()
    run = lab.train(lab.A2C(learning_rate=3e-3, width=32, depth=1), lab.Rollout(environment), steps=500)
    found = unroll(run.policy(), environment, episodes=10, horizon=200, key=jax.random.key(9))
    assert float(found.returns.mean()) > 60
