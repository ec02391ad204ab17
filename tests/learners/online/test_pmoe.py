"""PMoE's losses by hand, and the gradient of the gate by each way to learn it."""

from __future__ import annotations

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.examples import example_recording, example_spec
from policylab.learner import Clock
from policylab.policy import log_prob

KEY = jax.random.key(5)
CLOCK = Clock(jnp.asarray(0), jnp.asarray(9))
FORM = lab.Mixture(experts=3, width=8, depth=1, squash="sample", log_std_range=(-20.0, 2.0))


def learner(**options):
    return lab.PMoE(width=8, depth=1, batch_size=16, temperature=0.3, policy=FORM, **options)


@pytest.fixture(scope="module")
def started():
    source = lab.Dataset.of(example_recording(example_spec())).serve(learner().needs)
    batch = source.next(None, {}, clock=CLOCK, key=KEY)[1]
    state, other = (jax.jit(lambda k: learner().init(source.spec, key=k))(jax.random.key(seed)) for seed in (0, 1))
    return {**state, "target": other["target"]}, batch


def test_the_gate_counts_who_is_best_and_the_best_climbs(started):
    state, batch = started
    policy, critic = state["policy"].model, state["critic"].model
    loss = jax.jit(lambda policy: learner().policy_loss(policy, critic, jnp.asarray(0.3), batch, key=KEY))
    value, log_probability = loss(policy)

    @jax.jit
    def looked(policy, observation, key):
        actions, u, own = policy.proposals(observation, key=key)
        return (
            actions,
            u,
            own,
            policy.distribution(observation),
            jax.vmap(lambda a: critic.values(observation, a).min())(actions),
        )

    expected, bests = [], []
    for i, key in enumerate(jax.random.split(KEY, 16)):
        actions, u, own, (weight, mean, log_std), q = jax.tree.map(np.asarray, looked(policy, batch.observation[i], key))
        np.testing.assert_allclose(actions, 2.0 * np.tanh(u), rtol=1e-4)  # half the range is 2
        normal = -0.5 * ((u - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
        np.testing.assert_allclose(own, np.sum(normal - np.log(2.0 * (1 - np.tanh(u) ** 2)), axis=1), rtol=1e-3, atol=1e-3)
        best = int(q.argmax())
        share = np.mean((np.exp(np.asarray(weight)) - np.eye(3)[best]) ** 2)
        expected.append(share + 0.3 * own[best] - q[best])
        bests.append(best)
        np.testing.assert_allclose(log_probability[i], own[best], rtol=1e-4, atol=1e-4)
    assert len(set(bests)) > 1
    np.testing.assert_allclose(value, np.mean(expected), rtol=1e-4)


def test_the_target_counts_the_density_of_the_expert_that_acts(started):
    state, batch = started
    goal_key, _ = jax.random.split(KEY)
    _, metrics = jax.jit(lambda s: learner().update(s, batch, clock=CLOCK, key=KEY))(state)
    draw = jax.jit(lambda policy: learner().draw(policy, batch.next_observation, key=goal_key))
    action, log_probability = draw(state["policy"].model)
    values = jax.jit(lambda critic, o, a: jax.vmap(critic.values)(o, a))
    soft = values(state["target"], batch.next_observation, action).min(1) - 0.3 * np.asarray(log_probability)
    goal = np.asarray(batch.reward) + 0.99 * ~np.asarray(batch.terminal) * soft
    q = values(state["critic"].model, batch.observation, batch.action)
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(np.sum((q - goal[:, None]) ** 2, 1)), rtol=1e-4)
    whole = np.asarray(
        jax.jit(log_prob)(state["policy"].model, replace(batch, observation=batch.next_observation, action=action))
    )
    np.testing.assert_array_less(np.asarray(log_probability) + np.log(0.1), whole)  # w_k pi_k is part of the mixture's density


@pytest.fixture(scope="module")
def many(started):
    """One state 20 000 times; the loss as a function of the gate's last biases, and minus the value of the mixture there, without entropy."""
    state, batch = started
    policy, critic = state["policy"].model, state["critic"].model
    gate = lambda policy: policy.network.layers[-1].bias
    one = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], 20_000, axis=0), batch)

    def sampled(tuned, bias):
        return tuned.policy_loss(eqx.tree_at(gate, policy, bias), critic, jnp.asarray(0.0), one, key=KEY)[0]

    def exact(bias):
        moved = eqx.tree_at(gate, policy, bias)
        keys = jax.random.split(jax.random.key(3), 20_000)
        actions, _, _ = jax.vmap(lambda k: moved.proposals(one.observation[0], key=k))(keys)
        q = jax.vmap(jax.vmap(lambda a: jnp.min(critic.values(one.observation[0], a))))(actions)
        return -jnp.sum(jnp.exp(moved.distribution(one.observation[0])[0]) * jnp.mean(q, axis=0))

    return gate(policy), sampled, jax.jit(jax.value_and_grad(exact))(gate(policy))


@pytest.mark.parametrize("gate", ["gumbel", "score"])
def test_other_gates_have_the_value_of_the_mixture_and_the_score_function_its_gradient(many, gate):
    bias, sampled, (value, gradient) = many
    ours, slope = jax.jit(jax.value_and_grad(lambda bias: sampled(learner(gate=gate, gate_weight=0.0), bias)))(bias)
    np.testing.assert_allclose(ours, value, atol=0.01)
    if gate == "gumbel":  # biased, but it moves the gate and not only the experts
        assert np.abs(slope[:3]).max() > 0
    else:
        np.testing.assert_array_equal(slope[:3], 0.0)  # a choice that was drawn has no gradient of its own ...
        slope = jax.jit(jax.grad(lambda bias: sampled(learner(gate=gate), bias)))(bias)
        np.testing.assert_allclose(
            slope[:3], gradient[:3], atol=0.2 * float(np.abs(gradient[:3]).max())
        )  # ... but its score has


def test_what_pmoe_needs_is_said():
    with pytest.raises(lab.BadInput, match="needs a Mixture, not Gaussian"):
        lab.PMoE(policy=lab.Gaussian()).init(example_spec(), key=KEY)
