"""Mixtures of Gaussians against scipy, and where a single Gaussian fails."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import policylab as lab
from policylab.examples import example_recording, example_spec
from policylab.experience import Window


def window_of(observation, action) -> Window:
    flag, count = jnp.zeros(len(action), bool), len(action)
    return Window(
        observation, action, jnp.zeros(count), observation, flag, flag, ~flag, jnp.ones(count, jnp.int32)
    )  # fmt: skip


@pytest.mark.parametrize("squash", ["none", "mean"])
def test_densities_are_those_of_scipy_per_environment_unit(squash):
    spec = example_spec()
    policy = lab.Mixture(experts=3, width=8, depth=1, squash=squash).build(spec, key=jax.random.key(0))
    random = np.random.default_rng(0)
    observation = jnp.asarray(random.normal(size=(5, 3)), jnp.float32)
    action = jnp.asarray(random.uniform(-2, 2, size=(5, 2)), jnp.float32)
    found = policy.log_prob(window_of(observation, action))
    for row in range(5):
        weight, mean, log_std = (np.asarray(x, np.float64) for x in policy.distribution(observation[row]))
        # Actions are in [-2, 2]: twice the unit in which the experts live.
        density = sum(
            np.exp(weight[k])
            * scipy.stats.multivariate_normal(2 * mean[k], np.diag((2 * np.exp(log_std[k])) ** 2)).pdf(action[row])
            for k in range(3)
        )
        np.testing.assert_allclose(found[row], np.log(density), rtol=2e-4, atol=2e-5)


def test_two_answers_are_kept_apart_where_a_gaussian_averages_them():
    spec = example_spec()
    recording = example_recording(spec, episodes=40)
    side = np.sign(np.random.default_rng(1).normal(size=(recording.steps, 1))).astype(np.float32)
    recording = lab.Recording(
        recording.observation, np.repeat(side, 2, axis=1), recording.reward, recording.terminal, recording.truncated,
        recording.lengths, spec,
    )  # fmt: skip
    play = jax.jit(lambda policy, keys: jax.vmap(lambda k: policy.act(jnp.zeros(3), None, key=k)[0])(keys))
    kept = {}
    for name, form in {
        "mixture": lab.Mixture(experts=4, width=16, depth=1),
        "gaussian": lab.Gaussian(width=16, depth=1),
    }.items():
        run = lab.train(lab.BC(learning_rate=1e-2, batch_size=64, policy=form), recording, steps=400)
        actions = np.asarray(play(run.policy(seed=0), jax.random.split(jax.random.key(0), 200)))
        kept[name] = np.mean(np.all(np.abs(np.abs(actions) - 1.0) < 0.3, axis=1) & (actions[:, 0] * actions[:, 1] > 0))
        assert name == "gaussian" or 0.2 < np.mean(actions[:, 0] > 0) < 0.8
    assert kept["mixture"] > 0.9
    assert kept["gaussian"] < 0.5


def test_a_mixture_without_experts_is_refused():
    with pytest.raises(lab.BadInput, match="at least 1"):
        lab.Mixture(experts=0).build(example_spec(), key=jax.random.key(0))
