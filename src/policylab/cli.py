"""The command line: finds the command, runs it, prints its result, and turns a user's mistake into one sentence.

Exit status: 0 when it did what was asked ("no winner" included), 1 when training diverged or memory ran out, 2 for bad
input, 3 and 4 for a claim that was refuted or stayed inconclusive, 130 when interrupted.
Only a defect of policylab itself shows a traceback (also status 1).
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Sequence

from policylab.commands import COMMANDS, nearest, overview
from policylab.errors import BadInput, Diverged, Unsupported

# What the system refuses because of the user's disk, paths or rights; any other OSError is a defect and shows its traceback.
_REFUSALS = {
    errno.ENOSPC: "free some space, or name a folder on another disk with --out",
    errno.EDQUOT: "free some space, or name a folder on another disk with --out",
    errno.EFBIG: "name a folder on another disk with --out",
    errno.EACCES: "name a place that you may use",
    errno.EPERM: "name a place that you may use",
    errno.EROFS: "name a folder that can be written to with --out",
    errno.ENOTDIR: "a part of that path is a file; name another path",
    errno.EISDIR: "that is a folder; name a file",
    errno.EEXIST: "that exists already; name another path",
    errno.ENOENT: "check the path",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "check the path",
}
# What an interrupt leaves behind; commands that are not named here write only when they are done.
_INTERRUPTED = {
    "train": "interrupted; what was saved is kept, and the same command with --resume goes on from it",
    "solve": "interrupted; solve writes its results when all is done, so nothing of this run is kept: start the same command again",
    "solve --model": "interrupted; what was done is kept, and the same command with --resume goes on from it",
    "compare": "interrupted; without --out nothing of this comparison is kept: start the same command again",
    "compare --out": "interrupted; what was saved is kept, and the same command with --resume goes on from it",
    "reproduce": "interrupted; the record says that this run was aborted: start the same command again",
}


def _kind(argv: Sequence[str]) -> str:
    """The command, with the option that decides what an interrupt of it leaves behind."""
    command, given = next(iter(argv), ""), {word.partition("=")[0] for word in argv}
    return next((kind for option in given if (kind := f"{command} {option}") in _INTERRUPTED), command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. `argv` without the program's name; None takes the process's own."""
    if argv is None:
        argv = sys.argv[1:]
        _prepare_process()
    try:
        return _dispatch(list(argv))
    except (BadInput, Unsupported) as error:
        return _refuse(str(error), 2)
    except Diverged as error:
        return _refuse(str(error), 1)
    except KeyboardInterrupt:
        return _refuse(_INTERRUPTED.get(_kind(argv), "interrupted; nothing was written"), 130)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)):
            raise
        return _refuse("not enough memory for this: fewer seeds, a smaller batch or smaller networks need less", 1)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        place = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{place}{error.strerror}: {_REFUSALS[error.errno]}", 2)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if argv[0] == "--version":
        from policylab import __version__

        print(f"policylab {__version__}")
        return 0
    name = argv[0]
    if name not in COMMANDS:
        raise BadInput(f"there is no command {name!r}: {nearest(name, COMMANDS, 'policylab --help lists them')}")
    command = importlib.import_module(f"policylab.commands.{name}")
    from policylab.commands.arguments import Help
    from policylab.commands.output import deliver

    try:
        # Whatever a library prints belongs to standard error: standard output carries the result and nothing else.
        with contextlib.redirect_stdout(sys.stderr):
            options, result = command.run(argv[1:])
    except Help as asked:
        print(asked.text)
        return 0
    deliver(result, options)
    return result.status


def _refuse(sentence: str, status: int) -> int:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[2K")  # an unfinished progress bar
    print(f"policylab: {' '.join(sentence.split())}", file=sys.stderr)
    return status


def _prepare_process() -> None:
    """A user of the command line reads our sentences; the warnings of libraries are for developers (python -W shows them)."""
    import io
    import warnings

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows ? instead of failing
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


if __name__ == "__main__":
    sys.exit(main())
