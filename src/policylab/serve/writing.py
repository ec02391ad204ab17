"""One answer as it comes out of the engine: tokens to text, stop strings, and what may be shown already."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policylab.serve.engine import Engine, Full, Job, Piece
from policylab.serve.requests import Asked
from policylab.tokenizer import Tokenizer


@dataclass
class Shown:
    """More of an answer: new text, the tokens it is made of with their log-probabilities, and why it ended ("" while it goes on)."""

    text: str
    tokens: list[dict[str, Any]]
    finish: str = ""


@dataclass
class Transcript:
    """Turns pieces into text. Held back is what may yet become a stop string or is half of a character."""

    tokenizer: Tokenizer
    stop: tuple[str, ...]
    ranked: int | None
    length: int
    ids: list[int] = field(default_factory=list)
    shown: int = 0
    finish: str = ""

    def add(self, piece: Piece) -> Shown:
        """What can be shown after this piece."""
        tokens = []
        for i, id in enumerate(piece.ids.tolist()):
            self.ids.append(id)
            if self.ranked is not None and id not in self.tokenizer.end:
                tokens.append(self._told(id, float(piece.log_probs[i]), piece.ranked[0][i], piece.ranked[1][i]))
            if id in self.tokenizer.end:
                self.finish = "stop"
                break
        text = self.tokenizer.decode(self.ids)
        places = [place for place in (text.find(stop) for stop in self.stop) if place >= 0]
        if places:
            text, self.finish = text[: min(places)], "stop"
        elif not self.finish and len(self.ids) >= self.length:
            self.finish = "length"
        if not self.finish:
            text = text.rstrip("\ufffd")
            text = text[: len(text) - max((_overlap(text, stop) for stop in self.stop), default=0)]
        more, self.shown = text[self.shown :], max(self.shown, len(text))
        return Shown(more, tokens, self.finish)

    def _told(self, id: int, log_prob: float, ids: np.ndarray, values: np.ndarray) -> dict[str, Any]:
        spelled = self.tokenizer.spelling
        told = lambda i, value: {
            "token": (spelled[i] if i < len(spelled) else b"").decode(errors="replace"),
            "logprob": max(float(value), -9999.0),
            "bytes": list(spelled[i]) if i < len(spelled) else [],
        }
        top = [told(int(i), v) for i, v in zip(ids[: self.ranked], values[: self.ranked], strict=True)]
        return {**told(id, log_prob), "top_logprobs": top}


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are a beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


class Answers:
    """All answers to one request, written at the same time; `close` cancels what is not done."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, asked: Asked, seeds: list[int]):
        loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[tuple[int, Piece | Exception | None]] = asyncio.Queue()
        self._engine = engine
        self.transcripts, self._jobs = [], []
        for ids in asked.prompts:
            for _ in range(asked.n):
                number = len(self._jobs)
                deliver = lambda piece, number=number: _tell(loop, self._arrived, (number, piece))
                job = Job(
                    list(ids), asked.length, asked.temperature, asked.top_p, seeds[number], deliver, asked.ranked is not None
                )
                self._jobs.append(job)
                self.transcripts.append(Transcript(tokenizer, asked.stop, asked.ranked, asked.length))

    def submit(self) -> None:
        """Let them wait for rows: all, or none where the engine is `Full`."""
        try:
            for job in self._jobs:
                self._engine.submit(job)
        except Full:
            self.close()
            raise

    def close(self) -> None:
        """Nobody waits for them any more."""
        for job in self._jobs:
            job.cancelled.set()

    async def pieces(self) -> AsyncIterator[tuple[int, Shown]]:
        """(number of the answer, what is new of it), until all have ended. Raises what the engine raised."""
        open_ones = len(self._jobs)
        while open_ones:
            number, piece = await self._arrived.get()
            if isinstance(piece, Exception):
                raise piece
            transcript = self.transcripts[number]
            if piece is None or transcript.finish:
                continue
            shown = transcript.add(piece)
            if shown.finish:
                open_ones -= 1
                self._jobs[number].cancelled.set()
            yield number, shown

    @property
    def written(self) -> int:
        """How many tokens were written so far."""
        return sum(len(transcript.ids) for transcript in self.transcripts)


def _tell(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue, item: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the server has stopped, and nobody waits any more
        loop.call_soon_threadsafe(queue.put_nowait, item)
