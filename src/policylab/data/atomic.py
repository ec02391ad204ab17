"""Files and folders that exist whole or not at all: written beside their place under another name, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from policylab.errors import BadInput


@contextmanager
def atomic(path: str | Path, *, folder: bool = False, overwrite: bool = False) -> Generator[Path]:
    """A temporary path to write to; it becomes `path` when the block ends without an error and vanishes otherwise.

    Raises `BadInput` if `path` exists (unless `overwrite`, for files only) or its parent cannot be written to.
    """
    path = Path(path)
    if path.exists() and not (overwrite and path.is_file() and not folder):
        raise BadInput(f"{path} exists already: choose another path, or move it away first")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        reason = error.strerror or error
        raise BadInput(f"cannot write to {path.parent}: {reason}; choose a folder that you may write to") from error
    try:
        target = scratch / "new"
        if folder:
            target.mkdir()
        yield target
        if not folder:
            with open(target, "rb") as file:
                os.fsync(file.fileno())
        try:
            os.replace(target, path)
        except OSError as error:  # another process was faster
            raise BadInput(f"{path} exists already: choose another path, or move it away first") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
