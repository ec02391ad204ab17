"""Policies that choose by a critic, alone and stacked."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from policylab.policies.greedy import Greedy, Softmax
from policylab.scorers.choice import ChoiceValue
from tests.small import discrete_recording

SPEC = discrete_recording(episodes=1).spec
OBSERVATION = jax.random.normal(jax.random.key(9), (50, 4))


def build(seed):
    """A critic that chooses different actions in different states."""
    return ChoiceValue(SPEC, width=8, depth=1, key=seed)


def test_the_mode_of_stacked_policies_is_that_of_each():
    keys = jax.random.split(jax.random.key(0), 3)
    act = jax.jit(jax.vmap(lambda policy, o, k: policy.act(o, None, key=k)[0], in_axes=(None, 0, 0)))
    noise = jax.random.split(jax.random.key(1), 50)
    for make in (lambda k: Greedy(build(k), jnp.asarray(0.9)), lambda k: Softmax(build(k), jnp.asarray(5.0))):
        together = jax.vmap(make)(keys).mode()
        assert together.epsilon.shape == (3,)
        for number, key in enumerate(keys):
            best = np.asarray(jax.vmap(build(key).values)(OBSERVATION)).argmax(1)
            one = jax.tree.map(lambda leaf, n=number: leaf[n], together)
            np.testing.assert_array_equal(act(one, OBSERVATION, noise), best)
            np.testing.assert_array_equal(act(make(key).mode(), OBSERVATION, noise), best)
        assert len(set(best.tolist())) > 1
