"""Chat templates, run in Jinja's immutable sandbox, and how the tokens of a tokenizer are spelled."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn

from policylab.errors import BadInput


@lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    try:
        import jinja2
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as missing:
        raise BadInput('chat templates need jinja2, which is not installed: pip install "policylab[language]"') from missing
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        return environment.from_string(template)
    except jinja2.TemplateError as error:
        raise BadInput(f"the chat template does not read ({error}): mend chat_template.jinja") from None


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _refuse(message: str) -> NoReturn:
    raise BadInput(f"the chat template refuses these messages: {message}")


def rendered(template: str, messages: Sequence[Mapping[str, Any]], *, answering: bool, names: Mapping[str, str]) -> str:
    """`messages` in the words of `template`; `names` holds its special tokens. Raises `BadInput` for what it cannot do."""
    if not template:
        raise BadInput("the tokenizer has no chat template: give it one, or write the prompt as plain text")
    for message in messages:
        if not isinstance(message.get("role"), str):
            raise BadInput(f"a message is {str(dict(message))[:60]}: give each a role and a content")
    from jinja2 import TemplateError

    try:
        return _compiled(template).render(
            messages=list(messages), add_generation_prompt=answering, raise_exception=_refuse, strftime_now=_now, **names
        )
    except BadInput:
        raise
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise BadInput(f"the chat template fails on these messages ({error}): check roles and contents") from None


def spelled(model: Any, vocabulary: int) -> list[bytes]:
    """The bytes that each id of a tokenizers.Tokenizer adds to a text; b"" for special tokens and holes in the vocabulary."""
    document = json.loads(model.to_str())
    special = {token["id"] for token in document.get("added_tokens", []) if token.get("special")}
    kinds = set(re.findall(r'"type": ?"(\w+)"', json.dumps([document.get("decoder"), document.get("pre_tokenizer")])))
    added = {token["id"] for token in document.get("added_tokens", [])}
    letters = _letters()

    def spell(number: int) -> bytes:
        name = model.id_to_token(number)
        if name is None or number in special:
            return b""
        if "ByteLevel" in kinds and number not in added:
            return bytes(letters[letter] for letter in name if letter in letters)
        if re.fullmatch(r"<0x[0-9A-F]{2}>", name):
            return bytes([int(name[3:5], 16)])
        return (name.replace("\u2581", " ") if "Metaspace" in kinds or "Replace" in kinds else name).encode()

    return [spell(number) for number in range(vocabulary)]


def _letters() -> dict[str, int]:
    """The printable letter that stands for each byte in byte-level vocabularies (GPT-2)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}
