"""Judged prompts and answers as arrays: numbers as they are, text through the tokenizer that a spec carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import PyTree

from policylab import spaces
from policylab.data.preferences import Value, arrays_of
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.tokenizer import Tokenizer


def prompts_of(values: Sequence[Value], spec: Spec) -> PyTree:
    """Observations of shape [row, ...]. Text becomes `Tokens` of kind 1: conversations in the words of the chat template with the answer
    opened, plain text as it stands. Raises `BadInput` where a text has no room in the spec."""
    if not spec.tokenizer:
        return arrays_of(values, "the prompt")
    tokenizer = Tokenizer.of(spec.tokenizer)
    words = [_prompt(value, tokenizer, row) for row, value in enumerate(values, start=1)]
    return _tokens(words, tokenizer, spaces.size(spec.observation), "the prompt", kind=1, ended=False)


def answers_of(values: Sequence[Value], spec: Spec) -> PyTree:
    """Actions of shape [row, ...]. Text becomes `Tokens` of kind 2 that end with the end token; of a conversation it is the one message that
    the assistant adds. Raises `BadInput` where a text has no room in the spec."""
    if not spec.tokenizer:
        return arrays_of(values, "the answer")
    tokenizer = Tokenizer.of(spec.tokenizer)
    words = [_answer(value, row) for row, value in enumerate(values, start=1)]
    return _tokens(words, tokenizer, spaces.size(spec.action), "the answer", kind=2, ended=True)


def _prompt(value: Value, tokenizer: Tokenizer, row: int) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple) and isinstance(value[0], dict):
        return tokenizer.chat([dict(message) for message in value if isinstance(message, dict)], answering=True)
    raise BadInput(f"the prompt of row {row} is {value!r} where the spec has texts: give text or messages")


def _answer(value: Value, row: int) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple) and isinstance(value[0], dict) and len(value) == 1 and value[0]["role"] == "assistant":
        return value[0]["content"]
    raise BadInput(f"the answer of row {row} is no text and no single message of the assistant: give one answer per row")


def _tokens(words: list[str], tokenizer: Tokenizer, length: int, name: str, **kind: Any) -> PyTree:
    for row, text in enumerate(words, start=1):
        used = len(tokenizer.encode(text)) + int(kind["ended"])
        if used > length:
            raise BadInput(
                f"{name} of row {row} has {used} tokens where there is room for {length}: shorten it, or give a spec with more"
            )
    return tokenizer.tokens(words, length=length, **kind)
