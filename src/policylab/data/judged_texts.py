"""Judged prompts and answers as arrays: numbers as they are, text through the tokenizer that a spec carries."""

from __future__ import annotations

from collections.abc import Sequence

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
    words = [prompt_text(value, tokenizer, row) for row, value in enumerate(values, start=1)]
    rows = [tokenizer.prompt(text) for text in words]
    return _tokens(rows, tokenizer, spaces.size(spec.observation), "the prompt", kind=1)


def answers_of(values: Sequence[Value], spec: Spec) -> PyTree:
    """Actions of shape [row, ...]. Text becomes `Tokens` of kind 2 that end with the end token; of a conversation it is the one message that
    the assistant adds. Raises `BadInput` where a text has no room in the spec."""
    if not spec.tokenizer:
        return arrays_of(values, "the answer")
    tokenizer = Tokenizer.of(spec.tokenizer)
    words = [answer_text(value, row) for row, value in enumerate(values, start=1)]
    rows = [[*tokenizer.encode(text), tokenizer.end[0]] for text in words]
    return _tokens(rows, tokenizer, spaces.size(spec.action), "the answer", kind=2)


def prompt_text(value: Value, tokenizer: Tokenizer, row: int) -> str:
    """What stands before the answer: plain text as it is, messages in the words of the chat template. Raises `BadInput` for numbers."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple) and isinstance(value[0], dict):
        return tokenizer.chat([dict(message) for message in value if isinstance(message, dict)], answering=True)
    raise BadInput(f"the prompt of row {row} is {value!r} where the spec has texts: give text or messages")


def answer_text(value: Value, row: int) -> str:
    """What was answered: plain text, or the content of one message of the assistant. Raises `BadInput` for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple) and isinstance(value[0], dict) and len(value) == 1 and value[0]["role"] == "assistant":
        return value[0]["content"]
    raise BadInput(f"the answer of row {row} is no text and no single message of the assistant: give one answer per row")


def _tokens(rows: list[list[int]], tokenizer: Tokenizer, length: int, name: str, *, kind: int) -> PyTree:
    for row, ids in enumerate(rows, start=1):
        if len(ids) > length:
            raise BadInput(
                f"{name} of row {row} has {len(ids)} tokens where there is room for {length}: shorten it, or give a spec with more"
            )
    return tokenizer.padded(rows, length=length, kind=kind)
