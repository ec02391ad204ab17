"""Learners of several players: by hand against one player's learner, and a game whose best play is known."""

from __future__ import annotations

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environment import Step
from policylab.environments.joint import Joint, one_player
from policylab.environments.seats import players
from policylab.environments.time_limit import TimeLimit
from policylab.experience import Spec
from policylab.learner import Clock
from policylab.learners.multiagent.independent import Independent
from policylab.spaces import Box, Discrete


class Matrix(lab.Environment):
    """A game of one choice each, played again and again: row player's and column player's rewards by table."""

    rewards: jax.Array  # [player, row, column]
    leaver: int = eqx.field(static=True, default=-1)  # who leaves after its first move

    @property
    def spec(self):
        return Spec(Box((1,)), Discrete(self.rewards.shape[1]), roles=("row", "column"))

    def reset(self, key):
        return jnp.zeros(()), jnp.zeros((2, 1))

    def step(self, state, action, key):
        reward, no = self.rewards[:, action[0], action[1]], jnp.zeros(2, bool)
        gone = jnp.arange(2) == self.leaver
        return state, Step(jnp.full((2, 1), state + 1.0), reward, gone, no)


# The prisoners' dilemma: defecting (1) is better whatever the other one does, and both get 1 where both could have had 2.
DILEMMA = jnp.asarray([[[2.0, 0.0], [3.0, 1.0]], [[2.0, 3.0], [0.0, 1.0]]])


def learner(share, **changes):
    ppo = lab.PPO(
        environments=16, steps=8, batch_size=64, epochs=2, width=8, depth=1, learning_rate=1e-2, discount=0.0, normalise=False
    )
    return Independent(replace(ppo, **changes), share=share)


def choices(policy, game):
    observation = game.reset(jax.random.key(0))[1]
    draw = jax.jit(jax.vmap(lambda k: policy.act(observation, policy.initial_memory(key=k), key=k)[0]))
    return {role: np.asarray(a) for role, a in draw(jax.random.split(jax.random.key(1), 200)).items()}


def test_both_learn_to_play_the_equilibrium_with_one_network():
    game = TimeLimit(Joint(Matrix(DILEMMA)), 4)
    run = lab.train(learner(share=True), lab.Rollout(game), steps=40)
    found = choices(run.policy(), game)
    assert found["row"].mean() > 0.9
    assert found["column"].mean() > 0.9
    episodes = jax.jit(lambda key: lab.unroll(run.policy().mode(), game, episodes=2, horizon=4, key=key))(jax.random.key(0))
    np.testing.assert_array_equal(episodes.returns, [8.0, 8.0])


def test_each_players_update_is_that_of_its_own_learner():
    game = TimeLimit(Joint(Matrix(DILEMMA)), 4)
    both = learner(share=False)
    source = lab.Rollout(game).serve(both.needs)
    clock, key = Clock(jnp.asarray(0), jnp.asarray(9)), jax.random.key(3)

    @jax.jit
    def run(both):
        state = both.init(source.spec, key=key)
        products = both.products(state)
        batch = source.next(source.init(products, key=key), products, clock=clock, key=key)[1]
        after, metrics = both.update(state, batch, clock=clock, key=key)
        own = jax.tree.map(lambda leaf: leaf[1], (state["learner"], players(batch, ("row", "column"))))
        alone, _ = both.learner.update(*own, clock=clock, key=jax.random.split(key)[1])
        return after, alone, batch, metrics

    after, alone, batch, metrics = run(both)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-6),
        after["learner"]["model"].model["policy"],
        alone["model"].model["policy"],
    )
    assert batch.extra["log_prob"].shape == (16, 8, 2)
    rows, columns = np.asarray(batch.action["row"]), np.asarray(batch.action["column"])
    np.testing.assert_array_equal(batch.next_observation["gained"][..., 0], np.asarray(DILEMMA)[0][rows, columns])
    assert np.ndim(metrics["entropy"]) == 0


def test_who_has_left_counts_no_more():
    game = TimeLimit(Joint(Matrix(DILEMMA, leaver=1)), 3)
    report = lab.check(game)
    assert report.passed, str(report)
    always = lab.UniformRandom(game.spec.action)
    played = jax.jit(lambda key: lab.unroll(always, game, episodes=4, horizon=3, key=key))(jax.random.key(0))
    np.testing.assert_array_equal(played.observation["playing"][:, :, 1], [[1, 0, 0, 0]] * 4)
    np.testing.assert_array_equal(played.observation["playing"][:, :, 0], np.ones((4, 4)))
    np.testing.assert_array_equal(played.observation["gained"][:, 2:, 1], np.zeros((4, 2)))
    np.testing.assert_array_equal(played.truncated, [[False, False, True]] * 4)
    before = {**played.observation}
    batch = lab.Window(
        jax.tree.map(lambda leaf: leaf[:, :-1], before), played.action, played.reward, jax.tree.map(lambda leaf: leaf[:, 1:], before),
        played.terminal, played.truncated, played.valid, jnp.ones((4, 3), jnp.int32),
    )  # fmt: skip
    windows = players(batch, ("row", "column"))
    np.testing.assert_array_equal(windows.terminal[:, 0], [[False] * 3, [True, False, False]])
    np.testing.assert_array_equal(windows.valid[:, 0], [[True] * 3, [True, False, False]])
    np.testing.assert_array_equal(windows.truncated[0, 0], [False, False, True])


def test_what_cannot_be_played_together_is_said():
    with pytest.raises(lab.BadInput, match="two or more"):
        Joint(Joint(Matrix(DILEMMA)))
    with pytest.raises(lab.BadInput, match=r"lab\.Joint\(game\)"):
        one_player(Matrix(DILEMMA).spec)
