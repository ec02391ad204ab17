"""Shooting planners against plans that are known to be best."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environment import Environment, Step, unroll
from policylab.environments.cartpole import CartPole
from policylab.environments.hosted import Gymnasium
from policylab.environments.pendulum import HORIZON, Pendulum
from policylab.environments.time_limit import TimeLimit
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.planners.cross_entropy import CrossEntropy
from policylab.planners.imagination import imagine
from policylab.planners.path_integral import PathIntegral
from policylab.planners.shooting import RandomShooting
from policylab.spaces import Box

KEY = jax.random.key(0)
act = jax.jit(lambda planner, observation, memory: planner.act(observation, memory, key=KEY))
PULL, PUSH, COST = 0.9, 0.5, 0.2


class Linear(Environment):
    """x' = 0.9 x + 0.5 a (+ noise), reward -(x'^2 + 0.2 a^2), over when x' leaves [-3, 3]; its best plan is a Riccati recursion."""

    noise: jax.Array

    @property
    def spec(self):
        return Spec(Box((1,)), Box((1,), -1.0, 1.0))

    def reset(self, key):
        return jnp.ones(1), jnp.ones(1)

    def step(self, state, action, key):
        state = PULL * state + PUSH * action + self.noise * jax.random.normal(key, (1,))
        flag = jnp.abs(state[0]) > 3.0
        return state, Step(state, -jnp.sum(state**2 + COST * action**2), flag, jnp.zeros((), bool))

    def at(self, observation):
        return observation


def best_plan(start: float, horizon: int) -> np.ndarray:
    """The best actions by exact dynamic programming over quadratics: minimise sum of x'^2 + 0.2 a^2."""
    weights = [1.0]  # cost to go after the last step: x'^2, counted in the step that leads there
    for _ in range(horizon - 1):
        p = weights[0]
        gain = PUSH * PULL * p / (COST + PUSH**2 * p)
        weights.insert(0, 1.0 + p * (PULL - PUSH * gain) ** 2 + COST * gain**2)
    x, plan = start, []
    for p in weights:
        action = -PUSH * PULL * p / (COST + PUSH**2 * p) * x
        plan.append(action)
        x = PULL * x + PUSH * action
    return np.array(plan)


def test_the_riccati_plan_is_better_than_its_neighbours():
    plan = best_plan(0.8, 6)
    cost = lambda plan: (
        -float(imagine(Linear(jnp.zeros(())), jnp.array([0.8]), jnp.asarray(plan)[None, :, None], key=KEY).returns[0])
    )
    assert all(cost(plan) < cost(plan + 0.01 * sign * np.eye(6)[i]) for i in range(6) for sign in (-1, 1))


def test_imagined_returns_are_those_of_stepping_by_hand():
    environment, value = Linear(jnp.asarray(0.3)), lambda observation: 7.0 * observation[0]
    plans = jax.random.uniform(jax.random.key(1), (3, 4, 1), minval=-1.0)
    imagined = jax.jit(lambda: imagine(environment, jnp.array([2.9]), plans, key=KEY, particles=5, discount=0.8, value=value))()
    noises = jax.random.split(KEY, 5)
    for number, plan in enumerate(plans):
        totals = []
        for noise in noises:
            state, total, weight = jnp.array([2.9]), 0.0, 1.0
            for time, action in enumerate(plan):
                state, step = environment.step(state, action, jax.random.fold_in(noise, time))
                total += weight * float(step.reward)
                weight *= 0.8 * (1.0 - float(step.terminal))
            totals.append(total + weight * 7.0 * float(state[0]))
        np.testing.assert_allclose(imagined.returns[number], np.mean(totals), rtol=1e-5)
    assert imagined.observation.shape == (3, 5, 5, 1)


def test_a_plan_that_ends_in_no_number_is_never_chosen():
    class Broken(Linear):
        def step(self, state, action, key):
            state, step = super().step(state, action, key)
            return state, Step(step.observation, jnp.where(action[0] > 0, jnp.nan, step.reward), step.terminal, step.truncated)

    planner = RandomShooting(Broken(jnp.zeros(())), horizon=1, population=50)
    assert float(act(planner, jnp.array([-1.0]), None)[0][0]) <= 0.0


@pytest.mark.parametrize(
    ("make", "tolerance"),
    [
        (lambda e: CrossEntropy(e, horizon=6, population=200, elites=20, iterations=8), 0.03),
        (lambda e: PathIntegral(e, horizon=6, population=2000, iterations=12, temperature=0.003, spread=0.15), 0.05),
    ],
)
def test_refined_plans_are_the_riccati_plan(make, tolerance):
    planner = make(Linear(jnp.zeros(())))
    action, rest = act(planner, jnp.array([0.8]), planner.initial_memory(key=KEY))
    wanted = best_plan(0.8, 6)
    np.testing.assert_allclose(action[0], wanted[0], atol=tolerance)
    np.testing.assert_allclose(rest[:-1, 0], wanted[1:], atol=4 * tolerance)


def test_path_integral_weights_by_hand():
    planner = PathIntegral(Linear(jnp.zeros(())), horizon=3, population=7, temperature=0.5, spread=0.4, correlation=0.6)
    memory = jnp.array([[0.1], [-0.2], [0.3]])
    keys = jax.random.split(KEY, 1)
    draw, _ = jax.random.split(keys[0])
    fresh = np.asarray(jax.random.normal(draw, (3, 7, 1)))
    noise = [fresh[0]]
    for time in (1, 2):
        noise.append(0.6 * noise[-1] + np.sqrt(1 - 0.36) * fresh[time])
    plans = np.clip(np.asarray(memory)[None] + 0.4 * np.moveaxis(np.array(noise), 0, 1), -1, 1)
    returns = []
    for plan in plans[:, :, 0]:
        x, total = 0.5, 0.0
        for action in plan:
            x = PULL * x + PUSH * action
            total -= x**2 + COST * action**2
        returns.append(total)
    weight = np.exp(np.array(returns) / 0.5)
    expected = np.tensordot(weight / weight.sum(), plans, axes=1)
    action, rest = act(planner, jnp.array([0.5]), memory)
    np.testing.assert_allclose(action, expected[0], rtol=1e-4)
    np.testing.assert_allclose(rest, [*expected[1:], [0.0]], rtol=1e-4)


def test_bounds_are_kept_and_the_mode_does_not_depend_on_the_key():
    for planner in (
        RandomShooting(Pendulum(), horizon=3, population=8),
        CrossEntropy(Pendulum(), horizon=3, population=8, elites=4),
    ):
        conformance = lab.check(planner, spec=Pendulum().spec)
        assert conformance.passed, str(conformance)


def test_planning_swings_the_pendulum_up():
    planner = CrossEntropy(Pendulum(), horizon=20, population=100, elites=10, iterations=3)
    play = jax.jit(lambda key: unroll(planner, TimeLimit(Pendulum(), HORIZON), episodes=4, horizon=100, key=key))
    assert float(play(KEY).reward[:, 80:].mean()) > -0.5  # upright and still from then on; hanging costs 10


def test_random_shooting_balances_with_choices():
    planner = RandomShooting(CartPole(), horizon=15, population=100)
    episodes = jax.jit(lambda: unroll(planner, CartPole(), episodes=4, horizon=100, key=KEY))()
    assert int(episodes.lengths.min()) == 100  # random pushes last about 22


def test_what_cannot_be_planned_is_said():
    with pytest.raises(BadInput, match="stepped on the host"):
        RandomShooting(Gymnasium("Pendulum-v1"))
    with pytest.raises(BadInput, match="use RandomShooting for choices"):
        CrossEntropy(CartPole())
    for wrong, words in (
        (lambda: PathIntegral(Pendulum(), temperature=0.0), "temperature is 0: choose a value above 0"),
        (lambda: PathIntegral(Pendulum(), correlation=1.0), "correlation is 1: choose a value at least 0 and below 1"),
        (lambda: CrossEntropy(Pendulum(), spread=float("nan")), "spread is nan"),
        (lambda: RandomShooting(Pendulum(), horizon=0), "RandomShooting.horizon is 0: .* whole numbers from 1 on"),
    ):
        with pytest.raises(BadInput, match=words):
            wrong()
    with pytest.raises(BadInput, match="elites"):
        CrossEntropy(Pendulum(), population=10, elites=11)
