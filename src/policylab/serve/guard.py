"""What stands before every endpoint: a token, a bound on the size of requests, and errors as JSON."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from policylab.serve.requests import Refusal

OPEN = ("/health",)
_PATIENCE = 30.0  # seconds between two parts of a request
_LOG = logging.getLogger("policylab.serve")

Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class Guard:
    """ASGI middleware: refuses requests without `token` ("": none is needed) before their body is kept, and bodies over `most` bytes.

    What a client still sends is read and thrown away, up to sixteen times `most`, since one whose connection breaks while it sends does
    not get to read why.
    """

    def __init__(self, app: Any, *, token: str, most: int):
        self.app, self.token, self.most = app, token, most

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """Refuse, or pass on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        length = headers.get(b"content-length", b"0")
        wanted = f"Bearer {self.token}".encode()
        if self.token and scope["path"] not in OPEN and not hmac.compare_digest(headers.get(b"authorization", b""), wanted):
            told = "the token is missing or wrong: send Authorization: Bearer TOKEN"
            await self._refuse(receive, send, Refusal(401, told, code="invalid_api_key"))
            return
        if not length.isdigit() or int(length) > self.most:
            await self._refuse(receive, send, self._too_large())
            return
        read, whole = 0, False

        async def bounded() -> Any:
            nonlocal read, whole
            try:
                message = await asyncio.wait_for(receive(), None if whole else _PATIENCE)
            except TimeoutError:
                raise Refusal(408, f"the request did not come to its end within {_PATIENCE:g} seconds") from None
            whole = whole or not message.get("more_body")
            read += len(message.get("body", b""))
            if read > self.most:
                if message.get("more_body"):
                    await self._drain(receive)
                raise self._too_large()
            return message

        await self.app(scope, bounded, send)

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the request is larger than {self.most} bytes: send less at once")

    async def _drain(self, receive: Any) -> None:
        left = 16 * self.most
        while left > 0:
            message = await asyncio.wait_for(receive(), _PATIENCE)
            left -= len(message.get("body", b"")) + 1
            if not message.get("more_body"):
                return

    async def _refuse(self, receive: Any, send: Send, refusal: Refusal) -> None:
        await self._drain(receive)
        body = json.dumps(refusal.document).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def body_of(request: Request) -> Any:
    """The JSON of a request. Raises `Refusal` for what is none."""
    try:
        document = json.loads(await request.body(), parse_constant=_no_constant)
        json.dumps(document, ensure_ascii=False).encode()  # escapes may spell halves of characters, which no text can hold
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is no JSON") from None
    return document


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


async def refused(request: Request, problem: Exception) -> Response:
    """A refusal as it says."""
    assert isinstance(problem, Refusal)
    headers = {"retry-after": "1"} if problem.status in (429, 503) else None
    return JSONResponse(problem.document, problem.status, headers)


async def not_found(request: Request, problem: Exception) -> Response:
    """What the router refuses: a path or a method that there is not."""
    assert isinstance(problem, HTTPException)
    return JSONResponse(
        Refusal(problem.status_code, f"{request.method} {request.url.path}: {problem.detail}").document, problem.status_code
    )


async def gone(request: Request, problem: Exception) -> Response:
    """Nobody reads this: the client has hung up."""
    return Response(status_code=499)


async def failed(request: Request, problem: Exception) -> Response:
    """A defect of ours: told to the log, and to the client no more than that."""
    _LOG.error("%s %s failed: %r", request.method, request.url.path, problem)
    return JSONResponse(Refusal(500, "the server failed on this request").document, 500)


HANDLERS: dict[Any, Any] = {Refusal: refused, HTTPException: not_found, ClientDisconnect: gone, Exception: failed}
