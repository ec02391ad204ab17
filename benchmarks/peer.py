"""The peer's process as ours sees it: started once, asked for one rate at a time, idle in between."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any


class Peer:
    """Another library training one learner in an environment of its own; a context manager."""

    def __init__(self, python: str, *arguments: str | int, script: Path = Path(__file__).with_name("peer_rates.py")) -> None:
        self.process = subprocess.Popen(
            [python, str(script), *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.versions: dict[str, str] = self._answer()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def work(self, updates: int | str) -> dict[str, float]:
        """The rate of this many updates or steps, and the process's peak memory so far (`ru_maxrss`)."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{updates}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"the peer's process ended with status {self.process.wait()}; its message stands above")
