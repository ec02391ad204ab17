"""One policy, one environment: by tokens, by steps and by whole answers it says and earns the same."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environments.grains import at_grain
from policylab.environments.pendulum import Pendulum
from policylab.policies.generation import joined

TOKENIZER = lab.characters("abc\n")


class CountA(lab.Environment):
    """The reward is the number of "a" in an answer of at most 6 tokens."""

    @property
    def spec(self):
        return lab.text_spec(TOKENIZER, prompt=8, answer=6, horizon=1)

    def reset(self, key):
        prompt = jax.tree.map(lambda leaf: leaf[0], TOKENIZER.tokens(["abc"]))
        return jnp.asarray(0), prompt

    def step(self, state, action, key):
        reward = jnp.sum((action.ids == 4) & (action.kind == 2)).astype(jnp.float32)
        return state, lab.Step(self.reset(key)[1], reward, jnp.asarray(True), jnp.asarray(False))


def test_every_grain_says_and_earns_the_same():
    environment, key = CountA(), jax.random.key(3)
    policy = (
        lab.Language(width=16, layers=1, heads=2, family="gpt2", context=20)
        .build(environment.spec, key=jax.random.key(0))
        .mode()
    )
    answer = policy.act(environment.reset(key)[1], None, key=key)[0]
    reward = environment.step(None, answer, key)[1].reward
    whole = joined(environment.reset(key)[1], answer)
    world, piece = at_grain(environment, "step", longest=2), 2
    writer = dataclasses.replace(policy, answer=piece)
    episodes = jax.jit(lambda: lab.unroll(writer, world, episodes=2, horizon=4, key=key))()
    np.testing.assert_allclose(episodes.returns, float(reward))
    last = int(episodes.lengths[0]) - 1
    assert last + 1 == -(-int(jnp.sum(answer.kind == 2)) // piece)
    said, piece_said = jax.tree.map(lambda leaf: leaf[0, last], (episodes.observation, episodes.action))
    written = joined(said, piece_said)
    np.testing.assert_array_equal(written.ids[written.kind > 0], whole.ids[whole.kind > 0])
    assert world.spec.action.shape == (2,)
    assert at_grain(environment, "token").spec.action.shape == (1,)


def test_a_whole_answer_is_the_environment_itself():
    environment = CountA()
    assert at_grain(environment, "response") is environment
    with pytest.raises(lab.BadInput, match="no grain"):
        at_grain(environment, "word")
    with pytest.raises(lab.BadInput, match="texts"):
        at_grain(Pendulum(), "token")
