"""A2PR and its VAE against NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from policylab.learners.offline.a2pr import A2PR
from policylab.networks.cvae import ConditionalVAE
from policylab.policies.deterministic import Deterministic
from tests.learners.offline.test_continuous_losses import KEY, SMALL, compiled, policy_actions, prepare, q_of, state_values
from tests.small import continuous_dataset

FORM = Deterministic(width=8, depth=1)


@pytest.fixture(scope="module")
def dataset():
    return continuous_dataset()


def perceptron(network, x):
    """Rectified layers in float64."""
    *hidden, last = network.layers
    for layer in hidden:
        x = np.maximum(x @ np.asarray(layer.weight, np.float64) + np.asarray(layer.bias), 0.0)
    return x @ np.asarray(last.weight, np.float64) + np.asarray(last.bias)


def reconstruct(vae, condition, x, noise):
    """Decoded vectors [row, size] and the divergence of every latent number [row, latent]."""
    mean, log_std = np.split(perceptron(vae.encoder, np.concatenate([condition, x], 1)), 2, axis=1)
    std = np.exp(np.clip(log_std, -4.0, 15.0))
    decoded = np.tanh(perceptron(vae.decoder, np.concatenate([condition, mean + std * noise], 1)))
    return decoded, -np.log(std) + 0.5 * (std**2 + mean**2 - 1.0)  # KL(N(mean, std^2), N(0, 1))


def test_reconstruction_by_hand():
    vae = ConditionalVAE(3, 2, latent=4, width=16, key=KEY)
    random = np.random.default_rng(0)
    condition, x, noise = (random.standard_normal((20, n)).astype(np.float32) * 3 for n in (3, 2, 4))
    decoded, divergence = jax.jit(jax.vmap(vae.reconstruct))(condition, x, noise)
    expected, terms = reconstruct(vae, condition, x, noise)
    np.testing.assert_allclose(decoded, expected, atol=1e-5)
    np.testing.assert_allclose(divergence, terms.mean(1), atol=1e-4)
    assert vae.latent == 4


@pytest.mark.parametrize(("guided", "masked"), [(True, True), (False, True), (True, False)])
def test_a2pr_by_hand(dataset, guided, masked):
    learner = A2PR(**SMALL, noise=0.0, vae_width=8, guided=guided, masked=masked, pull=0.7, policy=FORM)
    state, batch = prepare(learner, dataset, "target_policy", "target_critic", "value")
    update = compiled(learner)
    after, metrics = update(state, batch)
    _, _, fit_key, candidate_key = jax.random.split(KEY, 4)
    reward, continues = np.asarray(batch.reward), np.asarray(batch.continues)
    s, following = batch.observation, batch.next_observation

    next_action = policy_actions(state["target_policy"], following)
    goal = reward + 0.99 * continues * q_of(state["target_critic"], following, next_action).min(1)
    values = q_of(state["critic"].model, s, batch.action)
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(np.sum((values - goal[:, None]) ** 2, 1)), rtol=1e-4)

    critic = after["critic"].model
    online = reward + 0.99 * continues * q_of(critic, following, next_action).min(1)
    v = np.asarray(state_values(state["value"].model, s))
    np.testing.assert_allclose(metrics["value_loss"], np.mean((v - np.minimum(goal, online)) ** 2), rtol=1e-4)

    known = dataset.spec.statistics["observation"]
    normal = (np.asarray(s, np.float64) - np.asarray(known.mean)) / (np.asarray(known.std) + 1e-3)
    logged = np.asarray(batch.action) / 2.0  # actions in [-2, 2]: half the range is 2
    logged_q = q_of(critic, s, batch.action)[:, 0]
    noise = np.asarray(jax.random.normal(fit_key, (len(logged), 4)))
    decoded, divergence = reconstruct(state["vae"].model, normal, logged, noise)
    error = np.mean((logged_q > v)[:, None] * (decoded - logged) ** 2)
    np.testing.assert_allclose(metrics["vae_loss"], error + 0.5 * divergence.mean(), rtol=1e-4)

    own = np.asarray(policy_actions(state["policy"].model, s)) / 2.0
    noise = np.asarray(jax.random.normal(candidate_key, (len(logged), 4)))
    candidate, _ = reconstruct(after["vae"].model, normal, own, noise)
    candidate_q = q_of(critic, s, jnp.asarray(2.0 * candidate, jnp.float32))[:, 0]
    better = candidate_q >= logged_q
    anchor = np.where(better[:, None], candidate, logged) if guided else logged
    on = (logged_q > v) | (guided & (candidate_q >= v)) if masked else np.ones(len(v), bool)
    q = q_of(critic, s, jnp.asarray(2.0 * own))[:, 0]
    gap = 0.7 * np.mean(on[:, None] * (own - anchor) ** 2)
    np.testing.assert_allclose(metrics["policy_loss"].value, gap - 2.5 / np.abs(q).mean() * q.mean(), rtol=1e-4)
    np.testing.assert_allclose(
        [metrics["pulled"].value, metrics["guided"].value], [on.mean(), guided * better.mean()], rtol=1e-6
    )
    late, _ = update(state, batch, 1)
    np.testing.assert_array_equal(jax.tree.leaves(late["policy"])[0], jax.tree.leaves(state["policy"])[0])


def test_vae_learns_only_the_better_actions(dataset):
    """With Q above V nowhere, nothing is reconstructed: only the divergence is left of the loss."""
    learner = A2PR(**SMALL, noise=0.0, vae_width=8, policy=FORM)
    state, batch = prepare(learner, dataset)
    value = state["value"].model
    lifted = jax.tree.map(lambda leaf: leaf + 100.0 if leaf is value.network.layers[-1].bias else leaf, state["value"])
    _, metrics = compiled(learner)(state | {"value": lifted}, batch)
    assert float(metrics["vae_loss"]) < 0.2
    assert float(metrics["pulled"].value) == 0.0
