"""Agent modelling by contrast: a game of two as one player's process, remembered pasts, the contrast by hand, partners told apart."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environments.against import Against
from policylab.environments.foraging import Field, Foraging, foragers
from policylab.environments.remembered import Remembered
from policylab.environments.time_limit import TimeLimit
from policylab.learners.multiagent.clam import contrast, unit
from policylab.networks.histories import HistoryEncoder

STEPS = 8
PLACE = TimeLimit(Remembered(Against(Foraging(), foragers()), STEPS), STEPS)


def test_food_is_lifted_together_and_all_come_back_at_once():
    game, stay = Foraging(), jnp.zeros(2, jnp.int32)
    field = Field(jnp.array([[1, 1], [1, 2]]), jnp.array([[1, 1], [3, 3], [4, 4]]), jnp.array([True, True, True]))
    step = jax.jit(game.step)
    after, alone = step(field, stay, jax.random.key(0))
    assert alone.reward.tolist() == [0.0, 0.0]  # one of them stands beside it
    after, both = step(field, jnp.array([0, 4]), jax.random.key(0))
    assert both.reward.tolist() == [1.0, 1.0]
    assert after.there.tolist() == [False, True, True]
    last = Field(after.players, after.players[:1].repeat(3, 0), jnp.array([False, False, True]))
    again, _ = step(last, stay, jax.random.key(1))
    assert again.there.all()
    seen = game.observed(field)
    np.testing.assert_allclose(seen[0], [1 / 6, 1 / 6, 0, 0, 2 / 6, 2 / 6, 3 / 6, 3 / 6, 1, 1, 1, 0, 1 / 6, 1], atol=1e-6)
    far = game.observed(Field(jnp.array([[0, 0], [5, 5]]), field.foods, field.there))
    np.testing.assert_array_equal(far[:, 11:], np.zeros((2, 3)))


def test_foragers_follow_their_order():
    game, pool = Foraging(), foragers()
    assert pool.size == 6
    field = Field(jnp.array([[0, 0], [2, 2]]), jnp.array([[2, 5], [0, 2], [4, 2]]), jnp.array([True, False, True]))
    ways = [int(pool.member(i).act(game.observed(field)[1], None, key=jax.random.key(0))[0]) for i in range(6)]
    assert ways == [2, 2, 2, 3, 3, 3]  # orders 012 021 102 | 120 201 210 want food 0 (right) or 2 (down)


def test_against_plays_one_of_the_pool_and_the_past_is_remembered():
    watch = lab.UniformRandom(PLACE.spec.action)
    episodes = jax.jit(lambda key: lab.unroll(watch, PLACE, episodes=64, horizon=STEPS, key=key))(jax.random.key(0))
    other = np.asarray(episodes.info["other"])
    assert (other == other[:, :1]).all()  # the same partner throughout
    assert set(other[:, 0]) == set(range(6))
    seen, past = np.asarray(episodes.observation["observation"]), np.asarray(episodes.observation["past"])
    for time in (0, 3, STEPS - 1):
        np.testing.assert_array_equal(past[:, time, : time + 1], seen[:, : time + 1])
        np.testing.assert_array_equal(episodes.observation["seen"][:, time].sum(1), time + 1)
    np.testing.assert_array_equal(past[:, STEPS], seen[:, 1:])  # the oldest is forgotten
    revealed = Against(Foraging(), foragers(), revealed=True)
    state, observation = revealed.reset(jax.random.key(3))
    assert int(observation["other"]) == int(state.other)
    with pytest.raises(lab.BadInput, match="has 0 roles"):
        Against(revealed, foragers())


def test_the_contrast_is_the_cross_entropy_of_the_pairs():
    a, b = (unit(jax.random.normal(jax.random.key(i), (5, 3))) for i in (0, 1))
    scores = np.asarray(a @ b.T / 0.1, np.float64)
    error, found = contrast(jnp.asarray(scores))
    by_hand = np.mean([-scores[k, k] + np.log(np.exp(scores[k]).sum()) for k in range(5)])
    assert float(error) == pytest.approx(by_hand, rel=1e-4)
    assert float(found) == pytest.approx(np.mean(scores.argmax(1) == np.arange(5)))


def test_what_is_not_seen_leaves_the_code_alone():
    network = HistoryEncoder(4, 3, length=6, width=8, key=jax.random.key(0))
    encoder = jax.jit(lambda rows, seen: network(rows, seen))
    rows, seen = jax.random.normal(jax.random.key(1), (6, 4)), jnp.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    changed = rows.at[jnp.array([2, 4, 5])].set(9.0)
    np.testing.assert_allclose(encoder(rows, seen), encoder(changed, seen), atol=1e-6)
    assert np.abs(encoder(rows, seen) - encoder(rows.at[0].set(9.0), seen)).max() > 1e-3


def test_clam_learns_to_tell_histories_apart_without_a_gradient_from_the_policy():
    ppo = lab.PPO(environments=8, steps=STEPS, batch_size=32, epochs=1, width=16, depth=1, normalise=False)
    learner = lab.CLAM(ppo, size=8, width=16, contrasted=32, encoder_rate=3e-3)
    run = lab.train(learner, lab.Rollout(PLACE), steps=40)
    first, last = (row["metrics"]["contrast"][0] for row in (run.metrics[0], run.metrics[-1]))
    assert last < first - 0.5
    assert run.metrics[-1]["metrics"]["recognised"][0] > 0.2  # of 32 histories: chance is 0.03
    policy, observation = run.policy(), jax.jit(lambda key: PLACE.reset(key))(jax.random.key(0))[1]
    entropy = jax.jit(jax.grad(lambda rows: policy.entropy({**observation, "past": rows})))(observation["past"])
    np.testing.assert_array_equal(entropy, np.zeros_like(entropy))
    act = jax.jit(lambda observation, key: policy.mode().act(observation, None, key=key)[0])
    assert 0 <= int(act(observation, jax.random.key(0))) < 5
