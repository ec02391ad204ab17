"""Countdown step by step: combine two of the numbers, again and again, until one is left: is it the target?"""

from __future__ import annotations

import itertools
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from policylab.environment import Environment, Step
from policylab.experience import Spec
from policylab.spaces import Box, Discrete

SIGNS = "+-*/"
_PERIODS = (2.0, 3.0, 5.0, 7.0, 10.0, 16.0, 32.0, 100.0)
_LARGEST = 10_000  # no step makes a larger number


class Sum(eqx.Module):
    """The numbers that are left, from large to small with zeros at the end, and the number to reach."""

    numbers: Int[Array, " number"]
    target: Int[Array, ""]


class CountdownSteps(Environment):
    """`count` numbers from 1 to `largest` and a target of at most 100 that can be made of all of them with + - * /.

    An action combines two numbers: the pair of places (i < j, larger number first) times four plus the sign. Differences have to be
    positive and quotients whole; what is not `available` leaves the numbers as they are and ends the episode. When one number is left the
    episode ends, with a reward of 1 if it is the target. A policy sees every number and the target in waves of several periods, which tell
    numbers apart as their digits would. With a `split` problems are drawn of the fifth that is "test", or of the others, "train".
    """

    count: int = eqx.field(static=True, default=4)
    largest: int = eqx.field(static=True, default=9)
    split: Literal["", "train", "test"] = eqx.field(static=True, default="")

    @property
    def pairs(self) -> np.ndarray:
        """[pair, 2] places."""
        return np.asarray(list(itertools.combinations(range(self.count), 2)))

    @property
    def spec(self) -> Spec:
        """Waves of numbers and target; one choice per pair and sign."""
        size = (self.count + 1) * (3 + 2 * len(_PERIODS))
        return Spec(Box((size,)), Discrete(4 * len(self.pairs)), horizon=self.count - 1, environment=f"countdown {self.count}")

    def reset(self, key: PRNGKeyArray) -> tuple[Sum, Float[Array, " feature"]]:
        """A problem that random steps have made; drawn again until its target is between 1 and 100."""
        state, _ = self.problem(key)
        return state, self.shown(state)

    def problem(self, key: PRNGKeyArray) -> tuple[Sum, Int[Array, " step"]]:
        """The same problem with the steps that have made it, which solve it."""

        def draw(carry: tuple) -> tuple:
            key, _, steps = carry
            key, number_key, step_key = jax.random.split(key, 3)
            numbers = jnp.sort(jax.random.randint(number_key, (self.count,), 1, self.largest + 1))[::-1]
            left = numbers
            for time in range(self.count - 1):
                logits = jnp.where(self._results(left)[1], 0.0, -jnp.inf)
                choice = jax.random.categorical(jax.random.fold_in(step_key, time), logits).astype(jnp.int32)
                left, steps = self._after(left, choice), steps.at[time].set(choice)
            return key, Sum(numbers, left[0]), steps

        nothing = Sum(jnp.zeros(self.count, jnp.int32), jnp.zeros((), jnp.int32)), jnp.zeros(self.count - 1, jnp.int32)
        _, state, steps = jax.lax.while_loop(lambda carry: ~self._fits(carry[1]), draw, (key, *nothing))
        return state, steps

    def _fits(self, state: Sum) -> Bool[Array, ""]:
        """Whether a problem's target is in range and the problem in the split: which one follows from a hash of it (FNV-1a) alone."""
        mixed = jnp.asarray(2166136261, jnp.uint32)
        for number in [*state.numbers, state.target]:
            mixed = (mixed ^ number.astype(jnp.uint32)) * jnp.asarray(16777619, jnp.uint32)
        tested = (mixed >> 8) % 5 == 0
        belongs = tested if self.split == "test" else ~tested if self.split == "train" else True
        return (state.target >= 1) & (state.target <= 100) & belongs

    def step(self, state: Sum, action: Int[Array, ""], key: PRNGKeyArray) -> tuple[Sum, Step]:
        """The combination. The key is not used."""
        allowed = self._results(state.numbers)[1][action]
        numbers = jnp.where(allowed, self._after(state.numbers, action), state.numbers)
        state = Sum(numbers, state.target)
        last = numbers[1] == 0
        reward = (allowed & last & (numbers[0] == state.target)).astype(jnp.float32)
        info = {"success": reward}
        return state, Step(self.shown(state), reward, last | ~allowed, jnp.asarray(False), self.available(state), info)

    def at(self, observation: Float[Array, " feature"]) -> Sum:
        """The numbers and the target that are seen so."""
        seen = observation.reshape(self.count + 1, -1)[:, 0]
        numbers = jnp.round(jnp.expm1(2.0 * seen)).astype(jnp.int32)
        return Sum(numbers[:-1], numbers[-1])

    def available(self, state: Sum) -> Bool[Array, " choice"]:
        """Which combinations there are."""
        return self._results(state.numbers)[1]

    def solvable(self, state: Sum) -> Bool[Array, ""]:
        """Whether some way from here reaches the target, by trying all."""

        def tried(numbers: Int[Array, " number"], left: int) -> Bool[Array, ""]:
            made = (numbers[0] == state.target) & (numbers[1] == 0)
            if left == 1:
                return made
            choices = jnp.asarray([4 * i + sign for i, (_, j) in enumerate(self.pairs) if j < left for sign in range(4)])
            allowed = self._results(numbers)[1][choices]
            after = jax.vmap(lambda choice: self._after(numbers, choice))(choices)
            return made | jnp.any(allowed & jax.vmap(lambda n: tried(n, left - 1))(after))

        return tried(state.numbers, self.count)

    def written(self, numbers: np.ndarray, action: int) -> str:
        """A step in words, such as `7*3=21`. On the host."""
        i, j = self.pairs[action // 4]
        result = int(self._results(jnp.asarray(numbers))[0][action])
        return f"{int(numbers[i])}{SIGNS[action % 4]}{int(numbers[j])}={result}"

    def _results(self, numbers: Int[Array, " number"]) -> tuple[Int[Array, " choice"], Bool[Array, " choice"]]:
        """What every combination makes, and which are allowed."""
        a, b = numbers[self.pairs[:, 0]], numbers[self.pairs[:, 1]]
        safe = jnp.maximum(b, 1)
        results = jnp.stack([a + b, a - b, a * b, a // safe], axis=1)
        allowed = jnp.stack([b > 0, (b > 0) & (a > b), b > 0, (b > 0) & (a % safe == 0)], axis=1) & (results <= _LARGEST)
        return results.reshape(-1), allowed.reshape(-1)

    def _after(self, numbers: Int[Array, " number"], action: Int[Array, ""]) -> Int[Array, " number"]:
        """The numbers after a combination, in order."""
        pair = jnp.asarray(self.pairs)[action // 4]
        made = numbers.at[pair[0]].set(self._results(numbers)[0][action]).at[pair[1]].set(0)
        return jnp.sort(made)[::-1]

    def shown(self, state: Sum) -> Float[Array, " feature"]:
        """What a policy sees of a state."""
        numbers = jnp.append(state.numbers, state.target).astype(jnp.float32)[:, None]
        turns = 2.0 * jnp.pi * numbers / jnp.asarray(_PERIODS)
        size = jnp.concatenate([jnp.log1p(numbers) / 2.0, jnp.minimum(numbers, 200.0) / 25.0, numbers > 0], axis=1)
        waves = jnp.concatenate([jnp.sin(turns), jnp.cos(turns)], axis=1) * (numbers > 0)
        return jnp.concatenate([size, waves], axis=1).reshape(-1)
