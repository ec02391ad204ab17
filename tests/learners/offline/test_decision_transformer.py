"""Decision Transformer: what it is told, what it asks for, and that asking for more brings more."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

import policylab as lab
from policylab.data.recording import Recording
from policylab.experience import Spec
from policylab.spaces import Box

LENGTH = 4


def doses(episodes=200):
    """Each step pays as much as was done; every episode has its own steady dose in [-1, 1] and shows nothing of it."""
    dose = np.random.default_rng(0).uniform(-1, 1, episodes).astype(np.float32)
    action = np.repeat(dose, LENGTH)[:, None]
    none = np.zeros(episodes * LENGTH, bool)
    ends = none.copy()
    ends[LENGTH - 1 :: LENGTH] = True
    spec = Spec(Box((1,)), Box((1,), -1.0, 1.0), horizon=LENGTH)
    seen = np.tile(np.arange(LENGTH + 1, dtype=np.float32) / LENGTH, episodes)[:, None]
    return Recording(seen, action, action[:, 0], none, ends, np.full(episodes, LENGTH), spec)


def test_it_does_what_brings_the_return_that_is_asked_for():
    learner = lab.DecisionTransformer(
        batch_size=32, learning_rate=5e-3, scale=1.0, policy=lab.Sequence(context=3, width=16, layers=1, heads=2)
    )
    run = lab.train(learner, doses(), steps=250)
    policy = run.policy().mode()
    assert 3.7 < float(policy.promise.target) <= 4.0, "the largest return of the data"
    act = jax.jit(lambda policy, o, m: policy.act(o, m, key=jax.random.key(0)))

    def played(target):
        asked = replace(policy, promise=replace(policy.promise, target=jnp.asarray(target)))
        memory, total = asked.initial_memory(key=jax.random.key(0)), 0.0
        for t in range(LENGTH):
            left = float(memory[1])
            action, memory = act(asked, jnp.array([t / LENGTH]), memory)
            total += float(action[0])
            assert abs(left - float(memory[1]) - float(action[0])) < 0.15, (
                "what is left goes down by the reward that is expected"
            )
        return total

    for target in (-2.0, 0.0, 2.0, 3.5):
        assert abs(played(target) - target) < 0.6
