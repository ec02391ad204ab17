"""PPO in a world of equations: the world is found from few real steps, the agent acts in it, and its policy becomes an equation."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environment import unroll
from policylab.environments.pointmass import PointMass
from policylab.environments.time_limit import TimeLimit
from policylab.learners.worldmodel.sindy_rl import SINDyAnew, SINDyRL
from policylab.policies.polynomial import PolynomialPolicy
from policylab.sources.dreamed import Branching
from policylab.worlds.sparse import SparseDynamics

_ROOM = TimeLimit(PointMass(start=(-0.4, -0.4, 0.4, 0.4), goal=(0.0, 0.0), radius=0.0, shaped=True, seconds=0.1), 10)


@pytest.fixture(scope="module")
def run() -> lab.Run:
    agent = lab.PPO(environments=16, steps=16, batch_size=64, epochs=8, learning_rate=3e-3, width=16, discount=0.9)
    learner = SINDyRL(agent=agent, dynamics=SINDyAnew(SparseDynamics(degree=2, members=3), rows=256), fit_every=5)
    real = lab.Replay(_ROOM, capacity=1_000, warmup=200, collect=10, updates=5)
    return lab.train(learner, lab.Dreamed(real), steps=25)


def test_the_policy_learned_in_the_dream_and_its_equation_hold_in_the_real_room(run: lab.Run) -> None:
    products = run.products(seed=0)
    play = jax.jit(lambda policy: unroll(policy, _ROOM, episodes=20, horizon=10, key=jax.random.key(5)).returns.mean())
    nothing = float(play(PolynomialPolicy.blank(_ROOM.spec, 1)))
    assert float(play(products["policy"].mode())) > 0.6 * nothing
    assert float(play(products["distilled"])) > 0.6 * nothing
    (line, _) = products["distilled"].equations(("x", "y"))
    assert line.startswith("action 0 = ")


def test_the_world_is_the_rooms_equation(run: lab.Run) -> None:
    lines = run.products(seed=0)["world"].equations(("x", "y", "push x", "push y"), digits=2)
    assert lines[:2] == ["d x = +0.1 push x", "d y = +0.1 push y"]


def test_a_polynomial_is_recovered_from_a_policy_that_is_one() -> None:
    spec = PointMass().spec
    teacher = PolynomialPolicy.blank(spec, 2)
    wanted = np.zeros((6, 2), np.float32)
    wanted[1, 0], wanted[4, 1] = -0.5, 0.25  # a = (-x / 2, x y / 4)
    teacher = eqx.tree_at(lambda p: p.weights.values, teacher, jnp.asarray(wanted))
    seen = jax.random.uniform(jax.random.key(0), (400, 2), minval=-1.0, maxval=1.0)
    blank = PolynomialPolicy.blank(spec, 3)
    found, metrics = jax.jit(lambda o: SINDyRL().distil(blank, teacher, o, key=jax.random.key(1)))(seen)
    assert found.equations(("x", "y"), digits=2) == ["action 0 = -0.5 x", "action 1 = +0.25 x y"]
    assert (float(metrics["distilled_terms"]), float(metrics["distilled_error"]) < 1e-5) == (2.0, True)
    # Where the teacher is at a bound, beyond it is as good: 3 x is found though only its clipped values were seen.
    steep = eqx.tree_at(lambda p: p.weights.values, teacher, jnp.zeros((6, 2)).at[1, 0].set(3.0))
    clipped, metrics = jax.jit(lambda o: SINDyRL().distil(PolynomialPolicy.blank(spec, 1), steep, o, key=jax.random.key(1)))(
        seen
    )
    assert float(metrics["distilled_error"]) < 5e-3
    assert float(clipped.weights.values[1, 0]) > 2.0
    action, _ = teacher.act(jnp.array([-9.0, 1.0]), None, key=jax.random.key(0))
    np.testing.assert_array_equal(action, [1.0, -1.0])  # clipped


def test_a_dream_that_leaves_the_range_is_cut_and_not_ended() -> None:
    inner = PointMass(seconds=3.0, goal=(9.0, 9.0))
    world = Branching(inner, jnp.zeros((4, 2)), jnp.full(2, -0.5), jnp.full(2, 0.5))
    state, observation = world.reset(jax.random.key(0))
    np.testing.assert_array_equal(observation, 0.0)
    state, step = world.step(state, jnp.ones(2), jax.random.key(0))
    assert (bool(step.terminal), bool(step.truncated), float(step.reward)) == (False, True, 0.0)
    np.testing.assert_array_equal(step.observation, 0.0)


def test_dreams_say_what_they_cannot_do() -> None:
    real = lab.Replay(_ROOM, capacity=100, warmup=50)
    with pytest.raises(lab.BadInput, match="windows without a past"):
        lab.Dreamed(real).serve({"transitions": lab.Steps(4)})
    served = lab.Dreamed(real).serve({"windows": lab.Windows(2, future=2)})
    with pytest.raises(lab.BadInput, match="needs a world"):
        served.dream({"policy": PolynomialPolicy.blank(real.spec, 1)}, jnp.zeros((4, 2)))
    with pytest.raises(lab.BadInput, match="lets an agent of whole windows dream"):
        assert SINDyRL(agent=lab.SAC()).needs
