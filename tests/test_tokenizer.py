"""Text goes into ids and back, special tokens stay apart, chat templates run in a sandbox."""

from __future__ import annotations

import json

import numpy as np
import pytest

import policylab as lab
from policylab.tokenizer import bucket

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_characters_come_back_and_have_the_ids_of_their_order():
    tokenizer = lab.characters("abc \n")
    assert tokenizer.encode("cab\n") == [6, 4, 5, 8]
    assert tokenizer.decode([6, 4, 5, 8, 1]) == "cab\n"
    assert (tokenizer.pad, tokenizer.end, tokenizer.begin, tokenizer.vocabulary) == (0, (1,), 2, 9)
    with pytest.raises(lab.BadInput, match="has no token for"):
        tokenizer.encode("xyz")


def test_a_prompt_begins_as_the_tokenizer_wants():
    import tokenizers

    plain = lab.characters("abc")
    assert plain.prompt("ab") == plain.encode("ab")
    document = plain.document
    model = tokenizers.Tokenizer.from_str(json.dumps(document["tokenizer"]))
    model.post_processor = tokenizers.processors.TemplateProcessing(single="<begin> $A", special_tokens=[("<begin>", 2)])
    wanting = lab.Tokenizer(model, pad="<pad>", end=["<end>"], begin="<begin>")
    assert wanting.begins
    assert wanting.prompt("ab") == [2, *plain.encode("ab")]
    assert wanting.prompt("<begin>ab") == wanting.prompt("ab")  # a chat template that writes it itself
    assert wanting.encode("ab") == plain.encode("ab")


def test_byte_pairs_cover_every_text_and_shorten_what_they_were_trained_on():
    text = "the cat and the hat and the bat "
    tokenizer = lab.byte_pairs([text] * 4, vocabulary=290)
    assert len(tokenizer.encode(text)) < len(text) / 2
    for other in (text, "Zürich, 東京\n", "a\x00b"):
        assert tokenizer.decode(tokenizer.encode(other)) == other
        assert b"".join(tokenizer.spelling[i] for i in tokenizer.encode(other)).decode() == other
    assert tokenizer.spelling[tokenizer.end[0]] == b""


@pytest.mark.parametrize("tokenizer", [lab.characters(), lab.byte_pairs(["some text"], vocabulary=270, template=TEMPLATE)])
def test_the_json_text_is_the_whole_tokenizer(tokenizer):
    again = lab.Tokenizer.of(tokenizer.json)
    assert again.json == tokenizer.json
    assert again.encode("some text") == tokenizer.encode("some text")
    assert (again.pad, again.end, again.begin, again.template) == (
        tokenizer.pad,
        tokenizer.end,
        tokenizer.begin,
        tokenizer.template,
    )
    assert lab.Tokenizer.of(tokenizer.json) is again


def test_batches_are_padded_to_buckets_and_never_cut():
    tokenizer = lab.characters()
    tokens = tokenizer.tokens(["hello", "hi there, you"], kind=2, ended=True)
    assert tokens.ids.shape == (2, 16)
    np.testing.assert_array_equal(tokens.kind.sum(axis=1), [12, 28])
    assert tokenizer.texts(tokens) == ["hello", "hi there, you"]
    assert tokenizer.texts(tokens, kind=1) == ["", ""]
    with pytest.raises(lab.BadInput, match="room for 4"):
        tokenizer.tokens(["hello"], length=4)
    assert [bucket(n) for n in (0, 8, 9, 64, 65)] == [8, 8, 16, 64, 128]


def test_a_chat_is_written_as_its_template_says():
    tokenizer = lab.characters(template=TEMPLATE)
    messages = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
    assert tokenizer.chat(messages, answering=False) == "<|user|>2+2?<end><|assistant|>4<end>"
    assert tokenizer.chat(messages[:1]) == "<|user|>2+2?<end><|assistant|>"


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("", "no chat template"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "fails"),
        ("{% for m in messages %}{{ messages.append(m) }}{% endfor %}", "fails"),
        ("{{ raise_exception('no system prompts') }}", "no system prompts"),
        ("{% for %}", "does not read"),
    ],
)
def test_a_template_can_neither_leave_the_sandbox_nor_crash(template, problem):
    with pytest.raises(lab.BadInput, match=problem):
        lab.characters(template=template).chat([{"role": "user", "content": "x"}])


def test_a_damaged_tokenizer_is_one_sentence():
    for text in ("", "{", '{"tokenizer": {}}'):
        with pytest.raises(lab.BadInput):
            lab.Tokenizer.of(text)
    with pytest.raises(lab.BadInput, match="too small"):
        lab.byte_pairs(["a"], vocabulary=100)
