"""IDQL: the clone is not weighted, and the best of its samples is taken."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from policylab.learner import Clock
from policylab.learners.offline.idql import IDQL
from policylab.policies.diffusion import Diffusion
from policylab.policy import imitation_loss
from tests.small import continuous_dataset

KEY = jax.random.key(0)


def test_it_clones_everything_and_acts_by_the_critic():
    learner = IDQL(width=8, depth=1, batch_size=16, samples=8, policy=Diffusion(width=8, depth=1, training="ddpm", levels=3))
    source = continuous_dataset(episodes=4).serve(learner.needs)
    clock = Clock(jnp.asarray(0), jnp.asarray(10))

    @jax.jit
    def once():
        state = learner.init(source.spec, key=KEY)
        batch = source.next(None, {}, clock=clock, key=KEY)[1]
        plain = imitation_loss(state["policy"].model, batch, key=KEY)
        policy = learner.products(state)["policy"]
        observation = batch.observation[0]
        draw, _ = jax.random.split(KEY)
        offered = jax.vmap(lambda k: policy.policy.act(observation, None, key=k)[0])(jax.random.split(draw, 8))
        scores = jax.vmap(lambda a: policy.scorer.score(observation, a))(offered)
        return (
            learner.update(state, batch, clock=clock, key=KEY)[1],
            plain,
            offered,
            scores,
            policy.act(observation, None, key=KEY)[0],
        )

    metrics, plain, offered, scores, chosen = once()
    assert float(metrics["weight"]) == 1.0
    np.testing.assert_allclose(metrics["policy_loss"], plain.mean(), rtol=1e-5)
    np.testing.assert_allclose(chosen, offered[int(np.argmax(scores))], rtol=1e-5)
