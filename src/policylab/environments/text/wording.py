"""Where strings become tokens and back: how a question is put to a policy, and how a dialogue goes on."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from policylab.tokenizer import Tokenizer

_MARK = "MARK7f3a"  # stands for a message while the words of a chat template around it are found


def asked(tokenizer: Tokenizer, question: str, instruction: str) -> str:
    """The prompt: the messages of a chat where the tokenizer has a template, else the question alone and a new line."""
    if not tokenizer.template:
        return f"{question}\n"
    return tokenizer.chat([{"role": "user", "content": f"{instruction}\n\n{question}"}])


@lru_cache(maxsize=16)
def _between(json: str) -> tuple[str, str]:
    """What the chat template writes after an answer and before the next message, and after that up to the next answer."""
    tokenizer = Tokenizer.of(json)
    if not tokenizer.template:
        return "\n", "\n"
    said = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": f"{_MARK}1"},
        {"role": "user", "content": f"{_MARK}2"},
    ]
    text = tokenizer.chat(said)
    before, _, after = text.rpartition(f"{_MARK}2")
    return before.rpartition(f"{_MARK}1")[2], after


def answered(tokenizer: Tokenizer, ids: np.ndarray, reply: str) -> list[int]:
    """The tokens with which a dialogue goes on after an answer of these `ids`; the end token is not written twice."""
    before, after = _between(tokenizer.json)
    tail = tokenizer.encode(f"{before}{reply}{after}")
    return tail[1:] if len(ids) and len(tail) and ids[-1] in tokenizer.end and tail[0] == ids[-1] else tail


def read(tokenizer: Tokenizer, ids: np.ndarray, kind: np.ndarray, *, of: int = 2) -> str:
    """The text of the tokens of one kind (2: what the policy wrote)."""
    return tokenizer.decode(np.asarray(ids)[np.asarray(kind) == of])


def room(tokenizer: Tokenizer, texts: list[str]) -> int:
    """How many tokens the longest of some texts has."""
    return max(len(tokenizer.encode(text)) for text in texts)
