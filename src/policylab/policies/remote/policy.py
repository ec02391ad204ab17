"""A model behind an API as a Policy: answers to texts and to `Tokens`, and probabilities over listed options."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Tokens
from policylab.policies.remote.budget import Plan
from policylab.policies.remote.endpoint import Drift, Endpoint
from policylab.policy import Policy
from policylab.tokenizer import Tokenizer

Prompt = str | Sequence[Mapping[str, str]]
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
REFUSAL = "refusal"


@dataclass(frozen=True)
class Choice:
    """Probabilities over the options and, last, over refusing (which is whatever chose none of them). They add up to 1.

    `method` says where they are from: "samples" of number `count`, or "logprobs" of the first token of one call.
    """

    options: tuple[str, ...]
    probabilities: Float[np.ndarray, " option"]
    method: str
    count: int


@dataclass(frozen=True)
class RemoteSettings:
    """What is sent with every prompt; what is None is left out and the endpoint's own default holds."""

    temperature: float | None = 1.0
    top_p: float | None = None
    max_tokens: int | None = 512
    stop: tuple[str, ...] | None = None
    system: str = ""

    def sent(self) -> dict[str, Any]:
        """The settings of a request."""
        stop = None if self.stop is None else list(self.stop)
        return {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens, "stop": stop}


class Remote(Policy):
    """`Remote("https://host/v1", model="m", budget="20k calls")`: any OpenAI-compatible endpoint.

    It is hosted: `act` leaves the compiled program, a whole batch at once, and needs a `tokenizer`, in which prompts are read (given
    text is the user's, what the policy wrote the assistant's) and answers of at most `answer` tokens come back. The number of the draw
    comes from the key, so that the same key finds the same answer in the cache. Further arguments are those of `Endpoint`.
    """

    endpoint: Endpoint = eqx.field(static=True)
    settings: RemoteSettings = eqx.field(static=True)
    tokenizer: str = eqx.field(static=True)
    answer: int = eqx.field(static=True)

    def __init__(
        self,
        url: str | Endpoint,
        model: str = "",
        *,
        settings: RemoteSettings = RemoteSettings(),
        tokenizer: Tokenizer | str = "",
        answer: int = 256,
        **options: Any,
    ):
        self.endpoint = url if isinstance(url, Endpoint) else Endpoint(url, model, **options)
        self.settings, self.answer = settings, answer
        self.tokenizer = tokenizer if isinstance(tokenizer, str) else tokenizer.json

    @property
    def hosted(self) -> bool:
        """Always: whoever acts with it does so on the host, over whole batches."""
        return True

    def mode(self) -> Remote:
        """The same model at temperature 0, as deterministic as the endpoint makes it."""
        return self.with_settings(temperature=0.0)

    def with_settings(self, **changes: Any) -> Remote:
        """The same endpoint, cache and budget with other `RemoteSettings`."""
        return Remote(self.endpoint, settings=replace(self.settings, **changes), tokenizer=self.tokenizer, answer=self.answer)

    def _request(self, prompt: Prompt, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        system = [{"role": "system", "content": self.settings.system}] if self.settings.system else []
        return self.endpoint.request([*system, *messages], **{**self.settings.sent(), **more})

    def _jobs(self, prompts: Sequence[Prompt], n: int, first: int) -> tuple[list[dict[str, Any]], list[int]]:
        if n < 1 or first < 0:
            raise BadInput(f"{n} answers from draw {first}: ask for at least one, from draw 0 on")
        requests = [self._request(prompt) for prompt in prompts]
        return [request for request in requests for _ in range(n)], [first + i for _ in requests for i in range(n)]

    def plan(self, prompts: Sequence[Prompt], *, n: int = 1, first: int = 0) -> Plan:
        """What `answers` with the same arguments would cost at most; nothing is asked."""
        return self.endpoint.plan(*self._jobs(prompts, n, first))

    def records(self, prompts: Sequence[Prompt], *, n: int = 1, first: int = 0) -> list[list[dict[str, Any]]]:
        """`n` records per prompt (text or messages), as `Endpoint.ask` describes them; draws `first` to `first + n - 1`."""
        records = self.endpoint.ask(*self._jobs(prompts, n, first))
        return [records[i * n : (i + 1) * n] for i in range(len(prompts))]

    def answers(self, prompts: Sequence[Prompt], *, n: int = 1, first: int = 0) -> list[list[str]]:
        """`n` answers per prompt."""
        return [[record["text"] for record in row] for row in self.records(prompts, n=n, first=first)]

    def act(self, observation: Tokens, memory: PyTree, *, key: PRNGKeyArray) -> tuple[Tokens, PyTree]:
        """An answer [answer] to what was said so far; the end token is its last where the model came to an end."""
        shapes = (jax.ShapeDtypeStruct((self.answer,), jnp.int32),) * 2
        draw = jax.random.bits(key, (), jnp.uint32)
        ids, kind = jax.pure_callback(self._acted, shapes, observation.ids, observation.kind, draw, vmap_method="broadcast_all")
        return Tokens(ids, kind), memory

    def _acted(self, ids: Any, kind: Any, draw: Any) -> tuple[np.ndarray, np.ndarray]:
        tokenizer, lead = Tokenizer.of(self.tokenizer), np.shape(draw)
        rows = [np.asarray(leaf).reshape(-1, np.shape(leaf)[-1]) for leaf in (ids, kind)]
        requests = [self._request(_messages(tokenizer, i, k)) for i, k in zip(*rows, strict=True)]
        records = self.endpoint.ask(requests, [int(d) for d in np.asarray(draw).reshape(-1)])
        out = np.full((len(records), self.answer), tokenizer.pad, np.int32), np.zeros((len(records), self.answer), np.int32)
        for i, record in enumerate(records):
            words = tokenizer.encode(record["text"]) + [tokenizer.end[0]] * (record["finish"] != "length")
            words = words[: self.answer]
            out[0][i, : len(words)], out[1][i, : len(words)] = words, 2
        return out[0].reshape(*lead, -1), out[1].reshape(*lead, -1)

    def choice(
        self,
        observation: str,
        options: Sequence[str],
        *,
        n: int = 10,
        method: Literal["samples", "logprobs"] = "samples",
    ) -> Choice:
        """Which of the listed options the model takes, from `n` draws or from the log-probabilities of its first token."""
        return self.choices([observation], [options], n=n, method=method)[0]

    def choices(
        self,
        observations: Sequence[str],
        options: Sequence[Sequence[str]],
        *,
        n: int = 10,
        method: Literal["samples", "logprobs"] = "samples",
    ) -> list[Choice]:
        """`choice` for many observations at once. Raises `BadInput` for fewer than 2 or more than 26 options, or where the endpoint
        gives no log-probabilities."""
        for some in options:
            if not 2 <= len(some) <= len(_LETTERS):
                raise BadInput(f"there are {len(some)} options: give between 2 and {len(_LETTERS)}")
        prompts = [_listed(text, some) for text, some in zip(observations, options, strict=True)]
        if method == "samples":
            rows = self.records(prompts, n=n)
            return [_counted(row, some) for row, some in zip(rows, options, strict=True)]
        requests = [self._request(prompt, max_tokens=1, logprobs=True, top_logprobs=20) for prompt in prompts]
        records = self.endpoint.ask(requests, [0] * len(requests))
        return [_weighed(record, some) for record, some in zip(records, options, strict=True)]

    def drift(self) -> list[Drift]:
        """How the canary prompts were answered through this run."""
        return self.endpoint.drift()


def _messages(tokenizer: Tokenizer, ids: np.ndarray, kind: np.ndarray) -> list[dict[str, str]]:
    """Runs of given tokens as the user's messages, runs of written ones as the assistant's."""
    messages: list[dict[str, str]] = []
    ends = np.flatnonzero(np.diff(kind)) + 1
    for words, kinds in zip(np.split(ids, ends), np.split(kind, ends), strict=True):
        if len(kinds) and kinds[0] > 0:
            text = tokenizer.decode(words).strip("\n")
            messages.append({"role": "user" if kinds[0] == 1 else "assistant", "content": text})
    return messages


def _listed(text: str, options: Sequence[str]) -> str:
    lines = [f"{letter}) {option}" for letter, option in zip(_LETTERS, options)]
    return "\n".join([text, "", *lines, "", "Answer with the letter of one option and nothing else."])


def chosen(text: str, options: Sequence[str]) -> int:
    """The number of the option that an answer names, by its letter or word for word; `len(options)` (refusal) where it names none."""
    known = _LETTERS[: len(options)]
    bare = text.strip().strip(".*`'\"() \n")
    if len(bare) == 1 and bare.upper() in known:
        return known.index(bare.upper())
    same = [i for i, option in enumerate(options) if option.strip().casefold() == bare.casefold()]
    if len(same) == 1:
        return same[0]
    first = re.match(rf"\W*(?:answer\s*(?:is)?\s*:?\s*)?([{known}])(?:[).:*]|\s*$|\s+-)", text.strip(), re.I)
    return known.index(first[1].upper()) if first else len(options)


def _counted(records: Sequence[Mapping[str, Any]], options: Sequence[str]) -> Choice:
    counts = np.zeros(len(options) + 1)
    for record in records:
        counts[len(options) if record["refusal"] else chosen(record["text"], options)] += 1
    return Choice((*options, REFUSAL), counts / len(records), "samples", len(records))


def _weighed(record: Mapping[str, Any], options: Sequence[str]) -> Choice:
    content = (record["logprobs"] or {}).get("content")
    if not content:
        raise BadInput('the endpoint gives no log-probabilities: ask with method="samples"')
    weight = np.zeros(len(options) + 1)
    for token in content[0].get("top_logprobs") or content:
        bare = token["token"].strip().upper()
        if len(bare) == 1 and bare in _LETTERS[: len(options)]:
            weight[_LETTERS.index(bare)] += np.exp(token["logprob"])
    weight[-1] = max(0.0, 1.0 - weight[:-1].sum())  # everything that is no letter of an option
    return Choice((*options, REFUSAL), weight / weight.sum(), "logprobs", 1)
