"""Planning in a world that is learned on the way."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import policylab as lab
from policylab.environment import unroll
from policylab.environments.pointmass import PointMass
from policylab.environments.time_limit import TimeLimit
from policylab.worlds.ensemble import DynamicsEnsemble


def test_it_plans_its_way_to_the_goal_after_few_steps():
    room = TimeLimit(PointMass(shaped=True, seconds=0.2), 20)
    shape = DynamicsEnsemble(members=3, elites=3, width=32, depth=1)
    learner = lab.PETS(
        dynamics=lab.EnsembleDynamics(shape, batch_size=64, learning_rate=3e-3),
        horizon=6, population=40, elites=5, iterations=2, particles=2,
    )  # fmt: skip
    run = lab.train(learner, lab.Replay(room, capacity=400, warmup=100, updates=10), steps=1_000)
    play = jax.jit(lambda policy, key: unroll(policy, room, episodes=20, horizon=20, key=key).returns.mean())
    random = play(lab.UniformRandom(room.spec.action), jax.random.key(1))
    planned = play(run.policy().mode(), jax.random.key(1))
    assert planned > random + 3.0, (float(random), float(planned))
    rows = jax.tree.map(lambda leaf: leaf[0, :, 0], run.source_state.rows)
    assert rows.reward[180:200].mean() > rows.reward[:100].mean()  # who acts is the planner
    assert isinstance(run.products(seed=0)["world"].at(jnp.zeros(4)), jax.Array)
