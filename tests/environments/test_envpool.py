"""envpool itself beside Gymnasium: the same dynamics, ends and returns. Importing it takes some seconds, so all of these are slow."""

from __future__ import annotations

import importlib.util
import warnings

import gymnasium
import jax
import numpy as np
import pytest

import policylab as lab
from policylab.environment import unroll
from policylab.environments.pools import _LARGEST_SEED
from policylab.errors import BadInput
from policylab.policies.uniform import UniformRandom
from policylab.tasks.in_environment import InEnvironment

pytestmark = pytest.mark.skipif(importlib.util.find_spec("envpool") is None, reason="envpool is not installed")


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Hopper-v5"])
def test_the_same_actions_from_the_same_state_lead_where_gymnasium_leads(name):
    environment = lab.EnvPool(name)
    assert environment.spec.horizon == gymnasium.spec(name).max_episode_steps
    lab.Spec.require(environment.spec, InEnvironment.of(name).spec)
    keys = jax.random.split(jax.random.key(0), 3)
    seeds = [int(jax.random.bits(jax.random.split(jax.random.fold_in(jax.random.key(0), i), 3)[0])) for i in range(3)]
    play = jax.jit(lambda key: unroll(UniformRandom(environment.spec.action), environment, episodes=3, horizon=60, key=key))
    ours = jax.device_get(play(jax.random.key(0)))
    exact = environment.host.open_many([seed % _LARGEST_SEED for seed in seeds]).reset()[0]  # in double precision
    np.testing.assert_array_equal(ours.observation[:, 0], exact.astype(np.float32))
    for i in range(len(keys)):
        simulator = gymnasium.make(name)
        simulator.reset(seed=0)
        positions = simulator.unwrapped.model.nq
        place = np.concatenate([[0.0], exact[i, : positions - 1]])  # how far it has come is not observed and starts about 0
        simulator.unwrapped.set_state(place, exact[i, positions - 1 :])
        for time in range(int(ours.lengths[i])):
            observation, reward, terminal, _, _ = simulator.step(ours.action[i, time])
            tolerance = 1e-5 if time < 30 else 0.1  # a contact doubles what rounding differs by
            np.testing.assert_allclose(ours.observation[i, time + 1], observation, rtol=1e-5, atol=tolerance)
            np.testing.assert_allclose(ours.reward[i, time], reward, rtol=1e-5, atol=tolerance)
            assert bool(ours.terminal[i, time]) == terminal
        simulator.close()


def test_episodes_are_as_long_and_bring_as_much_as_gymnasiums():
    task, other = InEnvironment.of("envpool:Hopper-v5"), InEnvironment.of("Hopper-v5")
    mine, theirs = (lab.collect("random", one, 150, seed=4) for one in (task, other))
    assert mine.spec.environment == "envpool:Hopper-v5"
    for quantity in (lambda data: data.returns, lambda data: data.lengths):
        a, b = np.asarray(quantity(mine), float), np.asarray(quantity(theirs), float)
        error = np.sqrt(a.var() / len(a) + b.var() / len(b))
        assert abs(a.mean() - b.mean()) < 4 * error
    assert mine.terminal.sum() == mine.episodes
    cut = lab.collect("random", lab.EnvPool("HalfCheetah-v5", horizon=9), 4)
    assert cut.lengths.tolist() == [9] * 4
    assert cut.truncated.sum() == 4
    assert not cut.terminal.any()


def test_other_kinds_of_spaces_and_success():
    lab.check(lab.EnvPool("CartPole-v1"))
    lab.check(lab.EnvPool("FrozenLake-v1"))
    reach = lab.EnvPool("FetchReach-v4", horizon=3)
    state, observation = reach.reset(jax.random.key(0))
    assert sorted(observation) == ["achieved_goal", "desired_goal", "observation"]
    assert reach.step(state, np.zeros(4, np.float32), jax.random.key(0))[1].info["success"].shape == ()


def test_unknown_names_and_what_does_not_fit_are_one_sentence():
    with pytest.raises(BadInput, match=r"envpool knows no environment called 'HalfCheta-v5': did you mean HalfCheetah-v5\?"):
        InEnvironment.of("envpool:HalfCheta-v5")
    with pytest.raises(BadInput, match="several players"):
        lab.EnvPool("Go9x9-v1")
    with pytest.raises(BadInput, match=r"cannot be made with \['wings'\]"):
        lab.EnvPool("Hopper-v5", wings=2)


def test_ppo_learns_on_it_all_seeds_at_once_and_the_same_again():
    learner = lab.PPO(environments=4, steps=16, epochs=1, batch_size=32, width=8, depth=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs = [lab.train(learner, lab.Rollout(lab.EnvPool("HalfCheetah-v5")), steps=3, seeds=[0, 1]) for _ in range(2)]
    first, second = (jax.tree.leaves(run.policy()) for run in runs)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
