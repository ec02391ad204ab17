"""The page that a long command writes at its end: where it goes, and one sentence in its place where it cannot be written."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from policylab.commands.output import claim_place
from policylab.errors import BadInput

_LEFT_OUT = ("--out", "--report")  # options with a place, which is another one when it is done again


def page_options(parser: Any, default: str) -> None:
    """Add `--report FILE` and `--no-report`."""
    group = parser.add_argument_group("report").add_mutually_exclusive_group()
    group.add_argument("--report", metavar="FILE", help=f"where the page about it goes, FILE.html (default: {default})")
    group.add_argument("--no-report", action="store_true", help="write no page")


def require_page(path: str) -> Path:
    """A place for a page that was asked for by name. Raises `BadInput` where one could not be written, before any work is done."""
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise BadInput(f"{path} ends in no kind of page: end it in .html")
    return Path(path)


def place_of_page(options: argparse.Namespace, folder: Path | None) -> Path | None:
    """Where the page goes, and None where there is to be none. Raises `BadInput` for one that was asked for and could not be written."""
    if options.no_report:
        return None
    if options.report is None:
        return None if folder is None else folder / "report.html"
    from policylab.reporting.figures import plotting

    place = require_page(options.report)
    if not (options.resume and place.is_file()):
        claim_place(place)
    plotting()
    return place


def written(page: Callable[[Path], Any], place: Path | None, kept: str) -> tuple[str | None, str]:
    """The page's place and the line that tells of it; without a page, None and one sentence that says why (empty where none was wanted).

    Nothing is raised: what took hours to make is saved by now, and a page that fails must not look as if it were lost. `kept` says where
    that is.
    """
    if place is None:
        return None, ""
    try:
        page(place)
    except BadInput as reason:
        why = str(reason)
    except OSError as error:
        why = f"{place}: {error.strerror or error}"
    except Exception as error:  # of drawing libraries, which raise what they like
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    else:
        return str(place), f"report: {place}"
    return None, f"no report was written ({why}); {kept}"


def repeated(command: str, argv: Sequence[str], out: Path | None) -> str:
    """The command that does the same again from the beginning, in another folder than `out`."""
    words, skip = [], False
    for word in argv:
        if skip or word in _LEFT_OUT:
            skip = not skip
        elif word not in ("--resume", "--json") and word.partition("=")[0] not in _LEFT_OUT:
            words.append(word)
    place = [] if out is None else ["--out", f"{out}-again"]
    return shlex.join(["policylab", command, *words, *place])
