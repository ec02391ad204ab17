"""Rules of when learned worlds end, against the simulators' own."""

from __future__ import annotations

import json

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environments.cartpole import CartPole
from policylab.environments.hosted import Gymnasium
from policylab.errors import BadInput
from policylab.learner import Clock
from policylab.registry import from_json, to_json
from policylab.worlds.ending import EndingEnsemble, EndingSparse
from tests.small import continuous_dataset

KEY = jax.random.key(0)
SMALL = {"members": 2, "elites": 1, "width": 4, "depth": 1}


def ends_of(spec, name):
    return jax.jit(jax.vmap(EndingEnsemble(**SMALL, rule=name).build(spec, key=KEY).ends))


@pytest.mark.parametrize("name", ["Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5"])
def test_known_rules_are_those_of_the_simulators(name):
    simulator = gymnasium.make(name).unwrapped
    random, seen, healthy = np.random.default_rng(0), [], []
    for _ in range(300):
        place = simulator.init_qpos + random.normal(size=simulator.model.nq) * random.choice([0.1, 0.5])
        simulator.set_state(place, simulator.init_qvel + random.normal(size=simulator.model.nv))
        seen.append(simulator._get_obs())
        healthy.append(bool(simulator.is_healthy))
    assert 30 < np.sum(healthy) < 270
    ended = ends_of(Gymnasium(name).spec, name)(jnp.asarray(np.array(seen), jnp.float32))
    np.testing.assert_array_equal(ended, ~np.array(healthy))


def test_the_pole_ends_where_the_true_one_does():
    pole = CartPole()
    states = 2.0 * jax.random.normal(KEY, (400, 4)) * jnp.array([1.5, 1.0, 0.1, 1.0])
    step = jax.jit(jax.vmap(lambda s: pole.step(pole.at(s), jnp.zeros((), jnp.int32), KEY)[1]))(states)
    np.testing.assert_array_equal(ends_of(pole.spec, "CartPole")(step.observation), step.terminal)
    assert 50 < int(step.terminal.sum()) < 350


def test_imagined_rollouts_end_by_the_rule_of_the_learners_world():
    data = continuous_dataset()
    outside = float(jnp.median(data.observation[:, 0]))
    shape = EndingEnsemble(**SMALL, bounds=((0, -np.inf, outside),))
    assert from_json(json.loads(json.dumps(to_json(shape)))) == shape
    learner = lab.EnsembleDynamics(shape)
    products = learner.products(learner.init(data.spec, key=KEY)) | {"policy": lab.UniformRandom(data.spec.action)}
    source = lab.Imagined(data, rollouts=200, every=1, capacity=200, horizon=1).serve({"transitions": lab.Steps(8)})
    clock = Clock(jnp.asarray(0), jnp.asarray(2))
    draw = jax.jit(lambda key: source.next(source.init(products, key=key), products, clock=clock, key=key)[0])
    rows = jax.tree.map(lambda leaf: np.asarray(leaf)[0], draw(KEY).rows)
    np.testing.assert_array_equal(rows.terminal, rows.next_observation[:, 0] > outside)
    assert 10 < rows.terminal.sum() < 190


def test_rules_that_cannot_be_are_refused():
    spec = lab.Spec(lab.Box((2,)), lab.Box((1,), -1.0, 1.0))
    world = EndingSparse(degree=1, members=2, bounds=((0, -1.0, 1.0),)).build(spec, key=KEY)
    assert bool(world.step(jnp.array([2.0, 0.0]), jnp.zeros(1), KEY)[1].terminal)
    for shape, words in (
        (EndingEnsemble(), "needs a rule"),
        (EndingEnsemble(rule="frog"), "'frog' is unknown: choose one of hopper"),
        (EndingEnsemble(bounds=((2, 0.0, 1.0),)), "no observation of 2 numbers"),
        (EndingEnsemble(bounds=((0, 1.0, 0.0),)), "place, least, most"),
    ):
        with pytest.raises(BadInput, match=words):
            shape.build(spec, key=KEY)
