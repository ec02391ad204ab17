"""A language policy behind an OpenAI-compatible endpoint: /v1/chat/completions, /v1/completions and /v1/models."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from policylab.policies.language import LanguagePolicy
from policylab.serve.engine import Engine, Full
from policylab.serve.guard import HANDLERS, Guard, body_of
from policylab.serve.requests import Asked, Refusal, read_chat, read_completion
from policylab.serve.writing import Answers, Shown
from policylab.tokenizer import Tokenizer


def language_app(
    policy: LanguagePolicy,
    *,
    name: str = "policylab",
    token: str = "",
    rows: int = 16,
    prompt: int = 0,
    answer: int = 0,
    chunk: int = 8,
    waiting: int = 1024,
    most: int = 4_000_000,
) -> Starlette:
    """The ASGI application. `name` is the model's name, `token` what clients must send ("": nothing), `most` bytes a request may have;
    the rest as in `Engine`. The engine starts and ends with the application. Raises `BadInput` for lengths beyond the context."""
    return Server(Engine(policy, rows=rows, prompt=prompt, answer=answer, chunk=chunk, waiting=waiting), name).app(token, most)


class Server:
    """The endpoint over one engine."""

    def __init__(self, engine: Engine, name: str):
        self.engine, self.name = engine, name
        self.tokenizer = Tokenizer.of(engine.policy.tokenizer)
        self.started = int(time.time())
        self.fingerprint = f"policylab-{secrets.token_hex(4)}"

    def app(self, token: str, most: int) -> Starlette:
        """The application with its routes."""

        @asynccontextmanager
        async def life(app: Starlette) -> AsyncGenerator[None]:
            self.engine.warm()
            with self.engine:
                yield

        routes = [
            Route("/health", self.health),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
        ]
        middleware = [Middleware(Guard, token=token, most=most)]
        return Starlette(routes=routes, middleware=middleware, exception_handlers=HANDLERS, lifespan=life)

    async def health(self, request: Request) -> Response:
        """Whether the server is up, and how busy it is."""
        busy, waiting = self.engine.load
        return JSONResponse({"status": "ok", "rows": self.engine.rows, "busy": busy, "waiting": waiting})

    async def models(self, request: Request) -> Response:
        """The one model."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """The same by its name."""
        self._require(request.path_params["name"])
        return JSONResponse(self._model())

    def _model(self) -> dict[str, Any]:
        return {"id": self.name, "object": "model", "created": self.started, "owned_by": "policylab"}

    def _require(self, name: Any) -> None:
        if name != self.name:
            raise Refusal(404, f"there is no model {name!r} here: ask for {self.name!r}", param="model", code="model_not_found")

    async def chat(self, request: Request) -> Response:
        """/v1/chat/completions."""
        return await self._answer(request, chat=True)

    async def completions(self, request: Request) -> Response:
        """/v1/completions."""
        return await self._answer(request, chat=False)

    async def _answer(self, request: Request, *, chat: bool) -> Response:
        body = await body_of(request)
        reader = read_chat if chat else read_completion
        asked = reader(body, self.tokenizer, prompt=self.engine.prompt, answer=self.engine.answer)
        self._require(body.get("model"))
        count = len(asked.prompts) * asked.n
        seeds = [secrets.randbits(31) if asked.seed is None else (asked.seed + i) % 2**31 for i in range(count)]
        answers = Answers(self.engine, self.tokenizer, asked, seeds)
        try:
            answers.submit()
        except Full:
            raise Refusal(503, "too many requests wait already: try again in a moment") from None
        head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}",
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()), "model": self.name, "system_fingerprint": self.fingerprint,
        }  # fmt: skip
        if asked.stream:
            if chat:
                head["object"] = "chat.completion.chunk"
            events = _events(answers, asked, head, chat=chat)
            return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        try:
            rows = await _whole(request, answers, count)
        finally:
            answers.close()
        build = _chat_choice if chat else _text_choice
        choices = [build(i, shown, asked) for i, shown in enumerate(rows)]
        return JSONResponse({**head, "choices": choices, "usage": _usage(asked, answers)})


async def _whole(request: Request, answers: Answers, count: int) -> list[Shown]:
    """All answers to their end; stops writing when the client has hung up."""
    rows = [Shown("", []) for _ in range(count)]

    async def gather() -> None:
        async for number, shown in answers.pieces():
            row = rows[number]
            rows[number] = Shown(row.text + shown.text, row.tokens + shown.tokens, shown.finish)

    work = asyncio.ensure_future(gather())
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=0.5)
            if not work.done() and await request.is_disconnected():
                return rows
        await work
    finally:
        work.cancel()
    return rows


async def _events(answers: Answers, asked: Asked, head: dict[str, Any], *, chat: bool) -> AsyncIterator[str]:
    """Server-sent events, one per piece; closing it (the client hung up) stops the writing."""
    said: set[int] = set()
    extra = {"usage": None} if asked.usage else {}
    try:
        async for number, shown in answers.pieces():
            if chat:
                delta = {"role": "assistant"} if number not in said else {}
                said.add(number)
                choice = {"index": number, "delta": {**delta, "content": shown.text}, "finish_reason": shown.finish or None}
                if asked.ranked is not None:
                    choice["logprobs"] = {"content": shown.tokens, "refusal": None}
            else:
                choice = _text_choice(number, shown, asked)
            yield f"data: {json.dumps({**head, 'choices': [choice], **extra})}\n\n"
        if asked.usage:
            yield f"data: {json.dumps({**head, 'choices': [], 'usage': _usage(asked, answers)})}\n\n"
    finally:
        answers.close()
    yield "data: [DONE]\n\n"


def _chat_choice(number: int, shown: Shown, asked: Asked) -> dict[str, Any]:
    message = {"role": "assistant", "content": shown.text, "refusal": None}
    told = None if asked.ranked is None else {"content": shown.tokens, "refusal": None}
    return {"index": number, "message": message, "logprobs": told, "finish_reason": shown.finish}


def _text_choice(number: int, shown: Shown, asked: Asked) -> dict[str, Any]:
    told = None
    if asked.ranked is not None:
        offsets, place = [], 0
        for token in shown.tokens:
            offsets.append(place)
            place += len(token["token"])
        told = {
            "tokens": [token["token"] for token in shown.tokens],
            "token_logprobs": [token["logprob"] for token in shown.tokens],
            "top_logprobs": [{top["token"]: top["logprob"] for top in token["top_logprobs"]} for token in shown.tokens],
            "text_offset": offsets,
        }
    return {"index": number, "text": shown.text, "logprobs": told, "finish_reason": shown.finish or None}


def _usage(asked: Asked, answers: Answers) -> dict[str, int]:
    prompt = sum(map(len, asked.prompts))
    return {"prompt_tokens": prompt, "completion_tokens": answers.written, "total_tokens": prompt + answers.written}
