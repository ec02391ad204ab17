"""A control policy behind HTTP: GET /schema says what it sees and does, POST /act gives actions, many clients in one compiled call."""

from __future__ import annotations

import asyncio
import functools
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from policylab import spaces
from policylab.experience import Spec
from policylab.policy import Policy
from policylab.serve.guard import HANDLERS, Guard, body_of
from policylab.serve.requests import Refusal
from policylab.serve.values import read_value, write_value

MOST_SESSIONS = 10_000


def control_app(
    policy: Policy, spec: Spec, *, name: str = "policy", token: str = "", seed: int = 0, batch: int = 64, waiting: int = 1024,
    most: int = 4_000_000,
) -> Starlette:  # fmt: skip
    """The ASGI application. `batch` observations are acted on in one call at most, `waiting` may wait; `token` and `most` as in
    `language_app`. Give `policy.mode()` for actions without chance."""
    return Actor(policy, spec, name, seed, batch, waiting).app(token, most)


class Actor:
    """Requests of the moment go into one batch, padded to the next power of two. A policy that remembers has sessions."""

    def __init__(self, policy: Policy, spec: Spec, name: str, seed: int, batch: int, waiting: int):
        self.policy, self.spec, self.name, self.batch = policy, spec, name, batch
        self._key, self._count = jax.random.key(seed), 0
        self._waiting: asyncio.Queue[tuple[PyTree, PyTree, int, asyncio.Future]] = asyncio.Queue(waiting)
        self._memory = jax.device_get(policy.initial_memory(key=self._key))
        self.remembers = bool(jax.tree.leaves(self._memory))
        self._sessions: OrderedDict[str, PyTree] = OrderedDict()
        self._busy: set[str] = set()

    def app(self, token: str, most: int) -> Starlette:
        """The application with its routes."""

        @asynccontextmanager
        async def life(app: Starlette) -> AsyncGenerator[None]:
            work = asyncio.ensure_future(self._work())
            yield
            work.cancel()

        routes = [Route("/health", self.health), Route("/schema", self.schema), Route("/act", self.act, methods=["POST"])]
        middleware = [Middleware(Guard, token=token, most=most)]
        return Starlette(routes=routes, middleware=middleware, exception_handlers=HANDLERS, lifespan=life)

    async def health(self, request: Request) -> Response:
        """Whether the server is up."""
        return JSONResponse({"status": "ok", "waiting": self._waiting.qsize(), "sessions": len(self._sessions)})

    async def schema(self, request: Request) -> Response:
        """The spaces, names and units of the policy, and whether it remembers (then /act takes a session)."""
        spec = self.spec
        return JSONResponse({
            "name": self.name, "observation": spaces.to_json(spec.observation), "action": spaces.to_json(spec.action),
            "units": dict(spec.units), "control_rate": spec.control_rate, "environment": spec.environment,
            "sessions": self.remembers, "most_observations": self.batch,
        })  # fmt: skip

    async def act(self, request: Request) -> Response:
        """`{"observation": ...}` gives `{"action": ...}`; `{"observations": [...]}` gives `{"actions": [...]}`.

        A policy that remembers takes `"session": NAME`, and `"reset": true` at the start of an episode.
        """
        body = await body_of(request)
        if not isinstance(body, dict) or ("observation" in body) == ("observations" in body):
            raise Refusal(400, "the request must be an object with observation, or with observations")
        unknown = sorted(set(body) - {"observation", "observations", "session", "reset"})
        if unknown:
            raise Refusal(
                400, f"{unknown[0]} is not known here: give observation or observations, session, reset", param=unknown[0]
            )
        single = "observation" in body
        given = [body["observation"]] if single else body["observations"]
        if not isinstance(given, list) or not 1 <= len(given) <= self.batch:
            raise Refusal(400, f"observations must be a list of 1 to {self.batch}", param="observations")
        where = lambda i: "observation" if single else f"observations[{i}]"
        observations = [read_value(self.spec.observation, value, where(i)) for i, value in enumerate(given)]
        session = self._session(body, single)
        if session is None:
            actions = [action for action, _ in await asyncio.gather(*(self._put(one, self._memory) for one in observations))]
        else:
            actions = [await self._remembering(session, bool(body.get("reset")), observations[0])]
        written = [write_value(self.spec.action, action) for action in actions]
        return JSONResponse({"action": written[0]} if single else {"actions": written})

    def _session(self, body: dict[str, Any], single: bool) -> str | None:
        session = body.get("session")
        if session is None:
            if self.remembers:
                raise Refusal(400, "this policy remembers what it has seen: name a session", param="session")
            return None
        if not isinstance(session, str) or not 1 <= len(session) <= 200 or not isinstance(body.get("reset", False), bool):
            raise Refusal(400, "session must be a text of 1 to 200 characters and reset true or false", param="session")
        if not single:
            raise Refusal(400, "a session sees one observation at a time", param="observations")
        return session if self.remembers else None

    async def _remembering(self, session: str, reset: bool, observation: PyTree) -> PyTree:
        if session in self._busy:
            raise Refusal(409, "this session waits for an action already: ask for one at a time", param="session")
        if session not in self._sessions and not reset:
            raise Refusal(409, "this session is new or was forgotten: start its episode with reset", param="reset")
        memory = self._memory if reset else self._sessions[session]
        self._busy.add(session)
        try:
            action, memory = await self._put(observation, memory)
        finally:
            self._busy.discard(session)
        self._sessions[session] = memory
        self._sessions.move_to_end(session)
        if len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)  # the one that was used least lately
        return action

    async def _put(self, observation: PyTree, memory: PyTree) -> tuple[PyTree, PyTree]:
        future = asyncio.get_running_loop().create_future()
        self._count += 1
        try:
            self._waiting.put_nowait((observation, memory, self._count, future))
        except asyncio.QueueFull:
            raise Refusal(503, "too many requests wait already: try again in a moment") from None
        return await future

    async def _work(self) -> None:
        """Whatever waits, in batches; while one is computed the next ones gather."""
        while True:
            jobs = [await self._waiting.get()]
            while len(jobs) < self.batch and not self._waiting.empty():
                jobs.append(self._waiting.get_nowait())
            try:
                results = await asyncio.to_thread(self._compute, jobs)
            except Exception as problem:
                for *_, future in jobs:
                    if not future.done():
                        future.set_exception(problem)
                continue
            for (*_, future), result in zip(jobs, results, strict=True):
                if not future.done():  # its client may be gone
                    future.set_result(result)

    def _compute(self, jobs: list) -> list[tuple[PyTree, PyTree]]:
        size = 1 << (len(jobs) - 1).bit_length()
        padded = [*jobs, *[jobs[0]] * (size - len(jobs))]
        stack = lambda trees: jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
        observations, memories = stack([job[0] for job in padded]), stack([job[1] for job in padded])
        numbers = np.asarray([job[2] for job in padded], np.uint32)
        done = jax.device_get(_acted(self.policy, observations, memories, self._key, jnp.asarray(numbers)))
        return [jax.tree.map(lambda leaf, i=i: leaf[i], done) for i in range(len(jobs))]


@functools.partial(eqx.filter_jit)
def _acted(policy: Policy, observations: PyTree, memories: PyTree, key: Any, numbers: Any) -> tuple[PyTree, PyTree]:
    one = lambda observation, memory, number: policy.act(observation, memory, key=jax.random.fold_in(key, number))
    return jax.vmap(one)(observations, memories, numbers)
