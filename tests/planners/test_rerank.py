"""Re-ranking samples by a scorer."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import policylab as lab
from policylab.planners.rerank import Rerank
from policylab.policy import Policy
from policylab.scorer import Scorer
from policylab.spaces import Box


class Uniform(Policy):
    def act(self, observation, memory, *, key):
        return jax.random.randint(key, (), 0, 4), memory + 1

    def initial_memory(self, *, key):
        return jnp.zeros(())


class Table(Scorer):
    gains: jax.Array

    def scores(self, observation, action):
        return self.gains[action][None]


def test_temperature_zero_takes_the_best_of_the_samples():
    planner = Rerank(Uniform(), Table(jnp.array([0.0, 3.0, 1.0, 2.0])), samples=40)
    action, memory = jax.jit(lambda p, k: p.act(jnp.zeros(2), p.initial_memory(key=k), key=k))(planner, jax.random.key(0))
    assert (int(action), float(memory)) == (1, 1.0)


def test_samples_are_chosen_with_softmax_probabilities():
    gains, temperature = np.array([0.0, 1.0, -1.0, 0.5]), 0.7
    planner = Rerank(Uniform(), Table(jnp.asarray(gains)), temperature=temperature, samples=200)
    draw = jax.jit(jax.vmap(lambda key: planner.act(jnp.zeros(2), jnp.zeros(()), key=key)[0]))
    shares = np.bincount(draw(jax.random.split(jax.random.key(1), 4000)), minlength=4) / 4000
    np.testing.assert_allclose(shares, np.exp(gains / temperature) / np.exp(gains / temperature).sum(), atol=0.03)


def test_it_is_a_policy_like_any_other():
    spec = lab.Spec(Box((3,)), Box((2,), -2.0, 2.0))
    build = lambda form: form.build(spec, key=jax.random.key(0))

    class Near(Scorer):
        target: jax.Array
        scale: float = eqx.field(static=True, default=1.0)

        def scores(self, observation, action):
            return -self.scale * jnp.sum((action - self.target) ** 2, keepdims=True)

    planner = Rerank(build(lab.Gaussian(width=4, depth=1)), Near(jnp.ones(2)), samples=8)
    assert lab.check(planner, spec=spec).passed, str(lab.check(planner, spec=spec))
