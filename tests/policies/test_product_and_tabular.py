"""Actions with named parts, and tables over numbered states."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.examples import example_recording, example_specs
from policylab.experience import Window

TORQUES, CHOICES, NUMBERED, NAMED = example_specs()[:4]
FORM = lab.Product(lab.Gaussian(width=8, depth=1), lab.Categorical(width=8, depth=1))


def test_a_product_has_one_term_per_factor_and_their_sum_is_the_parts():
    policy = FORM.build(NAMED, key=jax.random.key(0))
    observation = jax.random.normal(jax.random.key(1), (4, 3))
    sample = jax.jit(jax.vmap(lambda o, k: policy.sample(o, policy.initial_memory(key=k), key=k)[:2]))
    action, log_prob = sample(observation, jax.random.split(jax.random.key(2), 4))
    flag = jnp.zeros(4, bool)
    window = Window(observation, action, jnp.zeros(4), observation, flag, flag, ~flag, jnp.ones(4, jnp.int32))
    assert policy.log_probs(window).shape == (4, 3)  # two torques and a gear
    np.testing.assert_allclose(policy.log_prob(window), log_prob, rtol=1e-4, atol=1e-4)


def test_cloning_named_parts_learns_saves_and_plays(tmp_path):
    recording = example_recording(NAMED, episodes=30)
    gear = (recording.observation["gear"] if isinstance(recording.observation, dict) else recording.observation)[:, 0] > 0
    rows = recording.observation_rows
    action = {"push": np.tanh(recording.observation[rows][:, :2]).astype(np.float32), "gear": gear[rows].astype(np.int32)}
    taught = lab.Recording(
        recording.observation, action, recording.reward, recording.terminal, recording.truncated, recording.lengths, NAMED
    )
    run = lab.train(lab.BC(learning_rate=1e-2, batch_size=32, policy=FORM), taught, steps=300)
    path = run.save_policy(tmp_path / "policy.safetensors", seed=0)
    policy = lab.load_policy(path).mode()
    play = jax.jit(jax.vmap(lambda o: policy.act(o, policy.initial_memory(key=jax.random.key(0)), key=jax.random.key(0))[0]))
    played = play(jnp.asarray(recording.observation[rows]))
    assert np.mean(np.asarray(played["gear"]) == action["gear"]) > 0.9
    assert np.mean((np.asarray(played["push"]) - action["push"]) ** 2) < 0.05


def test_a_table_is_fitted_to_the_frequencies_of_the_data():
    recording = example_recording(NUMBERED, episodes=60)
    run = lab.train(lab.BC(learning_rate=0.02, batch_size=480, policy=lab.Tabular()), recording, steps=400)
    states, choices = recording.observation[recording.observation_rows], recording.action
    for state in range(5):
        share = np.bincount(choices[states == state], minlength=3) / np.sum(states == state)
        np.testing.assert_allclose(jax.nn.softmax(run.policy(seed=0).table[state]), share, atol=0.08)


def test_forms_say_which_spaces_they_are_for():
    with pytest.raises(lab.BadInput, match="use Gaussian or Categorical"):
        FORM.build(TORQUES, key=jax.random.key(0))
    with pytest.raises(lab.BadInput, match="numbered states"):
        lab.Tabular().build(CHOICES, key=jax.random.key(0))
