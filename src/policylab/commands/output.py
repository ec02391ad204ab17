"""What a command gives back, and how it reaches the user: text or one JSON document."""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policylab.errors import BadInput


@dataclass(frozen=True)
class Result:
    """The result of a command: the document that `--json` prints, the text for people, and the exit status.

    `written` says that the command has used `--out` itself; else the document is written to that file.
    """

    document: Mapping[str, Any]
    text: str
    status: int = 0
    written: bool = False


def deliver(result: Result, options: argparse.Namespace) -> None:
    """Print the result to standard output and, where the command has not used `--out` itself, write its document there."""
    if options.out and not result.written:
        write_document(Path(options.out), result.document)
    print(to_json(result.document) if options.json else result.text, flush=True)


def to_json(document: Any) -> str:
    """Strict JSON: numbers that are not finite become null, NumPy's become plain ones."""
    return json.dumps(_plain(document), indent=1, allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return _plain(value.tolist())  # arrays and their scalars


def write_document(path: Path, document: Any) -> None:
    """Write the document to a new file, whole or not at all; what is there already is kept and the command refuses."""
    claim_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(to_json(document) + "\n")
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def claim_place(path: Path, *, folder: bool = False, resume: bool = False, hint: str = "") -> None:
    """Raise `BadInput` if `path` could not be written to; asked before any work is done, and creates nothing.

    What is there already is refused, but for an empty folder where a `folder` is to be written, or one to `resume`; `hint` ends the
    sentence about it.
    """
    if path.exists() and folder and not path.is_dir():
        raise BadInput(f"{path} is a file, not a folder: name another place with --out")
    if path.exists() and not (folder and (resume or not any(path.iterdir()))):
        raise BadInput(
            f"{path} exists already: name another place with --out{', ' + hint if hint else ''}, or move it away first"
        )
    parent = path if path.is_dir() else path.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise BadInput(f"cannot write to {path}: {parent} is a file; name another place with --out")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise BadInput(f"cannot write to {path}: you may not write in {parent}; name another place with --out")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Columns of text, as wide as they need to be; the columns in `right` are set flush right."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
