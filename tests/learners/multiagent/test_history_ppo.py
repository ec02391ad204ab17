"""Histories learned end to end, and by reconstruction: gradients where they belong, and a game that only memory wins."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import policylab as lab
from policylab.environments.against import Against
from policylab.environments.remembered import Remembered
from policylab.environments.rendezvous import Rendezvous, Walker, walkers
from policylab.environments.time_limit import TimeLimit

MEETING = Against(Rendezvous(every=2), walkers())
PLACE = TimeLimit(Remembered(MEETING, 4), 4)
SMALL = {"environments": 8, "steps": 4, "batch_size": 32, "epochs": 1, "width": 8, "depth": 1}


def test_walkers_go_their_rounds_and_appointments_count():
    pool = walkers()
    assert pool.size == 6
    rounds = np.asarray(pool.members.order)
    assert len({tuple(order) for order in rounds.tolist()}) == 6
    walker, place, seen = Walker(jnp.array([0, 2, 1, 3]), jnp.zeros(())), jnp.asarray(2), []
    for step in range(5):
        choice, place = walker.act(jnp.zeros(5), place, key=jax.random.key(step))
        seen.append(int(choice))
    assert seen == [2, 1, 3, 0, 2]
    game = Rendezvous(every=2)
    state, observation = game.reset(jax.random.key(0))
    np.testing.assert_array_equal(observation, [[0, 0, 0, 0, 1]] * 2)
    rewards = []
    for choices in ((1, 1), (3, 3), (0, 2), (0, 2)):
        state, step = game.step(state, jnp.array(choices), jax.random.key(0))
        rewards.append(step.reward.tolist())
    assert rewards == [[0, 0], [1, 1], [0, 0], [0, 0]]
    np.testing.assert_array_equal(step.observation, [[0, 0, 1, 0, 0], [1, 0, 0, 0, 0]])


def test_the_reward_reaches_the_encoder_of_one_and_not_of_the_other():
    run = lab.train(lab.HistoryPPO(normalise=True, size=4, encoder_width=8, **SMALL), lab.Rollout(PLACE), steps=1)
    begun = lab.HistoryPPO(normalise=True, size=4, encoder_width=8, **SMALL)
    start = jax.jit(lambda key: begun.init(PLACE.spec, key=key)["model"].model["encoder"])
    stream = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 0)
    fresh, now = start(jax.random.split(stream)[0]), run.products(seed=0)["encoder"]
    assert np.abs(np.asarray(fresh.query) - np.asarray(now.query)).max() > 0
    policy, observation = run.policy(), PLACE.reset(jax.random.key(0))[1]
    assert 0 <= int(policy.mode().act(observation, None, key=jax.random.key(0))[0]) < 4


def test_reconstruction_learns_to_foretell_the_history():
    learner = lab.Reconstructing(lab.PPO(normalise=False, **SMALL), size=8, width=16, contrasted=32, encoder_rate=3e-3)
    run = lab.train(learner, lab.Rollout(PLACE), steps=60)
    first, last = (row["metrics"]["contrast"][0] for row in (run.metrics[0], run.metrics[-1]))
    assert last < 0.8 * first
