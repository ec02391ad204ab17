"""Learning in learned worlds: the world and the agent each at their time, pessimism, many critics, and planning in what was learned."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.commands.imagining import around
from policylab.environment import unroll
from policylab.environments.pointmass import PointMass
from policylab.environments.time_limit import TimeLimit
from policylab.learner import Clock
from policylab.learners.offline.edac import similarity
from policylab.learners.worldmodel.ensemble import EnsembleDynamics
from policylab.networks.periodic import where_due
from policylab.planners.cross_entropy import CrossEntropy
from policylab.policies.gaussian import Gaussian
from policylab.worlds.ensemble import DynamicsEnsemble
from policylab.worlds.pessimistic import Pessimistic
from tests.small import continuous_dataset

_ROOM = TimeLimit(PointMass(shaped=True, seconds=0.2), 20)
_SAC = lab.SAC(
    discount=0.9,
    learning_rate=3e-3,
    width=32,
    batch_size=64,
    policy=Gaussian(width=32, state_dependent_std=True, squash="sample"),
)
_WORLD = EnsembleDynamics(DynamicsEnsemble(members=3, elites=2, width=32, depth=1), batch_size=64, learning_rate=3e-3)


@lab.settings
class Counter(lab.Learner):
    """Counts its updates, and the rows that it got."""

    @property
    def needs(self):
        return {"transitions": lab.Steps(4)}

    def init(self, spec, *, key, given={}):
        return {"count": jnp.zeros(()), "rows": jnp.zeros(())}

    def update(self, state, batch, *, clock, key):
        return {"count": state["count"] + 1, "rows": state["rows"] + batch.reward.shape[0]}, {"at": clock.progress}

    def products(self, state):
        return {"policy": lab.UniformRandom(lab.Box((2,), -2.0, 2.0)), "world": TimeLimit(PointMass(), 5)}


def test_mbpo_learns_from_a_replay_and_its_world_serves_a_planner():
    """MBPO reaches the goal after 700 real steps (four seeds of four; after 440 two at most), and CEM in its world (PETS) comes near it."""
    learner = lab.MBPO(agent=_SAC, dynamics=_WORLD, horizon=2, fit_share=0.2, fit_every=2)
    real = lab.Replay(_ROOM, capacity=1_000, warmup=200, updates=5)
    run = lab.train(learner, lab.Imagined(real, rollouts=50, every=5, capacity=5_000), steps=2_500)
    assert {"world", "policy", "explorer", "critic"} <= set(run.products(seed=0))
    assert "world_validation_error" in run.metrics[-1]["metrics"]
    planner = CrossEntropy(run.products(seed=0)["world"], horizon=8, population=40, elites=5, iterations=3)
    play = jax.jit(lambda policy: unroll(policy, _ROOM, episodes=10, horizon=20, key=jax.random.key(5)))
    acted = play(run.policy(seed=0).mode())
    assert float(acted.success.mean()) >= 0.7
    assert float(acted.returns.mean()) > -9.0
    assert float(play(planner).returns.mean()) > -11.0
    assert float(play(lab.UniformRandom(_ROOM.spec.action)).returns.mean()) < -18.0


def test_the_world_is_fitted_alone_and_then_as_often_as_asked():
    data = continuous_dataset().serve({"transitions": lab.Steps(4)})
    batch = data.next(None, {}, clock=Clock(jnp.asarray(0), jnp.asarray(1)), key=jax.random.key(0))[1]
    for every, fits in ((0, 4), (3, 4 + 2)):  # of ten updates the first four, and every third after
        learner = lab.Dyna(agent=Counter(), dynamics=Counter(), fit_share=0.4, fit_every=every)
        state = learner.init(data.spec, key=jax.random.key(0))
        for step in range(10):
            clock = Clock(jnp.asarray(step), jnp.asarray(10))
            batches = {"transitions": batch, "world": batch}
            state, metrics = learner.update(state, batches, clock=clock, key=jax.random.key(step))
        assert (float(state["dynamics"]["count"]), float(state["agent"]["count"])) == (fits, 6.0)
        assert set(metrics) == {"at", "world_at"}
        np.testing.assert_allclose(metrics["at"].value, 5 / 6)  # the agent's own clock begins when it does


def test_mopo_imagines_in_a_world_that_pays_less_where_it_is_unsure():
    learner, spec = lab.MOPO(agent=_SAC, dynamics=_WORLD, penalty=2.0), continuous_dataset().spec
    world = jax.jit(lambda key: learner.products(learner.init(spec, key=key)))(jax.random.key(0))["world"]
    assert isinstance(world, Pessimistic)
    state, action, key = world.at(jnp.ones(3)), jnp.zeros(2), jax.random.key(0)
    inside, outside = world.world.step(state, action, key)[1], world.step(state, action, key)[1]
    np.testing.assert_allclose(outside.reward, inside.reward - 2.0 * inside.info["uncertainty"], rtol=1e-5)
    asked = learner.needs["transitions"]
    assert (asked.horizon, asked.real, asked.begin) == (5, 0.05, 0.2)


def test_a_learned_world_needs_a_source_that_imagines():
    with pytest.raises(lab.BadInput, match="cannot answer Branched"):
        lab.train(lab.MOPO(), continuous_dataset(), steps=1)
    with pytest.raises(lab.BadInput, match="only single transitions are imagined"):
        lab.train(lab.Dyna(agent=lab.SAC(n=3)), continuous_dataset(), steps=1)


def test_the_similarity_of_critics_is_the_mean_cosine_of_their_action_gradients():
    learner = lab.EDAC(members=4, width=8, depth=1, diversity=3.0)
    spec = continuous_dataset().spec
    critic = jax.jit(lambda key: learner.init(spec, key=key))(jax.random.key(0))["critic"].model
    place, action = jnp.array([0.3, -0.2, 0.5]), jnp.array([0.4, -1.0])
    # Actions are in [-2, 2]: a unit is two of the environment's, which changes no cosine.
    gradients = np.asarray(jax.jacrev(lambda a: critic.values(place, a))(action), np.float64)
    unit = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    expected = sum(unit[i] @ unit[j] for i in range(4) for j in range(4) if i != j) / 3
    np.testing.assert_allclose(similarity(critic, place, action), expected, rtol=1e-4)
    batch = (
        continuous_dataset()
        .serve(learner.needs)
        .next(None, {}, clock=Clock(jnp.asarray(0), jnp.asarray(1)), key=jax.random.key(0))[1]
    )
    each = jax.vmap(lambda o, a: similarity(critic, o, a))(batch.observation, batch.action)
    np.testing.assert_allclose(learner.critic_penalty(critic, batch), 3.0 * each.mean(), rtol=1e-5)


def test_work_that_is_not_due_changes_nothing_and_counts_nowhere():
    work = lambda part: (part + 1, {"error": part, "rows": lab.Each(jnp.array([1.0, 3.0]))})
    for due in (True, False):
        part, metrics = where_due(jnp.asarray(due), work, jnp.asarray(4.0))
        assert float(part) == (5.0 if due else 4.0)
        assert bool(metrics["error"].present) == bool(metrics["rows"].present) == due
        assert float(metrics["rows"].value) == (2.0 if due else 0.0)
    assert Clock(jnp.asarray(1), jnp.asarray(2)).progress == 0.5


def test_the_command_line_puts_the_right_source_around_the_real_one():
    data, room = continuous_dataset(), lab.Replay(_ROOM, capacity=100, warmup=50)
    assert around(lab.IQL(), data) is data
    assert around(EnsembleDynamics(), data) is data
    assert isinstance(around(lab.MOPO(), data), lab.Imagined)
    assert isinstance(around(lab.MBPO(), room), lab.Imagined)
    assert isinstance(around(lab.SINDyRL(), room), lab.Dreamed)
