import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from policylab.environments import exact
from policylab.environments.finite import chain, garnet, gridworld, river_swim
from policylab.environments.tabular import Tabular
from policylab.environments.time_limit import TimeLimit
from policylab.errors import BadInput
from policylab.evaluation.rollouts import evaluate
from policylab.policy import Policy

KEY = jax.random.key(0)
ROOMS = ("S..#..", "...#..", "......", "...#.X", "...#.G")


class Lookup(Policy):
    """Samples from a table of probabilities [state, action]."""

    table: jax.Array

    def act(self, observation, memory, *, key):
        return jax.random.categorical(key, jnp.log(self.table[observation])).astype(jnp.int32), None


def swept(process, *, sweeps=6000):
    """Q* by brute force value iteration, written out with loops over states."""
    transition = np.asarray(process.transition, np.float64)
    transition /= transition.sum(2, keepdims=True)
    reward, value = np.asarray(process.reward, np.float64), np.zeros(process.states)
    for _ in range(sweeps):
        value = np.where(np.asarray(process.terminal), 0.0, value)
        table = np.array([
            [sum(p * (reward[s, a, t] + process.discount * value[t]) for t, p in enumerate(transition[s, a]) if p)
             for a in range(process.choices)]
            for s in range(process.states)
        ])  # fmt: skip
        if np.abs(table.max(1) - value).max() < 1e-10 and not np.asarray(process.terminal).any():
            break
        value = table.max(1)
    return table


@pytest.mark.parametrize("process", [
    gridworld(ROOMS, slip=0.2, discount=0.9), chain(6, slip=0.2, discount=0.9), river_swim(), garnet(8, 3, 3, discount=0.8, seed=1),
])  # fmt: skip
def test_optimal_values_equal_value_iteration(process):
    np.testing.assert_allclose(exact.optimal_values(process), swept(process, sweeps=400), atol=1e-6)


def test_policy_values_equal_simulated_returns():
    process = garnet(6, 2, 3, discount=0.8, seed=3)
    table = np.random.default_rng(0).dirichlet(np.ones(2), 6)
    policies = Lookup(jnp.asarray(table)[None])
    # The discounted value is the expected undiscounted return when the process goes on with probability gamma.
    dying = Tabular.of(
        np.pad(0.8 * np.asarray(process.transition, np.float64), ((0, 1), (0, 0), (0, 1)))
        + np.concatenate([np.zeros((7, 2, 6)), np.concatenate([np.full((6, 2, 1), 0.2), np.ones((1, 2, 1))])], axis=2),
        np.pad(np.asarray(exact.tables(process)[1]), ((0, 1), (0, 0))), np.append(np.asarray(process.initial, np.float64), 0.0),
        discount=1.0, terminal=np.arange(7) == 6,
    )  # fmt: skip
    policies = Lookup(jnp.concatenate([policies.table, jnp.full((1, 1, 2), 0.5)], axis=1))
    trials = evaluate(policies, TimeLimit(dying, 80), episodes=8_000, seeds=[0], key=KEY)
    truth = exact.start_value(process, table)
    assert abs(trials.outcome.mean() - truth) < 4 * trials.outcome.std() / np.sqrt(8_000)
    np.testing.assert_allclose(exact.expected_return(dying, np.append(table, [[0.5, 0.5]], 0), 400), truth, rtol=1e-6)
    visits = exact.occupancy(process, table)
    np.testing.assert_allclose(visits.sum(), 1.0)
    np.testing.assert_allclose((visits * exact.tables(process)[1]).sum() / 0.2, truth, rtol=1e-9)


def test_river_swim_is_worth_the_swim_only_for_the_patient():
    # Going right is optimal everywhere, and under it the right end is the best place to be.
    process = river_swim()
    np.testing.assert_array_equal(exact.optimal_policy(process).argmax(1), 1)
    assert (np.diff(exact.optimal_values(process).max(1)) > 0).all()
    np.testing.assert_allclose(np.asarray(process.transition)[3, 1, 2:5], [0.05, 0.6, 0.35], atol=1e-6)
    np.testing.assert_array_equal(exact.optimal_policy(process.with_discount(0.2)).argmax(1), [0, 0, 1, 1, 1, 1])


def test_gridworld_reads_as_drawn():
    process = gridworld(ROOMS, discount=0.9)
    assert process.states == 26
    # The shortest way from S to G is 4 down and 5 right; the reward comes with the ninth step.
    np.testing.assert_allclose(exact.start_value(process, exact.optimal_policy(process)), 0.9**8, rtol=1e-6)
    state, _ = process.reset(KEY)
    assert int(state) == 0
    up, step = process.step(state, jnp.asarray(0), KEY)
    assert (int(up), float(step.reward), bool(step.terminal)) == (0, 0.0, False)
    goal, step = process.step(jnp.asarray(24), jnp.asarray(1), KEY)
    assert (int(goal), float(step.reward), bool(step.terminal), float(step.info["success"])) == (25, 1.0, True, 1.0)
    pit, step = process.step(jnp.asarray(15), jnp.asarray(2), KEY)
    assert (int(pit), float(step.reward), bool(step.terminal), float(step.info["success"])) == (20, -1.0, True, 0.0)


def test_pits_put_back_to_the_start():
    process = gridworld(("SX", ".G"), step_reward=-1.0, pit_reward=-100.0, goal_reward=-1.0, back_to_start=True, discount=0.9)
    following, step = process.step(jnp.asarray(0), jnp.asarray(1), KEY)
    assert (int(following), float(step.reward), bool(step.terminal)) == (0, -100.0, False)
    np.testing.assert_allclose(exact.start_value(process, exact.optimal_policy(process)), -1.9, rtol=1e-6)
    assert exact.best_return(process, 10) == pytest.approx(-2.0)


def test_slips_go_to_the_sides():
    process = gridworld(("...", ".S.", "..G"), slip=0.4)
    np.testing.assert_allclose(np.asarray(process.transition)[4, 0], [0, 0.6, 0, 0.2, 0, 0.2, 0, 0, 0], atol=1e-6)
    counts = np.bincount(
        jax.vmap(lambda k: process.step(jnp.asarray(4), jnp.asarray(0), k)[0])(jax.random.split(KEY, 5_000)), minlength=9
    )
    np.testing.assert_allclose(counts / 5_000, np.asarray(process.transition)[4, 0], atol=0.03)
    picture = process.picture(np.asarray(4))
    assert picture.shape == (320, 320, 3)
    assert (picture != process.picture(np.asarray(5))).any()


def test_what_is_no_process_is_one_sentence():
    good, reward, start = np.full((2, 1, 2), 0.5), np.zeros((2, 1)), np.array([1.0, 0.0])
    with pytest.raises(BadInput, match="after state 1 and action 0 are negative or do not add up to 1"):
        Tabular.of(good * [[[1]], [[1.1]]], reward, start, discount=0.9)
    with pytest.raises(BadInput, match="do not belong together"):
        Tabular.of(good[:, :, :1], reward, start, discount=0.9)
    with pytest.raises(BadInput, match="starting probabilities"):
        Tabular.of(good, reward, start * 2, discount=0.9)
    with pytest.raises(BadInput, match="do not belong to 2 states"):
        Tabular.of(good, np.zeros(3), start, discount=0.9)
    process = Tabular.of(good, reward, start, discount=1.0)
    with pytest.raises(BadInput, match="may go on for ever"):
        exact.policy_value(process, np.ones((2, 1)))
    with pytest.raises(BadInput, match="discount below 1"):
        exact.optimal_values(process)
    with pytest.raises(BadInput, match="2 rows and 1 columns"):
        exact.policy_value(process.with_discount(0.5), np.ones((1, 2)))
    with pytest.raises(BadInput, match="equally long"):
        gridworld(("S", "G."))
    with pytest.raises(BadInput, match="no goal"):
        gridworld(("S.",))
    with pytest.raises(BadInput, match="cannot branch into 9"):
        garnet(4, 2, 9)


def test_random_processes_are_repeatable_and_differ_by_seed():
    first, again, other = (garnet(10, 3, 2, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.transition, again.transition)
    assert not np.array_equal(first.transition, other.transition)
    np.testing.assert_array_equal((np.asarray(first.transition) > 0).sum(2), 2)
    sparse = garnet(30, 3, 2, sparsity=0.9, seed=0)
    assert np.mean(np.asarray(sparse.reward)[:, :, 0] == 0) > 0.8
    assert dataclasses.replace(first, name="x").spec.environment == "x"
