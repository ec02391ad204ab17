"""An OpenAI-compatible endpoint: many requests at once, retries, time-outs, cache, budget and canaries."""

from __future__ import annotations

import email.utils
import os
import random
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from policylab.errors import BadInput
from policylab.policies.remote.budget import Budget, Plan
from policylab.policies.remote.cache import RequestCache, identity

_RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_HINTS = {
    401: "the key is not accepted", 403: "the key may not do this", 404: "no such model or address", 413: "the request is too large",
}  # fmt: skip


@dataclass(frozen=True)
class Drift:
    """How one canary prompt was answered over a run, in order, and by which models and fingerprints."""

    prompt: str
    answers: tuple[str, ...]
    models: tuple[str, ...]
    fingerprints: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether the answer, the model or the fingerprint was not the same all along."""
        return any(len(set(seen)) > 1 for seen in (self.answers, self.models, self.fingerprints))


class Endpoint:
    """`POST {url}/chat/completions` of one model. The key is read from the environment variable `key` for every call ("": none is
    sent), and is in no record, message or file.

    `timeout` is in seconds per attempt, `retries` how often a call is tried again after 408, 409, 425, 429, 5xx or a broken
    connection, after 0.5, 1, 2 ... seconds (at most 60) or as long as Retry-After says. `canaries` are prompts asked before the first
    call and after every `canary_every` more. `announce` is told what a batch will cost before it starts.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str = "OPENAI_API_KEY",
        cache: str | Path | RequestCache | None = None,
        budget: str | Budget | None = None,
        concurrency: int = 16,
        timeout: float = 60.0,
        retries: int = 6,
        canaries: Sequence[str] = (),
        canary_every: int = 500,
        announce: Callable[[str], None] | None = None,
        pause: Callable[[float], None] = time.sleep,
    ):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput(f"{url!r} is no address of an endpoint: give one such as https://host/v1")
        if parts.username or parts.password or parts.query:
            raise BadInput(
                "the address holds a user, password or query, which would be recorded: put the key into the environment"
            )
        if concurrency < 1 or retries < 0 or timeout <= 0 or canary_every < 1:
            raise BadInput("concurrency and canary_every are at least 1, retries at least 0, timeout above 0 seconds")
        self.url, self.model, self.key = url.rstrip("/"), model, key
        self.cache = cache if isinstance(cache, RequestCache) else RequestCache(cache)
        self.budget = Budget.of(budget)
        self.canaries, self.canary_every, self.run = tuple(canaries), canary_every, os.urandom(8).hex()
        self.retried = 0  # attempts that had to be repeated
        self._concurrency, self._timeout, self._retries, self._pause = concurrency, timeout, retries, pause
        self._announce = announce or (lambda text: print(text, file=sys.stderr))
        self._since_canary: int | None = None
        self._rounds = 0
        self._client: Any = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r}, {self.model!r})"

    def request(self, messages: Sequence[Mapping[str, str]], **settings: Any) -> dict[str, Any]:
        """The full request for some messages; `settings` such as temperature and max_tokens, left out where None."""
        given = {name: value for name, value in settings.items() if value is not None}
        return {"model": self.model, "messages": [dict(message) for message in messages], **given}

    def plan(self, requests: Sequence[Mapping[str, Any]], draws: Sequence[int]) -> Plan:
        """What asking this would cost, at most; nothing is asked."""
        ids = self._ids(requests, draws)
        known = self.cache.find(list(dict.fromkeys(ids)))
        new = {key: request for key, request in zip(ids, requests, strict=True) if key not in known}
        return Plan(len(new), sum(map(_most_tokens, new.values())), len(ids) - len(new))

    def ask(self, requests: Sequence[Mapping[str, Any]], draws: Sequence[int]) -> list[dict[str, Any]]:
        """A record per request and draw, in order: from the cache, else from the model, several at once.

        A record has `text`, `refusal`, `finish`, `logprobs`, `usage`, `model` (as asked), `answered_by`, `fingerprint`, `date` (UTC),
        `seconds`, `attempts`, `draw`, `request`. Raises `BudgetSpent` before the batch, `BadInput` for what the endpoint refuses or
        for one that stays away; answers that came before are kept.
        """
        ids = self._ids(requests, draws)
        jobs = dict(zip(ids, zip(requests, draws, strict=True), strict=True))
        known = self.cache.find(list(jobs))
        new = {key: job for key, job in jobs.items() if key not in known}
        if new:
            tokens = sum(_most_tokens(request) for request, _ in new.values())
            self.budget.set_aside(len(new), tokens)
            left = {key: _most_tokens(request) for key, (request, _) in new.items()}
            self._announce(f"{self.model}: {Plan(len(new), tokens, len(ids) - len(new))}; so far {self.budget!r}")
            try:
                self._canaries_due(len(new))
                known |= self._ask_new(new, left)
            finally:  # what was never asked costs nothing
                self.budget.settle(calls=len(left), tokens=sum(left.values()))
        return [known[key] for key in ids]

    def _ask_new(self, new: Mapping[str, tuple[Mapping[str, Any], int]], left: dict[str, int]) -> dict[str, dict[str, Any]]:
        stopped: list[BaseException] = []

        def one(key: str) -> tuple[str, dict[str, Any] | None]:
            if stopped:
                return key, None
            request, draw = new[key]
            try:
                record = {**self._post(request), "draw": draw, "request": dict(request)}
            except BaseException as problem:
                stopped.append(problem)
                raise
            self.cache.keep(key, record)
            self.budget.settle(tokens=left.pop(key) - _used(record, request))
            return key, record

        with ThreadPoolExecutor(self._concurrency) as pool:
            pairs = list(pool.map(one, new))
        return {key: record for key, record in pairs if record is not None}

    def _ids(self, requests: Sequence[Mapping[str, Any]], draws: Sequence[int]) -> list[str]:
        return [identity(self.url, request, draw) for request, draw in zip(requests, draws, strict=True)]

    def _post(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One answer as a record. The first attempt has been put aside from the budget, further ones are taken from it here."""
        httpx, secret = _library(), self._secret()
        for attempt in range(self._retries + 1):
            started = time.monotonic()
            try:
                response = self._http().post(
                    f"{self.url}/chat/completions", json=dict(request),
                    headers={"Authorization": f"Bearer {secret}"} if secret else {},
                )  # fmt: skip
            except httpx.HTTPError as problem:
                trouble, wait = f"{type(problem).__name__}", None
            else:
                if response.status_code == 200:
                    return self._record(response, attempt + 1, time.monotonic() - started)
                said = response.text[:200].replace(secret, "***") if secret else response.text[:200]
                trouble, wait = f"status {response.status_code}: {' '.join(said.split())}", _retry_after(response.headers)
                if response.status_code not in _RETRIED:
                    hint = _HINTS.get(response.status_code, "it refuses the request")
                    raise BadInput(f"{self.url} answers {trouble} ({hint}): check address, model and key variable {self.key!r}")
            wait = min(60.0, 0.5 * 2**attempt) * random.uniform(0.75, 1.25) if wait is None else wait
            if attempt == self._retries or wait > 300.0:
                break
            self.budget.set_aside(1, 0)
            self.retried += 1
            self._pause(wait)
        raise BadInput(
            f"{self.url} did not answer after {attempt + 1} attempts ({trouble}): try again later; answers so far are in the cache"
        )

    def _record(self, response: Any, attempts: int, seconds: float) -> dict[str, Any]:
        try:
            body = response.json()
            choice = body["choices"][0]
            message = choice["message"]
            text, refusal = message.get("content"), message.get("refusal")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise BadInput(
                f"{self.url} answers something that is no chat completion: give the address of an OpenAI-compatible API"
            ) from None
        return {
            "text": text or "", "refusal": refusal or "", "finish": choice.get("finish_reason") or "",
            "logprobs": choice.get("logprobs"), "usage": body.get("usage"), "model": self.model,
            "answered_by": body.get("model") or "", "fingerprint": body.get("system_fingerprint") or "",
            "date": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(seconds, 3), "attempts": attempts,
        }  # fmt: skip

    def _secret(self) -> str:
        if not self.key:
            return ""
        secret = os.environ.get(self.key, "").strip()
        if not secret:
            raise BadInput(
                f'the environment variable {self.key} is not set: put the key there, or give key="" if none is needed'
            )
        return secret

    def _http(self) -> Any:
        with self._lock:
            if self._client is None:
                httpx = _library()
                limits = httpx.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency)
                secure = self.url.startswith("https")  # reading all certificates takes a second, which plain HTTP does not need
                self._client = httpx.Client(timeout=self._timeout, limits=limits, follow_redirects=False, verify=secure)
            return self._client

    def _canaries_due(self, calls: int) -> None:
        if self._since_canary is None or self._since_canary >= self.canary_every:
            self.ask_canaries()
            self._since_canary = 0
        self._since_canary += calls

    def ask_canaries(self) -> None:
        """Ask every canary prompt once, past the cache; done by itself before the first call and after every `canary_every` more."""
        for prompt in self.canaries:
            request = self.request([{"role": "user", "content": prompt}], temperature=0, max_tokens=16)
            most = _most_tokens(request)
            self.budget.set_aside(1, most)
            record = self._post(request)
            self.budget.settle(tokens=most - _used(record, request))
            self.cache.keep_canary(self.run, self._rounds, prompt, record)
        self._rounds += 1

    def drift(self) -> list[Drift]:
        """How the canary prompts were answered in this run; asks them a last time if calls were made since."""
        if self._since_canary:
            self.ask_canaries()
            self._since_canary = 0
        rows = self.cache.canaries(self.run)
        seen = {prompt: [record for _, asked, record in rows if asked == prompt] for prompt in self.canaries}
        pick = lambda records, name: tuple(record[name] for record in records)
        return [
            Drift(prompt, pick(records, "text"), pick(records, "answered_by"), pick(records, "fingerprint"))
            for prompt, records in seen.items()
        ]

    def close(self) -> None:
        """Close connections and cache."""
        if self._client is not None:
            self._client.close()
        self.cache.close()


def _library() -> Any:
    try:
        import httpx
    except ImportError as missing:
        raise BadInput('remote models need httpx, which is not installed: pip install "policylab[remote]"') from missing
    return httpx


def _most_tokens(request: Mapping[str, Any]) -> int:
    """No prompt has more tokens than bytes and a few per message; an answer no more than was allowed (4,096 where nothing was said)."""
    prompt = sum(len(str(message.get("content", "")).encode()) + 16 for message in request["messages"])
    return prompt + int(request.get("max_completion_tokens") or request.get("max_tokens") or 4096)


def _used(record: Mapping[str, Any], request: Mapping[str, Any]) -> int:
    """The tokens that were billed; the most it can have been where the endpoint does not say."""
    usage = record["usage"]
    return (
        int(usage["total_tokens"])
        if isinstance(usage, Mapping) and usage.get("total_tokens") is not None
        else _most_tokens(request)
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from a number or a date; None where neither is given."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
