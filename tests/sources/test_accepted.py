"""What a verifier lets pass of a policy's answers, and what is learned from it in rounds."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import policylab as lab
from policylab.policies.tabular import TabularPolicy

SPEC = lab.Spec(lab.Discrete(6), lab.Discrete(4))


class Parity(lab.Scorer):
    """Right: an answer that is even where the prompt is, and odd where that is; prompt 5 has none."""

    def scores(self, observation, action):
        return ((observation % 2 == action % 2) & (observation != 5))[None].astype("float32")


RESPONSES = lab.Responses.of(np.arange(6), Parity(), spec=SPEC)


@pytest.fixture(scope="module")
def start():
    return TabularPolicy(jax.random.normal(jax.random.key(0), (6, 4)))


def test_accepted_are_right_different_and_in_the_order_of_the_prompts(start):
    found = lab.accepted(RESPONSES, start, n=32, batch=4, seed=1)
    rows = int(found.count)
    pairs = list(zip(np.asarray(found.prompt)[:rows].tolist(), np.asarray(found.answer)[:rows].tolist(), strict=True))
    assert len(set(pairs)) == rows
    assert [p for p, _ in pairs] == sorted(p for p, _ in pairs)
    assert set(pairs) == {(p, a) for p in range(5) for a in range(4) if p % 2 == a % 2}
    few = lab.accepted(RESPONSES, start, n=32, batch=4, seed=1, at_most=1)
    assert np.asarray(few.prompt)[: int(few.count)].tolist() == [0, 1, 2, 3, 4]
    assert np.asarray(few.answer)[0] == pairs[0][1]


def test_rounds_of_cloning_what_was_accepted_answer_better_and_better(start):
    learner, policy, shares = lab.SFT(learning_rate=0.05, batch_size=16, policy=lab.Tabular()), start, []
    for number in range(2):
        data = lab.accepted(RESPONSES, policy, n=8, batch=6, seed=number)
        policy = lab.train(learner, data, steps=40, given={"start": policy}).policy()
        chance = np.asarray(jax.nn.softmax(policy.table))[:5]
        shares.append(np.where(np.arange(5)[:, None] % 2 == np.arange(4) % 2, chance, 0.0).sum(1).mean())
    assert shares[-1] > 0.9
    assert shares[-1] >= shares[0]


def test_nothing_accepted_is_told(start):
    hard = lab.Responses.of(np.array([5]), Parity(), spec=SPEC)
    with pytest.raises(lab.BadInput, match="none of 8 answers"):
        lab.accepted(hard, start)
    with pytest.raises(lab.BadInput, match="n is 0"):
        lab.accepted(hard, start, n=0)
