"""A small game of PettingZoo's parallel API as a joint process: leaving, clocks, equal keys, and learning in it."""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pettingzoo import ParallelEnv

import policylab as lab
from policylab.environments.seats import seat
from policylab.learner import Clock


class Countdown(ParallelEnv):
    """Each agent gets its action (0 or 1) as reward and sees its count, which begins at a random number; "short" leaves after 2 moves, the
    clock ends the game after 4."""

    metadata = {"name": "countdown"}

    def __init__(self):
        self.possible_agents = ["short", "long"]

    def observation_space(self, agent):
        return gymnasium.spaces.Box(0.0, 100.0, (1,), np.float32)

    def action_space(self, agent):
        return gymnasium.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.moves = list(self.possible_agents), 0
        self.begin = np.random.default_rng(seed).integers(50)
        return {agent: np.array([self.begin], np.float32) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions):
        assert set(actions) == set(self.agents)  # who has left is not asked
        self.moves += 1
        ended = {agent: agent == "short" and self.moves == 2 for agent in self.agents}
        late = dict.fromkeys(self.agents, self.moves == 4)
        seen = {agent: np.array([self.begin + self.moves], np.float32) for agent in self.agents}
        rewards = {agent: float(actions[agent]) for agent in self.agents}
        info = {agent: {} for agent in self.agents}
        self.agents = [agent for agent in self.agents if not (ended[agent] or late[agent])]
        return seen, rewards, ended, late, info


class Unlike(Countdown):
    """The same with more to do for one of them."""

    def action_space(self, agent):
        return gymnasium.spaces.Discrete(3 if agent == "long" else 2)


class Together(lab.Policy):
    """Both always choose 1."""

    def act(self, observation, memory, *, key):
        return {"long": jnp.ones((), jnp.int32), "short": jnp.ones((), jnp.int32)}, memory

    def sample(self, observation, memory, *, key):
        return self.act(observation, memory, key=key)[0], jnp.zeros(2), memory


def test_a_rollout_plays_it_and_who_has_left_is_masked():
    game = lab.PettingZoo(Countdown)
    assert game.hosted
    source = lab.Rollout(game).serve({"windows": lab.Windows(3, future=6, fields=("log_prob",))})
    products, clock, key = {"policy": Together()}, Clock(jnp.asarray(0), jnp.asarray(1)), jax.random.key(0)
    batch = jax.jit(lambda: source.next(source.init(products, key=key), products, clock=clock, key=key)[1])()
    short, long = (seat(batch, ("short", "long"), role) for role in ("short", "long"))
    np.testing.assert_array_equal(short.valid, [[True, True, False, False, True, True]] * 3)
    np.testing.assert_array_equal(short.terminal & short.valid, [[False, True, False, False, False, True]] * 3)
    np.testing.assert_array_equal(short.reward, [[1, 1, 0, 0, 1, 1]] * 3)
    np.testing.assert_array_equal(long.valid, np.ones((3, 6), bool))
    np.testing.assert_array_equal(long.truncated, [[False, False, False, True, False, False]] * 3)
    np.testing.assert_array_equal(long.terminal, np.zeros((3, 6), bool))
    np.testing.assert_array_equal(batch.reward, [[2, 2, 1, 1, 2, 2]] * 3)
    first = np.asarray(long.observation)[:, 0, 0]
    assert len(set(first.tolist())) > 1  # every copy begins with a seed of its own
    np.testing.assert_array_equal(np.asarray(long.next_observation)[:, :4, 0] - first[:, None], [[1, 2, 3, 4]] * 3)


def test_players_learn_in_it():
    ppo = lab.PPO(
        environments=4, steps=8, batch_size=16, epochs=2, width=4, depth=1, learning_rate=0.05, discount=0.0, normalise=True
    )
    game = lab.PettingZoo(Countdown)
    run = lab.train(lab.Independent(ppo), lab.Rollout(game), steps=15)
    policy, observation = run.policy().mode(), game.reset(jax.random.key(0))[1]
    action, _ = policy.act(observation, policy.initial_memory(key=jax.random.key(0)), key=jax.random.key(0))
    assert {name: int(choice) for name, choice in action.items()} == {"long": 1, "short": 1}


def test_what_cannot_be_played_is_said():
    with pytest.raises(lab.BadInput, match="give a function that makes a ParallelEnv"):
        lab.PettingZoo(lambda: gymnasium.make("CartPole-v1"))
    with pytest.raises(lab.BadInput, match="the player long has actions of Discrete"):
        lab.Independent().init(lab.PettingZoo(Unlike).spec, key=jax.random.key(0))
