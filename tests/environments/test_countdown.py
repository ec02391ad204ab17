"""Countdown step by step, against plain Python on fractions."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import policylab as lab
from policylab.environments.countdown import CountdownSteps

WORLD = CountdownSteps(3, 9)


def reachable(numbers, target):
    """Whether the target can be made of all numbers, with positive whole numbers on the way."""
    if len(numbers) == 1:
        return numbers[0] == target
    for i, j in itertools.combinations(range(len(numbers)), 2):
        rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
        a, b = max(numbers[i], numbers[j]), min(numbers[i], numbers[j])
        made = {a + b, a * b} | ({a - b} if a > b else set()) | ({a // b} if a % b == 0 else set())
        if any(reachable([*rest, m], target) for m in made):
            return True
    return False


def test_problems_are_solved_by_the_steps_that_made_them_and_others_are_what_brute_force_says():
    @jax.jit
    @jax.vmap
    def tried(key):
        (state, steps), wrong = WORLD.problem(key), jax.random.randint(key, (), 1, 100)
        after, first = WORLD.step(state, steps[0], key)
        _, second = WORLD.step(after, steps[1], key)
        other = type(state)(state.numbers, wrong)
        again = WORLD.at(first.observation)
        return state, first, second, WORLD.solvable(state), wrong, WORLD.solvable(other), after, again

    state, first, second, solvable, wrong, other, after, again = jax.device_get(tried(jax.random.split(jax.random.key(0), 64)))
    assert not first.terminal.any()
    assert second.terminal.all()
    assert np.all(second.reward == 1.0)
    assert solvable.all()
    for numbers, target, said in zip(state.numbers, wrong, other, strict=True):
        assert bool(said) == reachable(numbers.tolist(), int(target))
    np.testing.assert_array_equal(after.numbers, again.numbers)
    np.testing.assert_array_equal(after.target, again.target)
    assert WORLD.written(np.asarray([8, 4, 1]), 3) == "8/4=2"


def test_what_is_not_available_ends_the_episode_without_a_reward():
    state = type(WORLD.problem(jax.random.key(0))[0])(jnp.asarray([3, 3, 2]), jnp.asarray(8))
    available = WORLD.available(state)
    assert not bool(available[1])  # 3 - 3 is not positive
    _, step = WORLD.step(state, jnp.asarray(1), jax.random.key(0))
    assert bool(step.terminal)
    assert float(step.reward) == 0.0
    assert isinstance(WORLD.spec.action, lab.Discrete)


def test_splits_share_no_problem():
    worlds = CountdownSteps(3, 9, "train"), CountdownSteps(3, 9, "test")
    draw = jax.jit(lambda keys: [jax.vmap(lambda k, w=w: w.problem(k)[0])(keys) for w in worlds])
    drawn = jax.device_get(draw(jax.random.split(jax.random.key(0), 500)))
    train, test = ({(*n, t) for n, t in zip(s.numbers.tolist(), s.target.tolist(), strict=True)} for s in drawn)
    assert len(train) > len(test) > 50
    assert not train & test
