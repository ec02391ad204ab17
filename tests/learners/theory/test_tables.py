"""Learners with tables against linear algebra in float64, Watkins' equation by hand, and Q-learning's fixed point on logged data."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environments import exact
from policylab.environments.finite import chain, garnet, gridworld
from policylab.environments.tabular import Tabular
from policylab.environments.time_limit import TimeLimit
from policylab.examples import example_recording, example_spec, example_specs
from policylab.experience import Window


def solved(transition: np.ndarray, reward: np.ndarray, discount: float, allowed: np.ndarray) -> np.ndarray:
    """Q* by policy iteration, in float64: rewards [s, a], probabilities of going on [s, a, s'], values 0 where nothing is allowed."""
    states = len(reward)
    policy = allowed.argmax(1)
    while True:
        here = np.arange(states)
        known = allowed.any(1)
        matrix = np.eye(states) - discount * transition[here, policy] * known[:, None]
        value = np.linalg.solve(matrix, np.where(known, reward[here, policy], 0.0))
        q = np.where(allowed, reward + discount * transition @ value, 0.0)
        masked = np.where(allowed, q, -np.inf)
        better = known & (masked.max(1) > masked[here, policy] + 1e-10)
        if not better.any():
            return q
        policy = np.where(better, masked.argmax(1), policy)


def counted(recording: lab.Recording, states: int, choices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of going on to each state, mean rewards and counts, counted row by row."""
    onward, reward, count = np.zeros((states, choices, states)), np.zeros((states, choices)), np.zeros((states, choices))
    for step, row in enumerate(recording.observation_rows):
        s, a, after = recording.observation[row], recording.action[step], recording.observation[row + 1]
        count[s, a] += 1
        reward[s, a] += recording.reward[step]
        onward[s, a, after] += not recording.terminal[step]
    seen = np.maximum(count, 1)
    return onward / seen[..., None], reward / seen, count


@pytest.fixture(scope="module")
def sweeps():
    process = garnet(12, 3, 4, discount=0.9, seed=3)
    return process, lab.train(lab.ValueIteration(discount=0.9), lab.FiniteModel.of(process), steps=160)


def test_value_iteration_finds_the_optimal_values_of_a_random_process(sweeps):
    process, run = sweeps
    transition = np.asarray(process.transition, np.float64)
    reward = (transition * np.asarray(process.reward, np.float64)).sum(2)
    best = solved(transition, reward, 0.9, np.ones_like(reward, bool))
    found = np.asarray(run.critic().entries)
    np.testing.assert_allclose(found, best, atol=1e-4)
    choice = jax.vmap(lambda s: run.policy().act(s, None, key=jax.random.key(0))[0])(jnp.arange(12))
    np.testing.assert_array_equal(choice, best.argmax(1))


def test_every_sweep_contracts_by_the_discount_and_the_bound_holds(sweeps):
    process, _ = sweeps
    best = exact.optimal_values(process)
    early = lab.train(lab.ValueIteration(discount=0.9), lab.FiniteModel.of(process), steps=10)
    metrics = early.metrics[-1]["metrics"]
    error = np.abs(np.asarray(early.critic().entries) - best).max()
    assert 0 < error <= metrics["bound"][0] * (1 + 1e-5)
    assert metrics["bound"][0] == pytest.approx(9 * metrics["residual"][0], rel=1e-4)
    ratios = [row["metrics"]["contraction"][0] for row in early.metrics if "contraction" in row["metrics"]]
    ratios = np.asarray([ratio for ratio in ratios if np.isfinite(ratio)])
    assert len(ratios) >= 8
    assert np.all(ratios <= 0.9 + 1e-4)
    assert metrics["span"][0] <= metrics["residual"][0] * 2


def test_terminal_states_end_the_sum_in_a_gridworld():
    process = gridworld(["S.X", ".#.", "..G"], slip=0.2, step_reward=-0.1, discount=0.95)
    run = lab.train(lab.ValueIteration(discount=0.95), lab.FiniteModel.of(process), steps=300)
    np.testing.assert_allclose(run.critic().entries, exact.optimal_values(process), atol=1e-4)


@pytest.mark.parametrize("constrained", [True, False])
def test_value_iteration_on_data_solves_the_process_that_was_counted(constrained):
    recording = lab.load_task("gridworld/cliff").dataset("mixed", steps=2_000)
    states, choices = recording.spec.observation.n, recording.spec.action.n
    onward, reward, count = counted(recording, states, choices)
    learner = lab.ValueIteration(discount=0.9, constrained=constrained)
    run = lab.train(learner, recording, steps=200)
    if constrained:
        best = solved(onward, reward, 0.9, count > 0)
    else:  # an untried choice is worth 0 and ends there
        onward[count == 0] = 0.0
        best = solved(onward, np.where(count > 0, reward, 0.0), 0.9, np.ones_like(count, bool))
    np.testing.assert_allclose(np.asarray(run.critic().entries)[count > 0], best[count > 0], atol=2e-3)
    choice = jax.vmap(lambda s: run.policy().act(s, None, key=jax.random.key(0))[0])(jnp.arange(states))
    seen = np.flatnonzero((count > 0).any(1))
    assert np.all(count[seen, choice[seen]] > 0) or not constrained


@pytest.mark.parametrize(("omega", "constrained"), [(0.0, False), (0.77, True)])
def test_q_learning_is_watkins_equation_one_transition_after_another(omega, constrained):
    random = np.random.default_rng(0)
    states, actions, after = random.integers(0, 3, 40), random.integers(0, 2, 40), random.integers(0, 3, 40)
    rewards, ends = random.normal(size=40).astype(np.float32), random.uniform(size=40) < 0.2
    learner = lab.QLearning(discount=0.8, rate=0.5, omega=omega, initial=0.3, constrained=constrained)
    spec = lab.Spec(lab.Discrete(3), lab.Discrete(2))
    flags = jnp.zeros(40, bool)
    batch = Window(
        *(jnp.asarray(column) for column in (states, actions, rewards, after, ends)), flags, ~flags, jnp.ones(40, jnp.int32)
    )
    state, clock = learner.init(spec, key=jax.random.key(0)), lab.Clock(jnp.asarray(0), jnp.asarray(1))
    state, metrics = jax.jit(lambda s, b: learner.update(s, b, clock=clock, key=jax.random.key(0)))(state, batch)
    q, n = np.full((3, 2), 0.3), np.zeros((3, 2))
    for s, a, r, t, end in zip(states, actions, rewards, after, ends):
        n[s, a] += 1
        usable = q[t][n[t] > 0] if constrained else q[t]
        best = usable.max() if len(usable) else 0.3
        q[s, a] += 0.5 / n[s, a] ** omega * (r + 0.8 * (not end) * best - q[s, a])
    np.testing.assert_allclose(state["table"], q, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(state["updates"], n)
    assert float(metrics["tried"]) == pytest.approx((n > 0).mean())


def test_q_learning_converges_to_the_fixed_point_of_the_counted_process():
    process = garnet(4, 2, 3, discount=0.6, seed=5)
    recording = lab.collect(lab.UniformRandom(process.spec.action), TimeLimit(process, 20), episodes=20, seed=1)
    onward, reward, count = counted(recording, 4, 2)
    assert (count > 0).all()
    best = solved(onward, reward, 0.6, count > 0)
    run = lab.train(lab.QLearning(discount=0.6), recording, steps=4_000, seeds=3)
    for seed in range(3):
        np.testing.assert_allclose(run.critic(seed=seed).entries, best, atol=0.02)


def test_with_rate_1_q_learning_is_exact_in_a_process_without_chance():
    process = chain(5, discount=0.8)
    run = lab.train(lab.QLearning(discount=0.8, omega=0.0), lab.FiniteModel.of(process), steps=200)
    np.testing.assert_allclose(run.critic().entries, exact.optimal_values(process), atol=1e-4)
    explorer = run.products(seed=0)["explorer"]
    explored = jax.vmap(lambda key: explorer.act(jnp.asarray(4), None, key=key)[0])
    share = float(jnp.mean(explored(jax.random.split(jax.random.key(0), 4_000)) == 0))
    assert share == pytest.approx(0.025, abs=0.01)


def test_policies_of_tables_are_learned_saved_and_evaluated_on_a_task():
    task = lab.load_task("riverswim")
    run = lab.train(lab.QLearning(), task.dataset("random", steps=3_000), steps=400, evaluate=task, episodes=4)
    assert np.isfinite(list(run.metrics[-1]["evaluation"].values())).all()


def test_observations_without_numbers_are_refused():
    spec = example_spec(discrete=True)
    for learner in (lab.QLearning(), lab.ValueIteration()):
        with pytest.raises(lab.BadInput, match="number the states"):
            lab.train(learner, example_recording(spec), steps=1)
    numbered = example_specs()[2]
    assert lab.train(lab.QLearning(), example_recording(numbered), steps=1).policy() is not None


def test_a_finite_model_refuses_what_it_cannot_answer():
    process = chain(3)
    assert isinstance(process, Tabular)
    with pytest.raises(lab.BadInput, match="Tabular process"):
        lab.FiniteModel.of(TimeLimit(process, 5))
    with pytest.raises(lab.BadInput, match="single Steps"):
        lab.FiniteModel.of(process).serve({"windows": lab.Windows(4)})
    report = lab.check(lab.FiniteModel.of(process))
    assert report.passed, str(report)
