"""Answers of remote models on disk: asked once, replayed for ever. Never holds a key."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policylab.errors import BadInput


def default_path() -> Path:
    """Where answers are kept unless told otherwise: `policylab/answers.sqlite` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "policylab" / "answers.sqlite"


def identity(url: str, request: Mapping[str, Any], draw: int) -> str:
    """The key of an answer: a hash of where it was asked, the full request (model included) and the number of the draw."""
    text = json.dumps([url, request, draw], sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


class RequestCache:
    """One SQLite file, shared by threads and processes; an answer is there whole or not at all, also after `kill -9`.

    It holds prompts and answers in plain text and is readable by its owner alone. Raises `BadInput` for a file of something else.
    """

    def __init__(self, path: str | Path | None = None):
        self.path = Path(path) if path is not None else default_path()
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self._file = sqlite3.connect(self.path, timeout=30.0, check_same_thread=False, isolation_level=None)
            self._file.execute("create table if not exists answers (id text primary key, record text not null)")
            self._file.execute("create table if not exists canaries (run text, number integer, prompt text, record text)")
        except (sqlite3.DatabaseError, OSError) as problem:
            raise BadInput(f"{self.path} cannot be used as a cache of answers ({problem}): name another file") from None

    def find(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The records that are there, by their key."""
        found = {}
        with self._lock:
            for start in range(0, len(ids), 500):
                some = list(ids[start : start + 500])
                marks = ",".join("?" * len(some))
                for key, text in self._file.execute(f"select id, record from answers where id in ({marks})", some):
                    found[key] = json.loads(text)
        return found

    def keep(self, key: str, record: Mapping[str, Any]) -> None:
        """Store an answer; the first one stays where another process was faster."""
        with self._lock:
            self._file.execute("insert or ignore into answers values (?, ?)", (key, json.dumps(record, ensure_ascii=False)))

    def keep_canary(self, run: str, number: int, prompt: str, record: Mapping[str, Any]) -> None:
        """Store the answer to a prompt that is asked again and again."""
        with self._lock:
            row = (run, number, prompt, json.dumps(record, ensure_ascii=False))
            self._file.execute("insert into canaries values (?, ?, ?, ?)", row)

    def canaries(self, run: str) -> list[tuple[int, str, dict[str, Any]]]:
        """(round, prompt, record) of a run, in the order they were asked."""
        with self._lock:
            rows = self._file.execute("select number, prompt, record from canaries where run = ? order by rowid", (run,))
            return [(number, prompt, json.loads(text)) for number, prompt, text in rows]

    def records(self) -> list[dict[str, Any]]:
        """All answers: what a report about dates, models and fingerprints is made from."""
        with self._lock:
            return [json.loads(text) for (text,) in self._file.execute("select record from answers order by rowid")]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()
