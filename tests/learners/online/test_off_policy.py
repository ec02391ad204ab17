"""Targets and losses of the off-policy learners by hand; SAC swings the pendulum up; from data to a replay."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environment import unroll
from policylab.examples import example_recording, example_spec
from policylab.learner import Clock
from policylab.learners.online.sac import draws
from policylab.policies.deterministic import smoothed_actions
from policylab.policies.noisy import Noisy
from tests.small import continuous_dataset

CLOCK = Clock(jnp.asarray(0), jnp.asarray(10))
KEY = jax.random.key(5)
SMALL = {"width": 8, "depth": 1, "batch_size": 16}


@pytest.fixture(scope="module")
def dataset():
    return continuous_dataset()


def prepare(learner, dataset, *targets):
    """A batch with a weight per row, and a state whose targets differ from the networks that they follow."""
    batch = dataset.serve(learner.needs).next(None, {}, clock=CLOCK, key=jax.random.key(3))[1]
    weight = jnp.asarray(np.random.default_rng(0).uniform(0.2, 1.0, 16), jnp.float32)
    batch = replace(batch, terminal=jnp.arange(16) % 5 == 1, extra={**batch.extra, "weight": weight})
    state, other = (learner.init(dataset.spec, key=jax.random.key(seed)) for seed in (0, 1))
    return {**state, **{name: other[name] for name in targets}}, batch, np.asarray(weight)


def q_of(critic, observation, action):
    return np.asarray(jax.vmap(critic.values)(observation, action), np.float64)


def test_sac_by_hand(dataset):
    form = lab.Gaussian(width=8, depth=1, state_dependent_std=True, squash="sample")
    learner = lab.SAC(**SMALL, temperature=0.3, policy=form)
    state, batch, weight = prepare(learner, dataset, "target")
    after, metrics = jax.jit(lambda s: learner.update(s, batch, clock=CLOCK, key=KEY))(state)
    goal_key, policy_key = jax.random.split(KEY)
    next_action, next_log = draws(state["policy"].model, batch.next_observation, key=goal_key)
    soft = q_of(state["target"], batch.next_observation, next_action).min(1) - 0.3 * np.asarray(next_log)
    goal = np.asarray(batch.reward) + 0.99 * ~np.asarray(batch.terminal) * soft
    values = q_of(state["critic"].model, batch.observation, batch.action)
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(weight * np.sum((values - goal[:, None]) ** 2, 1)), rtol=1e-4)
    np.testing.assert_allclose(metrics["td_error"].values, np.abs(values - goal[:, None]).mean(1), rtol=1e-4)
    own, own_log = draws(state["policy"].model, batch.observation, key=policy_key)
    q = q_of(after["critic"].model, batch.observation, own).min(1)
    np.testing.assert_allclose(metrics["policy_loss"], np.mean(weight * (0.3 * np.asarray(own_log) - q)), rtol=1e-4)
    # Entropy to keep: -1 nat per dimension in units of half the range, which is 2 here: log 2 more in environment units.
    lack = float(np.mean(own_log)) + 2 * (-1 + np.log(2.0))
    moved = float(after["log_temperature"].model - state["log_temperature"].model)
    np.testing.assert_allclose(moved, 3e-4 * np.sign(lack), rtol=1e-3)  # Adam's first step has the size of its rate
    expected = jax.tree.map(lambda t, o: t + 0.005 * (o - t), state["target"], after["critic"].model)
    for ours, theirs in zip(jax.tree.leaves(after["target"]), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_sac_keeps_a_fixed_temperature(dataset):
    learner = lab.SAC(**SMALL, temperature=0.3, tune=False, policy=lab.Gaussian(width=8, depth=1, squash="sample"))
    state, batch, _ = prepare(learner, dataset)
    after, _ = jax.jit(lambda s: learner.update(s, batch, clock=CLOCK, key=KEY))(state)
    np.testing.assert_array_equal(after["log_temperature"].model, jnp.log(jnp.float32(0.3)))


def test_td3_by_hand(dataset):
    learner = lab.TD3(**SMALL, policy=lab.Deterministic(width=8, depth=1))
    state, batch, weight = prepare(learner, dataset, "target_policy", "target_critic")
    update = jax.jit(lambda s, clock: learner.update(s, batch, clock=clock, key=KEY))
    after, metrics = update(state, CLOCK)
    next_action = smoothed_actions(state["target_policy"], batch.next_observation, noise=0.2, clip=0.5, key=KEY)
    value = q_of(state["target_critic"], batch.next_observation, next_action).min(1)
    goal = np.asarray(batch.reward) + 0.99 * ~np.asarray(batch.terminal) * value
    values = q_of(state["critic"].model, batch.observation, batch.action)
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(weight * np.sum((values - goal[:, None]) ** 2, 1)), rtol=1e-4)
    own = jax.vmap(lambda o: state["policy"].model.act(o, None, key=KEY)[0])(batch.observation)
    np.testing.assert_allclose(
        metrics["policy_loss"].value, -np.mean(weight * q_of(after["critic"].model, batch.observation, own)[:, 0]), rtol=1e-4
    )
    late, _ = update(state, Clock(jnp.asarray(1), jnp.asarray(10)))
    for name in ("policy", "target_policy", "target_critic"):
        np.testing.assert_array_equal(jax.tree.leaves(late[name])[0], jax.tree.leaves(state[name])[0])


def test_ddpg_is_one_critic_without_noise_that_moves_everything_every_time(dataset):
    learner = lab.DDPG(**SMALL, policy=lab.Deterministic(width=8, depth=1))
    with pytest.raises(lab.BadInput, match="Gaussian draws actions: choose policy=Deterministic"):
        replace(learner, policy=lab.Gaussian()).init(dataset.spec, key=KEY)
    state, batch, weight = prepare(learner, dataset, "target_policy", "target_critic")
    after, metrics = jax.jit(lambda s: learner.update(s, batch, clock=Clock(jnp.asarray(1), jnp.asarray(10)), key=KEY))(state)
    next_action = jax.vmap(lambda o: state["target_policy"].act(o, None, key=KEY)[0])(batch.next_observation)
    value = q_of(state["target_critic"], batch.next_observation, next_action)
    assert value.shape == (16, 1)
    goal = np.asarray(batch.reward) + 0.99 * ~np.asarray(batch.terminal) * value[:, 0]
    values = q_of(state["critic"].model, batch.observation, batch.action)[:, 0]
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(weight * (values - goal) ** 2), rtol=1e-4)
    for name, networks in (("target_policy", "policy"), ("target_critic", "critic")):
        for moved, old, new in zip(*map(jax.tree.leaves, (after[name], state[name], after[networks].model)), strict=True):
            np.testing.assert_allclose(moved, old + 0.005 * (new - old), rtol=1e-3, atol=1e-6)


def test_the_explorer_of_td3_is_its_policy_with_noise(dataset):
    learner = lab.TD3(**SMALL, exploration=0.1, policy=lab.Deterministic(width=8, depth=1))
    products = learner.products(learner.init(dataset.spec, key=KEY))
    explorer, observation = products["explorer"], jnp.array([0.1, -0.2, 0.3])
    assert isinstance(explorer, Noisy)
    centre, _ = products["policy"].act(observation, None, key=KEY)
    tried = jax.vmap(lambda key: explorer.act(observation, None, key=key)[0])(jax.random.split(KEY, 4000))
    np.testing.assert_allclose(tried.mean(0), centre, atol=0.02)
    np.testing.assert_allclose(tried.std(0), 0.1 * 2.0, rtol=0.05)  # half the range is 2
    assert explorer.mode() is products["policy"]


def test_dqn_weighs_rows_and_reports_their_errors():
    from tests.small import discrete_recording

    learner = lab.DQN(**SMALL)
    source = lab.Dataset.of(discrete_recording())
    state, batch, weight = prepare(learner, source, "target")
    _, metrics = jax.jit(lambda s: learner.update(s, batch, clock=CLOCK, key=KEY))(state)
    critic = state["critic"].model
    after, chooser = (np.asarray(jax.vmap(c.values)(batch.next_observation)) for c in (state["target"], critic))
    goal = np.asarray(batch.reward) + 0.99 * ~np.asarray(batch.terminal) * after[np.arange(16), chooser.argmax(1)]
    error = np.abs(np.asarray(jax.vmap(critic.values)(batch.observation))[np.arange(16), batch.action] - goal)
    np.testing.assert_allclose(metrics["td_error"].values, error, rtol=1e-4)
    loss = np.where(error < 1, 0.5 * error**2, error - 0.5)
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(weight * loss), rtol=1e-4)


def test_sac_swings_the_pendulum_up():
    environment = lab.load_task("pendulum").environment()
    form = lab.Gaussian(width=32, state_dependent_std=True, squash="sample", log_std_range=(-20.0, 2.0))
    learner = lab.SAC(width=32, batch_size=64, learning_rate=2e-3, policy=form)
    run = lab.train(learner, lab.Replay(environment, capacity=8_000, warmup=1_000), steps=4_000)
    found = unroll(run.policy().mode(), environment, episodes=10, horizon=200, key=jax.random.key(9))
    assert float(jnp.median(found.returns)) > -400, (
        "a random policy gets about -1 200, a good one -150; some starts take longer to learn"
    )


def test_switching_from_data_to_a_replay_is_one_changed_argument(tmp_path):
    environment = lab.load_task("pendulum").environment()
    form = lab.Gaussian(width=8, depth=1, log_std_range=(-20.0, -20.0))
    learner = lab.IQL(width=8, depth=1, batch_size=16, learning_rate=0.01, policy=form)
    before = lab.train(learner, example_recording(environment.spec), steps=5, seeds=2)
    before.save(tmp_path / "run")
    source = lab.Replay(environment, capacity=64, warmup=16, random_warmup=False)
    after = lab.train(lab.load_run(tmp_path / "run"), source, steps=3)
    assert after.stage == 1
    assert after.seeds == (0, 1)
    for seed in (0, 1):  # who acted first is the policy that was learned from the data
        rows = jax.tree.map(lambda leaf: leaf[seed, :16, 0], after.source_state.rows)  # noqa: B023  (used at once)
        learned = jax.vmap(lambda o: before.policy(seed=seed).mode().act(o, None, key=KEY)[0])(rows.observation)  # noqa: B023  (used at once)
        np.testing.assert_allclose(rows.action, learned, atol=1e-4)


def test_a_run_does_not_go_on_in_other_spaces():
    before = lab.train(lab.BC(policy=lab.Deterministic(width=4, depth=1)), example_recording(example_spec()), steps=1)
    with pytest.raises(lab.BadInput, match="but the source has"):
        lab.train(before, lab.Replay(lab.load_task("pendulum").environment(), capacity=64, warmup=16), steps=1)
