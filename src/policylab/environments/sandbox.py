"""A locked room for programs that a model wrote: no network, no files but its own, bounded time, memory, processes and output.

Linux only. The walls are described in `warden.py`, which puts them up in a process of its own; if one cannot be put up, nothing
runs and `BadInput` says why. The program sees the standard library of this interpreter, read-only, and `/room`, a folder in
memory that is gone afterwards; nothing that it starts outlives it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from policylab.errors import BadInput
from policylab.hyperparameters import check, setting

_WARDEN = Path(__file__).with_name("warden.py")
_GRACE = 10.0  # seconds for the walls to go up and come down, beside the program's own time
_MIB = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """How a program ended. `status` is its exit status (128 + n: killed by signal n), `output` and `errors` what it wrote.

    `timed_out` and `flooded` say that it was stopped because its time was up, or because it wrote more than it may.
    """

    status: int
    output: str
    errors: str
    timed_out: bool
    flooded: bool
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the program ended by itself with status 0."""
        return self.status == 0 and not self.timed_out and not self.flooded


@dataclass(frozen=True)
class Sandbox:
    """Limits of a locked room. `memory` is for all processes of a program together; threads count as processes.

    The folder of files takes at most `files` bytes of memory beside it.
    """

    seconds: float = setting(2.0, "wall-clock time of a program, in seconds", low=0.01, high=3600.0)
    memory: int = setting(256 * _MIB, "address space of all processes together, in bytes", low=32 * _MIB)
    processes: int = setting(1, "processes and threads at one time", low=1, high=64)
    output: int = setting(64 * 1024, "what it may write to standard output and error together, in bytes", low=1)
    files: int = setting(8 * _MIB, "what its folder may hold, in bytes", low=4096)

    def __post_init__(self) -> None:
        check(self)
        if self.memory // self.processes < 32 * _MIB:
            raise BadInput("Sandbox.memory leaves less than 32 MiB to each process: give more memory or fewer processes")

    def run(self, program: str, *, input: str = "", files: Mapping[str, str] = {}) -> Outcome:
        """Run the Python `program` as `/room/program.py`, beside `files` (name -> text), with `input` on standard input.

        Raises `BadInput` if this machine cannot isolate it, or for a file name with a path in it.
        """
        contents = {**files, "program.py": program}
        for name in contents:
            if not name or "/" in name or "\0" in name or name in (".", ".."):
                raise BadInput(f"the sandbox has one folder and {name!r} is no plain file name: leave the path out")
        if sum(len(text.encode(errors="replace")) for text in contents.values()) > self.files:
            return Outcome(1, "", f"the program and its files are larger than {self.files} bytes", False, False, 0.0)
        interpreter, visible = _visible()
        order = {
            "command": ["/python/bin/python3", "-s", "-S", "-B", "-u", "/room/program.py"],
            "environment": {
                "HOME": "/room", "LANG": "C.UTF-8", "LD_LIBRARY_PATH": "/python/lib", "PYTHONHASHSEED": "0", "TMPDIR": "/room",
            },
            "files": {name: text.encode(errors="replace").decode() for name, text in contents.items()},
            "input": input.encode(errors="replace").decode(),
            "visible": visible, "seconds": self.seconds, "memory": self.memory, "processes": self.processes, "room": self.files,
        }  # fmt: skip
        return self._watch(order, interpreter)

    def run_many(self, programs: Sequence[str], *, workers: int = 0) -> list[Outcome]:
        """The outcomes of several programs, in order, `workers` at a time (0: one per core)."""
        return self.run_each([(program, "", {}) for program in programs], workers=workers)

    def run_each(self, orders: Sequence[tuple[str, str, Mapping[str, str]]], *, workers: int = 0) -> list[Outcome]:
        """The same for programs with an input and files of their own."""
        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            return list(pool.map(lambda order: self.run(order[0], input=order[1], files=order[2]), orders))

    def _watch(self, order: Mapping, interpreter: str) -> Outcome:
        if not sys.platform.startswith("linux"):
            raise BadInput(
                f"programs of a model run only where Linux can lock them in, not on {sys.platform}: use a Linux machine"
            )
        reading, report = os.pipe()
        with open(reading, "rb") as told:
            try:
                process = subprocess.Popen(
                    [interpreter, "-I", "-S", "-B", str(_WARDEN), str(report)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[report], env={},
                    cwd="/", start_new_session=True,
                )  # fmt: skip
            finally:
                os.close(report)
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                with contextlib.suppress(BrokenPipeError), process.stdin as order_file:
                    order_file.write(json.dumps(order).encode())
                output, errors, flooded = self._collect(process, process.stdout, process.stderr)
                if flooded:
                    process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(self.seconds + _GRACE)  # it may have closed its outputs and go on until its time is up
                text = told.read() if process.returncode is not None else b""
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                for stream in (process.stdout, process.stderr):
                    stream.close()
        result: dict[str, Any] = json.loads(text) if text else {"refused": f"its warden ended without a word ({errors[-200:]})"}
        if "refused" in result:
            raise BadInput(
                f"a program of a model was not run, because it cannot be locked in here: {result['refused']}; allow unprivileged "
                "user namespaces (Linux 5.12 or later), or run it where they are allowed"
            )
        return Outcome(result["status"], output, errors, result["timed_out"], flooded, result["seconds"])

    def _collect(self, process: subprocess.Popen, output: IO[bytes], errors: IO[bytes]) -> tuple[str, str, bool]:
        """What comes out until both streams are closed, there is too much of it, or time is long past."""
        parts: dict[str, list[bytes]] = {"output": [], "errors": []}
        left, flooded, deadline = self.output, False, time.monotonic() + self.seconds + _GRACE
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ, "output")
            selector.register(errors, selectors.EVENT_READ, "errors")
            while selector.get_map() and not flooded and time.monotonic() < deadline:
                for key, _ in selector.select(0.5):
                    chunk = os.read(key.fd, 65536)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    parts[key.data].append(chunk[:left])
                    flooded, left = flooded or len(chunk) > left, left - min(len(chunk), left)
        text = {name: b"".join(pieces).decode(errors="replace") for name, pieces in parts.items()}
        return text["output"], text["errors"], flooded


@functools.cache
def _visible() -> tuple[str, list[tuple[str, str]]]:
    """The real interpreter behind any virtual environment, and (path outside, path inside) of what a program may read.

    The interpreter and its library stand at /python inside, wherever they are, so that no folder above them shows.
    """
    executable, base = os.path.realpath(sys.executable), sys.base_prefix
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    pairs = [(path, path) for path in ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")]
    pairs.append((executable, "/python/bin/python3"))
    pairs += [(f"{base}/{folder}/{version}", f"/python/{folder}/{version}") for folder in {"lib", sys.platlibdir}]
    pairs += [(str(path), f"/python/lib/{path.name}") for path in sorted(Path(base, "lib").glob("libpython*"))]
    return executable, [pair for pair in pairs if os.path.lexists(pair[0])]


def refusal() -> str:
    """Why programs cannot be locked in on this machine, or "" if they can; tried once by running an empty program."""
    return _refusal()


@functools.cache
def _refusal() -> str:
    try:
        Sandbox(seconds=10.0).run("")
    except BadInput as why:
        return str(why)
    return ""
