"""Strings in, strings out: the answers of the compiled programs, in batches and in streams."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

import policylab as lab
from policylab.policies import writing

FOLDER = Path(__file__).parent.parent / "fixtures" / "language" / "qwen3"


@pytest.fixture(scope="module")
def policy():
    return lab.load_language(FOLDER, answer=12).sampled(temperature=1.5)


def test_answers_do_not_depend_on_who_else_is_asked(policy):
    texts = ["the cat", "a hat that is longer"]
    together = lab.generate(policy, texts, n=2, seed=3)
    alone = lab.generate(policy, texts[:1], n=2, seed=3)
    assert [len(replies) for replies in together] == [2, 2]
    assert [reply.text for reply in alone[0]] == [reply.text for reply in together[0]]
    assert together[0][0].text != together[0][1].text
    assert all(0 < reply.tokens <= 12 and reply.log_prob < 0 for replies in together for reply in replies)
    assert [r.text for r in lab.generate(policy, texts, n=2, seed=4)[0]] != [r.text for r in together[0]]


def test_prompts_of_a_bucket_share_a_program(policy):
    lab.generate(policy, ["the cat"], n=2)
    before = writing._many._cache_size()
    lab.generate(policy, ["hat"], n=2, seed=9)
    lab.generate(policy.sampled(temperature=0.3, top_p=0.5), ["the"], n=2)
    assert writing._many._cache_size() == before


def test_a_stream_is_the_answer_in_pieces(policy):
    tokenizer = lab.Tokenizer.of(policy.tokenizer)
    prompt = tokenizer.encode("the cat")
    answer = policy.act(jax.tree.map(lambda leaf: leaf[0], tokenizer.tokens(["the cat"])), None, key=jax.random.key(5))[0]
    pieces = list(lab.stream(policy, prompt, seed=5))
    assert "".join(pieces) == tokenizer.decode(np.asarray(answer.ids)[np.asarray(answer.kind) == 2])
    assert len(pieces) > 2


def test_a_prompt_without_room_is_told(policy):
    with pytest.raises(lab.BadInput, match="longer than the model's context of 64"):
        lab.generate(policy, ["zebra crossing " * 10])
    with pytest.raises(lab.BadInput, match="empty"):
        lab.generate(policy, [""])
