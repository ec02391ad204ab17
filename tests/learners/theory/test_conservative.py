"""UCBVI, StepMix and EpsMix against plans by NumPy loops, exact values of finite processes, and the promise that they make."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environments import exact
from policylab.environments.finite import garnet, gridworld
from policylab.environments.finite_horizon import best_policy, softened, start_value
from policylab.environments.time_limit import TimeLimit
from policylab.evaluation.task_scores import modes
from policylab.learners.theory.stepmix import listed, mixture
from policylab.policies.timed import Timed

HORIZON = 4
PROCESS = garnet(5, 3, 3, seed=2)
BASELINE = softened(PROCESS, HORIZON, 0.3)
THRESHOLD = 0.9 * float(start_value(PROCESS, BASELINE))
CLOCK = lab.Clock(jnp.asarray(0), jnp.asarray(300))


def learned(learner: lab.Learner, steps: int = 300, **given: lab.Policy) -> lab.Run:
    return lab.train(learner, lab.Rollout(TimeLimit(PROCESS, HORIZON)), steps=steps, seeds=3, given=given)


@pytest.fixture(scope="module")
def conservative():
    learner = lab.StepMix(bonus=0.05, threshold=THRESHOLD)
    return learner, learned(learner, baseline=Timed(BASELINE[None], jnp.ones(1)))


def test_values_of_episodes_are_those_of_linear_algebra_and_of_all_policies():
    assert float(start_value(PROCESS, best_policy(PROCESS, 3))) == pytest.approx(exact.best_return(PROCESS, 3), rel=1e-5)
    uniform = np.full((5, 3), 1 / 3)
    assert float(start_value(PROCESS, jnp.asarray([uniform] * 6))) == pytest.approx(
        exact.expected_return(PROCESS, uniform, 6), rel=1e-5
    )
    lake = gridworld(["S.", "XG"], slip=0.3)
    every = itertools.product(range(4), repeat=2 * lake.states)
    values = [jnp.eye(4)[np.reshape(choice, (2, lake.states))] for choice in itertools.islice(every, 0, None, 257)]
    assert float(jax.vmap(lambda p: start_value(lake, p))(jnp.stack(values)).max()) <= exact.best_return(lake, 2) + 1e-6
    assert float(start_value(PROCESS, softened(PROCESS, HORIZON, 1e-4))) == pytest.approx(
        exact.best_return(PROCESS, HORIZON), rel=1e-4
    )


def by_loops(learner, counted, policy, side):
    """The backup of UCBVI's docstring, pair after pair; a policy of None is the greedy one."""
    counted = {name: np.asarray(value, np.float64) for name, value in counted.items()}
    states, choices = counted["visits"].shape
    log = np.log(4 * states * choices * HORIZON * 300 * learner.episodes / learner.confidence)

    def bound(variance, number, most):
        return learner.bonus * (np.sqrt(2 * log * variance / number) + 7 * most * log / (3 * number))

    value = np.zeros(states)
    for step in reversed(range(HORIZON)):
        most = HORIZON - step
        q = np.zeros((states, choices))
        for s, a in itertools.product(range(states), range(choices)):
            n = counted["visits"][s, a]
            if n == 0:
                q[s, a] = most if side > 0 else 0.0
                continue
            p = counted["onward"][s, a] / n  # adds up to less than 1 where the process ended
            mean, reward = p @ value, counted["reward"][s, a] / n
            width = bound(p @ value**2 - mean**2, n, most) + bound(max(counted["squares"][s, a] / n - reward**2, 0), n, 0)
            q[s, a] = np.clip(reward + mean + side * width, 0, most)
        value = q.max(1) if policy is None else (np.asarray(policy)[step] * q).sum(1)
    number = counted["starts"].sum()
    start = counted["starts"] / number
    spread = start @ value**2 - (start @ value) ** 2
    return np.clip(start @ value + side * bound(spread, number, HORIZON), 0, HORIZON)


def test_upper_and_lower_values_are_those_of_the_equations(conservative):
    learner, run = conservative
    counted = jax.tree.map(lambda leaf: leaf[0], run.state["counted"])
    assert counted["visits"].sum() == 300 * 10 * HORIZON
    optimist, value = learner.optimist(counted, HORIZON, CLOCK)
    assert float(value) == pytest.approx(by_loops(learner, counted, None, 1.0), rel=1e-4)
    assert float(value) >= exact.best_return(PROCESS, HORIZON)
    for policy in (BASELINE, optimist):
        lower = float(learner.lower_value(counted, policy, CLOCK))
        assert lower == pytest.approx(by_loops(learner, counted, policy, -1.0), rel=1e-3)
        assert lower <= float(start_value(PROCESS, policy))


def test_mixtures_meet_the_threshold_exactly():
    numbers = lambda *values: jnp.asarray(values)
    np.testing.assert_allclose(mixture(numbers(0.2, 0.1, 0.6, 0.9), jnp.asarray(0.5)), [0, 0.2, 0.8, 0], atol=1e-6)
    np.testing.assert_array_equal(mixture(numbers(0.7, 0.1, 0.9), jnp.asarray(0.5)), [1, 0, 0])
    np.testing.assert_array_equal(mixture(numbers(0.7, 0.1, 0.4), jnp.asarray(0.8)), [0, 0, 1])
    np.testing.assert_array_equal(mixture(numbers(0.9, 0.1, 0.4), jnp.asarray(0.8)), [1, 0, 0])
    np.testing.assert_array_equal(mixture(numbers(0.5, 0.5, 0.5), jnp.asarray(0.5)), [1, 0, 0])


def test_candidates_follow_the_baseline_first(conservative):
    learner, _ = conservative
    optimist = jnp.zeros_like(BASELINE).at[..., 0].set(1.0)
    candidates = learner.candidates(optimist, BASELINE)
    assert candidates.shape[0] == HORIZON + 1
    np.testing.assert_array_equal(candidates[0], optimist)
    np.testing.assert_array_equal(candidates[-1], BASELINE)
    np.testing.assert_array_equal(candidates[1], jnp.concatenate([BASELINE[:1], optimist[1:]]))


def test_no_plan_is_worth_less_than_the_threshold_and_the_baseline_is_left_behind(conservative):
    run = conservative[1]
    for seed in range(3):
        plan = run.policy(seed=seed)
        worth = jax.vmap(lambda part: start_value(PROCESS, part))(plan.parts)
        assert float(plan.weights @ worth) >= THRESHOLD
    shares = [np.mean(row["metrics"]["baseline_share"]) for row in run.metrics]
    assert shares[0] == 1.0
    assert shares[-1] < 0.5


def test_ucbvi_finds_the_best_policy():
    run = learned(lab.UCBVI(bonus=0.02))
    for seed in range(3):
        value = float(start_value(PROCESS, run.policy(seed=seed).parts[0]))
        assert value >= 0.97 * exact.best_return(PROCESS, HORIZON)


def test_the_modes_of_all_seeds_are_each_seeds_own():
    parts = jax.random.dirichlet(jax.random.key(0), jnp.ones(3), (2, 2, HORIZON, 5))  # [seed, part, time, state, choice]
    stacked = jax.vmap(Timed)(parts, jnp.array([[0.1, 0.9], [0.8, 0.2]]))
    found = modes(stacked)
    for seed, likeliest in enumerate((1, 0)):
        np.testing.assert_array_equal(found.parts[seed, 0].argmax(-1), parts[seed, likeliest].argmax(-1))
    np.testing.assert_array_equal(found.weights, np.ones((2, 1)))


def test_epsmix_mixes_whole_episodes(conservative):
    baseline = lab.Tabular().build(PROCESS.spec, key=jax.random.key(0))  # uniform: worth less than the threshold
    learner = lab.EpsMix(bonus=0.05, threshold=THRESHOLD)
    counted = jax.tree.map(lambda leaf: leaf[0], conservative[1].state["counted"])
    lasting = learner.lasting(PROCESS.spec, HORIZON, {"baseline": baseline})
    plan, metrics = jax.jit(lambda counted: learner.plan(counted, lasting, HORIZON, CLOCK))(counted)
    np.testing.assert_allclose(plan.parts[1], 1 / 3, atol=1e-6)
    np.testing.assert_allclose(plan.parts[0], learner.optimist(counted, HORIZON, CLOCK)[0])
    lower = [by_loops(learner, counted, part, -1.0) for part in np.asarray(plan.parts)]
    assert lower[0] > THRESHOLD > lower[1]
    np.testing.assert_array_equal(plan.weights, [1.0, 0.0])
    assert float(metrics["baseline_share"]) == 0.0


def test_a_mixture_is_drawn_once_per_episode_and_plays_by_the_clock():
    first, second = jnp.eye(3)[jnp.zeros((2, 5), int)], jnp.eye(3)[jnp.asarray([[1] * 5, [2] * 5])]
    policy = Timed(jnp.stack([first, second]), jnp.asarray([0.25, 0.75]))
    episodes = lab.unroll(policy, TimeLimit(PROCESS, 3), episodes=2_000, horizon=3, key=jax.random.key(0))
    played = np.asarray(episodes.action)
    bold = (played == [0, 0, 0]).all(1)
    assert ((played == [1, 2, 2]).all(1) | bold).all()
    assert bold.mean() == pytest.approx(0.25, abs=0.03)
    likeliest = lab.unroll(policy.mode(), TimeLimit(PROCESS, 3), episodes=4, horizon=3, key=jax.random.key(0))
    np.testing.assert_array_equal(likeliest.action, [[1, 2, 2]] * 4)
    zeros, no = jnp.zeros(2, jnp.int32), jnp.zeros(2, bool)
    window = lab.Window(zeros, zeros, jnp.zeros(2), zeros, no, no, ~no, zeros)
    with pytest.raises(lab.BadInput, match="watches the clock"):
        policy.logits(window)


def test_what_cannot_be_planned_is_said_in_a_sentence():
    spec = lab.Spec(lab.Discrete(3), lab.Discrete(2))
    with pytest.raises(lab.BadInput, match="give horizon="):
        lab.UCBVI().init(spec, key=jax.random.key(0))
    with pytest.raises(lab.BadInput, match="give one policy of 2 steps"):
        listed(Timed(jnp.ones((2, 2, 3, 2)) / 2, jnp.ones(2) / 2), 3, 2, 2)
