"""What clients ask of a language policy: read from JSON, checked field by field; a mistake is one clean HTTP error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policylab.errors import BadInput
from policylab.serve.engine import RANKED
from policylab.tokenizer import Tokenizer

MOST_CHOICES = 64
MOST_STOPS = 16


class Refusal(Exception):
    """An HTTP error in the words of the OpenAI API."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None):
        super().__init__(message)
        kinds = {
            401: "authentication_error",
            404: "not_found_error",
            429: "rate_limit_error",
            503: "server_error",
            500: "server_error",
        }
        self.status, self.kind = status, kinds.get(status, "invalid_request_error")
        self.document = {"error": {"message": message, "type": self.kind, "param": param, "code": code}}


@dataclass(frozen=True)
class Asked:
    """A request for answers: `n` to each prompt (ids)."""

    prompts: tuple[tuple[int, ...], ...]
    n: int
    length: int
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    seed: int | None
    stream: bool
    usage: bool
    ranked: int | None
    echo: bool = False


def read_chat(body: Any, tokenizer: Tokenizer, *, prompt: int, answer: int) -> Asked:
    """A request to /chat/completions. Prompts have at most `prompt` tokens, answers at most `answer`."""
    body = _object(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal(400, "messages must be a list of at least one message", param="messages")
    plain = []
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise Refusal(400, f"{where} must be an object with a role and a content", param=where)
        plain.append({"role": message["role"], "content": _content(message.get("content"), where)})
    try:
        if tokenizer.template:
            text = tokenizer.chat(plain)
        else:
            text = "\n".join(message["content"] for message in plain) + "\n"
        ids = tokenizer.encode(text)
    except BadInput as problem:
        raise Refusal(400, str(problem), param="messages") from None
    flag = _boolean(body, "logprobs")
    top = _whole(body, "top_logprobs", 0, 0, RANKED)
    if top and not flag:
        raise Refusal(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
    name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    return _asked(body, [ids], name, ranked=top if flag else None, prompt=prompt, answer=answer)


def read_completion(body: Any, tokenizer: Tokenizer, *, prompt: int, answer: int) -> Asked:
    """A request to /completions: its prompt is a text, several, or token ids."""
    body = _object(body)
    given = body.get("prompt")
    several = given if isinstance(given, list) and given and not all(map(_is_id, given)) else [given]
    prompts = []
    for text in several:
        if isinstance(text, str):
            try:
                prompts.append(tokenizer.encode(text))
            except BadInput as problem:
                raise Refusal(400, str(problem), param="prompt") from None
        elif isinstance(text, list) and text and all(_is_id(i) and i < tokenizer.vocabulary for i in text):
            prompts.append(text)
        else:
            raise Refusal(400, "prompt must be a text, a list of texts, or token ids of this model", param="prompt")
    ranked = None if body.get("logprobs") is None else _whole(body, "logprobs", 0, 0, RANKED)
    for name in ("echo", "best_of", "suffix"):
        if body.get(name) not in (None, False, 1, ""):
            raise Refusal(400, f"{name} is not offered here: leave it out", param=name)
    return _asked(body, prompts, "max_tokens", ranked=ranked, prompt=prompt, answer=answer)


def _asked(
    body: Mapping[str, Any], prompts: Sequence[Sequence[int]], name: str, *, ranked: int | None, prompt: int, answer: int
) -> Asked:
    for ids in prompts:
        if not ids:
            raise Refusal(400, "the prompt is empty: write at least one character", param="prompt")
        if len(ids) > prompt:
            raise Refusal(
                400, f"the prompt has {len(ids)} tokens, this server reads at most {prompt}", code="context_length_exceeded"
            )
    for unknown in ("tools", "functions", "response_format", "logit_bias", "audio"):
        if body.get(unknown):
            raise Refusal(400, f"{unknown} is not offered here: leave it out", param=unknown)
    for penalty in ("presence_penalty", "frequency_penalty"):
        if body.get(penalty) not in (None, 0, 0.0):
            raise Refusal(400, f"{penalty} is not offered here: leave it out", param=penalty)
    options = body.get("stream_options")
    if options is not None and not isinstance(options, Mapping):
        raise Refusal(400, "stream_options must be an object", param="stream_options")
    n = _whole(body, "n", 1, 1, MOST_CHOICES)
    if n * len(prompts) > MOST_CHOICES:
        raise Refusal(400, f"{len(prompts)} prompts with {n} answers each are more than {MOST_CHOICES} answers", param="n")
    return Asked(
        tuple(tuple(ids) for ids in prompts), n, _whole(body, name, min(answer, 256), 1, answer),
        _real(body, "temperature", 1.0, 0.0, 2.0), max(_real(body, "top_p", 1.0, 0.0, 1.0), 1e-6), _stops(body),
        None if body.get("seed") is None else _whole(body, "seed", 0, -(2**63), 2**63 - 1) % 2**31,
        _boolean(body, "stream"), bool((options or {}).get("include_usage")), ranked,
    )  # fmt: skip


def _object(body: Any) -> Mapping[str, Any]:
    if not isinstance(body, Mapping):
        raise Refusal(400, "the request must be a JSON object")
    return body


def _content(content: Any, where: str) -> str:
    if isinstance(content, list) and all(
        isinstance(p, Mapping) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in content
    ):
        return "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise Refusal(400, f"{where}.content must be a text: this model reads nothing else", param=where)
    return content


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _boolean(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refusal(400, f"{name} must be true or false", param=name)
    return bool(value)


def _whole(body: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = body.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Refusal(400, f"{name} must be a whole number from {low} to {high}", param=name)
    return value


def _real(body: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = body.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not low <= value <= high:
        raise Refusal(400, f"{name} must be a number from {low:g} to {high:g}", param=name)
    return float(value)


def _stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    stop = body.get("stop")
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops) or len(stops) > MOST_STOPS:
        raise Refusal(400, f"stop must be a text that is not empty, or at most {MOST_STOPS} of them", param="stop")
    return tuple(stops)
