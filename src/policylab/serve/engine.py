"""Continuous batching: requests enter a running batch as rows fall free; a few tokens for all rows are one compiled call.

All rows write to the same place of the cache at every step (a row's own positions are counted apart, see `networks.cache`), so that a
request can enter as long as what it may write still fits behind that place; when the batch has drained the place starts anew.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from policylab.errors import BadInput
from policylab.networks.cache import Cache, extend, prefill, sliced
from policylab.networks.decoder import Decoder
from policylab.policies.generation import Sampling, drawn, log_prob_of
from policylab.policies.language import LanguagePolicy
from policylab.tokenizer import bucket

RANKED = 20  # the likeliest tokens of which log-probabilities can be had
_GREEDY = 1e-4  # a temperature below this takes the likeliest token


class Rows(eqx.Module):
    """What goes on in every row of the batch."""

    cache: Cache
    logits: Float[Array, "row vocabulary"]
    key: Key[Array, " row"]
    temperature: Float[Array, " row"]
    top_p: Float[Array, " row"]
    written: Int[Array, " row"]


class Piece(NamedTuple):
    """A few tokens of one answer: ids [token], their log-probabilities, and (ids, log-probabilities) of the likeliest [token, rank],
    none of them where no request of the moment wants them."""

    ids: np.ndarray
    log_probs: np.ndarray
    ranked: tuple[np.ndarray, np.ndarray]


@dataclass(eq=False)
class Job:
    """One answer that is wanted. `deliver` is called from the engine's thread with each `Piece`, and with None at the end or an
    exception if the engine failed; `cancelled` may be set by anyone at any time."""

    prompt: list[int]
    length: int
    temperature: float
    top_p: float
    seed: int
    deliver: Callable[[Piece | Exception | None], Any]
    ranked: bool = False
    cancelled: threading.Event = field(default_factory=threading.Event)
    left: int = 0


class Full(Exception):
    """More requests wait than the engine takes."""


class Engine:
    """Writes for up to `rows` requests at once, prompts of at most `prompt` tokens, answers of at most `answer`, `chunk` tokens per call.

    At most `waiting` requests wait for a row. Use it as a context manager: its thread ends with it.
    """

    def __init__(
        self, policy: LanguagePolicy, *, rows: int = 16, prompt: int = 0, answer: int = 0, chunk: int = 8, waiting: int = 1024
    ):
        context = policy.network.architecture.context
        answer = answer or min(512, max(1, context // 2))
        prompt = prompt or context - answer
        if rows < 1 or chunk < 1 or prompt < 1 or answer < 1 or prompt + answer > context:
            raise BadInput(
                f"prompts of {prompt} and answers of {answer} tokens do not fit the model's context of {context}: give less of one"
            )
        self.policy, self.rows, self.chunk = policy, rows, chunk
        self.prompt, self.answer, self.room = prompt, answer, 2 * answer + chunk
        self._queue: queue.Queue[Job] = queue.Queue(waiting)
        self._jobs: list[Job | None] = [None] * rows
        self._next: Job | None = None
        self._place = 0
        self._state = self._empty()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="policylab engine")

    def __enter__(self) -> Engine:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def submit(self, job: Job) -> None:
        """Let a job wait for a row. Raises `Full` where too many do."""
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            raise Full from None

    @property
    def load(self) -> tuple[int, int]:
        """(rows in use, jobs that wait)."""
        return sum(job is not None for job in self._jobs), self._queue.qsize()

    def warm(self) -> None:
        """Compile what every request needs, before the first comes. Call it before the engine starts."""
        job = Job([0], 1, 1.0, 1.0, 0, lambda _: None)
        state = self._enter(self._state, 0, job)
        jax.block_until_ready(_write(self.policy.network, state, jnp.asarray(self.prompt), self.chunk, ranks=0))
        self._state = self._empty()  # what it was has been given away

    def _empty(self) -> Rows:
        network, places = self.policy.network, self.prompt + self.room
        cache, logits = jax.eval_shape(
            lambda n: prefill(n, jnp.zeros((self.rows, 8), jnp.int32), jnp.ones((self.rows, 8), bool), places - 8), network
        )
        zeros = lambda tree: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)
        ones = lambda: jnp.ones(self.rows)  # one array each: they are given away, and none twice
        keys = jax.random.split(jax.random.key(0), self.rows)
        return Rows(zeros(cache), zeros(logits), keys, ones(), ones(), jnp.zeros(self.rows, jnp.int32))

    def _enter(self, state: Rows, row: int, job: Job) -> Rows:
        """Read the prompt of a job, padded to the next of few lengths, into a row."""
        length = min(bucket(len(job.prompt)), self.prompt)
        ids = np.zeros((1, length), np.int32)
        ids[0, : len(job.prompt)] = job.prompt
        valid = np.arange(length)[None] < len(job.prompt)
        numbers = jnp.asarray([job.temperature, job.top_p], jnp.float32)
        return _read(
            self.policy.network, state, jnp.asarray(ids), jnp.asarray(valid), jnp.asarray(row), numbers,
            jax.random.key(job.seed), self.prompt + self.room - length,
        )  # fmt: skip

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._admit()
                if any(job is not None for job in self._jobs):
                    self._step()
            except Exception as problem:  # whoever waits is told, and the next requests start with a fresh batch
                for job in [*self._jobs, self._next]:
                    if job is not None:
                        job.deliver(problem)
                self._jobs, self._next, self._place, self._state = [None] * self.rows, None, 0, self._empty()

    def _admit(self) -> None:
        """Fill free rows, as far as what the next job may write still fits."""
        for row in range(self.rows):
            if self._jobs[row] is not None:
                continue
            busy = any(job is not None for job in self._jobs)
            if not busy:
                self._place = 0
            if self._next is None:
                try:
                    self._next = self._queue.get_nowait() if busy else self._queue.get(timeout=0.05)
                except queue.Empty:
                    return
            if self._next.cancelled.is_set():
                self._next = None
                continue
            if self._place + self._next.length + self.chunk > self.room:
                return  # in turn: those behind it wait as well
            job, self._next = self._next, None
            job.left = job.length
            self._jobs[row] = job  # before the work, so that it is told if that fails
            self._state = self._enter(self._state, row, job)

    def _step(self) -> None:
        place = jnp.asarray(self.prompt + self._place)
        ranks = RANKED if any(job is not None and job.ranked for job in self._jobs) else 0
        self._state, outputs = _write(self.policy.network, self._state, place, self.chunk, ranks=ranks)
        self._place += self.chunk
        ids, log_probs, ranked, values = (np.asarray(leaf) for leaf in outputs)
        for row, job in enumerate(self._jobs):
            if job is None:
                continue
            ends = np.flatnonzero(np.isin(ids[:, row], self.policy.end))
            count = min(job.left, int(ends[0]) + 1 if len(ends) else self.chunk)
            job.left = 0 if len(ends) and count == ends[0] + 1 else job.left - count
            if not job.cancelled.is_set():
                here = slice(count), row
                job.deliver(Piece(ids[here], log_probs[here], (ranked[here], values[here])))
            if job.left <= 0 or job.cancelled.is_set():
                job.deliver(None)
                self._jobs[row] = None


@functools.partial(jax.jit, static_argnames="room", donate_argnums=1)
def _read(
    network: Decoder, state: Rows, ids: Array, valid: Array, row: Array, numbers: Array, key: PRNGKeyArray, room: int
) -> Rows:
    cache, logits = prefill(network, ids, valid, room)
    put = lambda all_rows, one: jax.lax.dynamic_update_slice_in_dim(all_rows, one.astype(all_rows.dtype), row, axis=0)
    return Rows(
        jax.tree.map(put, state.cache, cache), put(state.logits, logits), state.key.at[row].set(key),
        state.temperature.at[row].set(numbers[0]), state.top_p.at[row].set(numbers[1]), state.written.at[row].set(0),
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("chunk", "ranks"), donate_argnums=1)
def _write(
    network: Decoder, state: Rows, place: Array, chunk: int, *, ranks: int
) -> tuple[Rows, tuple[Array, Array, Array, Array]]:
    """`chunk` tokens for every row: ids and log-probabilities [chunk, row], and the likeliest tokens [chunk, row, rank]."""
    layers = sliced(network)
    vocabulary = state.logits.shape[-1]
    everything = jnp.asarray(vocabulary, jnp.int32)

    def one(logits: Array, key: Array, written: Array, temperature: Array, top_p: Array) -> tuple[Array, Array]:
        uniform = jax.random.uniform(jax.random.fold_in(key, written))
        sampling = Sampling(jnp.maximum(temperature, _GREEDY), top_p, everything)
        id = jnp.where(temperature < _GREEDY, jnp.argmax(logits), drawn(logits[None], uniform[None], sampling)[0])
        return id.astype(jnp.int32), log_prob_of(logits, id, jnp.asarray(1.0))

    def step(state: Rows, i: Array) -> tuple[Rows, tuple[Array, Array, Array, Array]]:
        ids, log_probs = jax.vmap(one)(state.logits, state.key, state.written, state.temperature, state.top_p)
        values, ranked = jax.lax.top_k(jax.nn.log_softmax(state.logits), min(ranks, vocabulary))
        cache, logits = extend(network, layers, state.cache, ids, place + i)
        after = Rows(cache, logits.astype(state.logits.dtype), state.key, state.temperature, state.top_p, state.written + 1)
        return after, (ids, log_probs, ranked, values)

    return jax.lax.scan(step, state, jnp.arange(chunk))
