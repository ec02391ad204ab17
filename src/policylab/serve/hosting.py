"""Running an application: until interrupted, or in a thread of this process for as long as a block lasts."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from policylab.errors import BadInput


def _server(app: Any, host: str, port: int) -> Any:
    try:
        import uvicorn
    except ImportError as missing:
        raise BadInput('serving needs uvicorn, which is not installed: pip install "policylab[serve]"') from missing
    config = uvicorn.Config(
        app, host=host, port=port, log_level="error", access_log=False, http="h11", ws="none", lifespan="on", server_header=False,
        backlog=1024, timeout_keep_alive=30, timeout_graceful_shutdown=5,
    )  # fmt: skip
    return uvicorn.Server(config)


@contextmanager
def served(app: Any, *, host: str = "127.0.0.1", port: int = 0) -> Generator[str]:
    """The address of `app`, served from a thread while the block lasts; port 0 takes a free one. Raises `BadInput` where it cannot
    start."""
    server = _server(app, host, port)
    failure: list[BaseException] = []

    def work() -> None:
        try:
            server.run()
        except BaseException as problem:  # uvicorn exits where the port is taken
            failure.append(problem)

    thread = threading.Thread(target=work, daemon=True, name="policylab server")
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        if not server.started:
            raise BadInput(f"the server could not start on {host}:{port} ({failure or 'see the log'}): choose another --port")
        yield f"http://{host}:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def serve(app: Any, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until interrupted (SIGINT or SIGTERM); `ready` is told the address once it is up. Raises `BadInput` where the port is
    taken."""
    mine = threading.current_thread() is threading.main_thread()  # others may not say what a signal does
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)} if mine else {}
    try:
        with contextlib.suppress(KeyboardInterrupt), served(app, host=host, port=port) as address:
            ready(address)
            _wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _wait() -> None:
    while True:
        time.sleep(3600.0)
