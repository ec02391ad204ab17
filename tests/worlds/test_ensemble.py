"""Ensembles of dynamics: their likelihood, their uncertainty, and what is left out of training."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import policylab as lab
from policylab.data.recording import recording_from_steps
from policylab.environment import unroll
from policylab.environments.pointmass import PointMass
from policylab.errors import BadInput, Unsupported
from policylab.experience import Statistics
from policylab.learners.worldmodel.ensemble import EnsembleDynamics, bootstrap
from policylab.planners.shooting import RandomShooting
from policylab.policies.uniform import UniformRandom
from policylab.worlds.ensemble import DynamicsEnsemble, EnsembleWorld, Ranking

_SPEC = lab.Spec(
    lab.Box((2,)), lab.Box((1,), -2.0, 2.0),
    {
        "observation": Statistics(jnp.array([1.0, 2.0]), jnp.array([0.5, 4.0]), -jnp.ones(2), jnp.ones(2)),
        "reward": Statistics(jnp.array([3.0]), jnp.array([2.0]), -jnp.ones(1), jnp.ones(1)),
    },
)  # fmt: skip


@pytest.fixture(scope="module")
def world() -> EnsembleWorld:
    return DynamicsEnsemble(members=3, elites=2, width=8, depth=1).build(_SPEC, key=jax.random.key(0))


def test_losses_are_the_normal_likelihood_of_the_change_and_the_reward_in_units_of_the_data(world: EnsembleWorld) -> None:
    before, action, after, reward = jnp.array([1.2, 0.0]), jnp.array([0.5]), jnp.array([1.0, 3.0]), jnp.array(4.0)
    mean, log_variance = (np.asarray(x) for x in world.predictions(before, action))
    target = np.array([-0.2 / 0.501, 3.0 / 4.001, (4.0 - 3.0) / 2.001])
    density = scipy.stats.norm.logpdf(target, mean, np.exp(0.5 * log_variance)).mean(axis=1)
    likelihood, square = world.losses(before, action, after, reward)
    np.testing.assert_allclose(likelihood, -density - 0.5 * np.log(2 * np.pi), rtol=1e-4)
    np.testing.assert_allclose(square, ((target - mean) ** 2).mean(axis=1), rtol=1e-4)


def test_a_step_samples_an_elite_and_reports_the_largest_spread(world: EnsembleWorld) -> None:
    ranked = dataclasses.replace(world, ranking=Ranking(jnp.array([3.0, 1.0, 2.0])))
    place, action = jnp.array([1.2, 0.0]), jnp.array([0.5])
    mean, log_variance = (np.asarray(x) for x in ranked.predictions(place, action))
    keys = jax.random.split(jax.random.key(1), 4000)
    after, step = jax.vmap(lambda k: ranked.step(place, action, k))(keys)
    delta = (np.asarray(after) - np.asarray(place)) / np.array([0.501, 4.001])
    # Members 1 and 2 are the elites: the moments are those of their even mixture.
    np.testing.assert_allclose(delta.mean(0), mean[1:, :2].mean(0), atol=0.06)
    spread = np.sqrt(np.exp(log_variance[1:, :2]).mean(0) + mean[1:, :2].var(0))
    np.testing.assert_allclose(delta.std(0), spread, rtol=0.06)
    largest = np.linalg.norm(np.exp(0.5 * log_variance), axis=1).max()
    np.testing.assert_allclose(step.info["uncertainty"], largest, rtol=1e-5)
    expected, reward = ranked.expected(place, action)
    np.testing.assert_allclose((np.asarray(expected) - np.asarray(place)) / [0.501, 4.001], mean[1:, :2].mean(0), rtol=1e-4)
    np.testing.assert_allclose(reward, mean[1:, 2].mean() * 2.001 + 3.0, rtol=1e-4)


def test_a_termination_rule_ends_episodes_and_starts_are_drawn(world: EnsembleWorld) -> None:
    with pytest.raises(Unsupported, match="without start states"):
        world.reset(jax.random.key(0))
    starts = jnp.array([[0.0, 0.0], [5.0, 5.0]])
    bounded = DynamicsEnsemble(members=2, elites=1, width=8, depth=1).build(
        _SPEC, key=jax.random.key(0), starts=starts, ends=lambda o: o[0] > 4.0
    )
    state, observation = bounded.reset(jax.random.key(3))
    assert observation.tolist() in starts.tolist()
    np.testing.assert_array_equal(bounded.at(observation), state)
    ended = [bool(bounded.step(start, jnp.zeros(1), jax.random.key(0))[1].terminal) for start in starts]
    after = [float(bounded.step(start, jnp.zeros(1), jax.random.key(0))[0][0]) > 4.0 for start in starts]
    assert ended == after


def test_shapes_that_cannot_be_are_refused_in_a_sentence() -> None:
    with pytest.raises(BadInput, match="elites is 4"):
        DynamicsEnsemble(members=3, elites=4).build(_SPEC, key=jax.random.key(0))
    with pytest.raises(BadInput, match="observed numbers"):
        DynamicsEnsemble().build(dataclasses.replace(_SPEC, observation=lab.Discrete(4), statistics={}), key=jax.random.key(0))


def test_bootstrap_counts_are_poisson_and_belong_to_the_row() -> None:
    rows = jnp.arange(20_000)
    counts = np.asarray(jax.jit(lambda r: bootstrap(r, 3, key=jax.random.key(0)))(rows))
    share = np.bincount(counts.astype(int).ravel(), minlength=4)[:4] / counts.size
    np.testing.assert_allclose(share, scipy.stats.poisson.pmf(range(4), 1.0), atol=0.01)
    np.testing.assert_array_equal(bootstrap(rows[7:9], 3, key=jax.random.key(0)), counts[7:9])
    assert abs(np.corrcoef(counts.T)[0, 1]) < 0.03


def test_a_trained_world_predicts_its_data_is_unsure_elsewhere_and_can_be_planned_in() -> None:
    real = PointMass(start=(-0.9, -0.9, -0.1, 0.9), goal=(0.8, 0.0), order=2, gain=4.0, shaped=True)
    shape = DynamicsEnsemble(members=3, elites=2, width=32, depth=2)
    run = lab.train(EnsembleDynamics(world=shape, batch_size=128), _random_flights(real), steps=1500, seeds=1)
    world = run.products(seed=0)["world"]
    assert run.metrics[-1]["metrics"]["validation_error"][0] < 0.02
    here, far = jnp.array([-0.5, 0.1, 0.3, 0.0]), jnp.array([30.0, -30.0, 20.0, 9.0])
    action = jnp.array([0.5, -0.5])
    truth, _ = real.step(here, action, jax.random.key(0))
    np.testing.assert_allclose(jax.jit(lambda s, a: world.expected(s, a))(here, action)[0], truth, atol=0.03)
    unsure = jax.jit(lambda place: world.step(place, action, jax.random.key(0))[1].info["uncertainty"])
    assert unsure(far) > 2 * unsure(here)
    planner = RandomShooting(world, horizon=10, population=64)
    act = jax.jit(lambda key: planner.act(here, planner.initial_memory(key=key), key=key)[0])
    chosen = act(jax.random.key(0))
    assert chosen.shape == (2,)


def _random_flights(real: PointMass) -> lab.Recording:
    fly = jax.jit(lambda key: unroll(UniformRandom(real.spec.action), real, episodes=40, horizon=50, key=key))
    flown = fly(jax.random.key(0))
    flat = lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:])
    before, after = flat(flown.observation[:, :-1]), flat(flown.observation[:, 1:])
    never = np.zeros(len(before), bool)
    return recording_from_steps(before, flat(flown.action), flat(flown.reward), never, ~never, after, spec=real.spec, name="x")
