"""Options of commands: an argparse parser that answers a mistake with one sentence, and the kinds of values they take."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from typing import NoReturn

from policylab.commands import COMMANDS, nearest
from policylab.errors import BadInput


class Help(Exception):
    """The user asked for help: the text to print."""

    def __init__(self, text: str):
        self.text = text


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Adds the default to the help of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        silent = action.default is None or isinstance(action.default, bool) or action.default == argparse.SUPPRESS
        shown = bool(action.option_strings) and not silent
        return f"{text} (default: %(default)s)" if shown else text


class Parser(argparse.ArgumentParser):
    """Options of one command. Mistakes raise `BadInput`, `--help` raises `Help`; nothing is printed and nothing exits."""

    def __init__(
        self, command: str, description: str = "", epilog: str = "", *, words: str = "", out: str = "", seed: str = ""
    ):
        about = COMMANDS[command]
        super().__init__(
            f"policylab {command}",
            usage=f"%(prog)s {words} [options]".replace("  ", " "),
            description=f"{about[0].upper()}{about[1:]}.\n{description}",
            epilog=epilog,
            formatter_class=lambda prog: _Formatter(prog, max_help_position=30, width=110),
            allow_abbrev=False,
            add_help=False,
        )
        self._everywhere = everywhere = self.add_argument_group("for every command")
        everywhere.add_argument("-h", "--help", action="store_true", help="print this and stop")
        everywhere.add_argument(
            "--seed", type=whole(0), default=0, metavar="N", help=seed or "accepted everywhere; this command draws nothing"
        )
        everywhere.add_argument("--out", metavar="PATH", help=out or "also write the JSON document to this new file")
        everywhere.add_argument(
            "--json", action="store_true", help="print one JSON document on standard output; all else goes to standard error"
        )

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """The options in `argv`. Raises `Help` or `BadInput`."""
        if "-h" in argv or "--help" in argv:
            self._action_groups.remove(self._everywhere)
            self._action_groups.append(self._everywhere)  # what belongs to the command comes first
            raise Help(self.format_help().rstrip())
        options, unknown = self.parse_known_args(list(argv))
        for word in unknown:
            if word.startswith("-") and not re.fullmatch(r"-\d.*", word):
                flag = word.split("=")[0]
                known = [text for action in self._actions for text in action.option_strings]
                self.error(f"there is no option {flag}: {nearest(flag, known, f'{self.prog} --help lists them')}")
        if unknown:
            self.error(f"{unknown[0]!r} belongs to no option: {self.prog} --help lists them")
        return options

    def error(self, message: str) -> NoReturn:
        """One sentence, as everywhere."""
        message = re.sub(r"^argument ([^:]+): ", r"\1: ", message)
        message = re.sub(r"^the following arguments are required: (.*)$", r"\1 is missing: see \g<0>", message)
        message = re.sub(r"see the following arguments are required: .*$", f"{self.prog} --help explains it", message)
        raise BadInput(message)


def whole(low: int = 1) -> Callable[[str], int]:
    """A whole number of at least `low`; `20_000`, `20000` and `2e4` are the same."""

    def read(text: str) -> int:
        try:
            number = float(text.replace("_", "")) if re.fullmatch(r"[\d_]+e\d+", text) else int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number: give one of at least {low}") from None
        if number < low:
            raise argparse.ArgumentTypeError(f"{text} is too small: give a whole number of at least {low}")
        return int(number)

    return read


def real(low: float = -math.inf, high: float = math.inf) -> Callable[[str], float]:
    """A finite number strictly between two others."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not low < number < high:
            bounds = f" between {low:g} and {high:g}" if math.isfinite(low + high) else ""
            raise argparse.ArgumentTypeError(f"{text!r} does not do: give a number{bounds}")
        return number

    return read


def duration(text: str) -> str:
    """A length of time such as `90s`, `10min` or `2h`, kept as text once it reads."""
    if not re.fullmatch(r"\d+(\.\d+)?\s*(s|sec|m|min|h)", text) or float(re.findall(r"[\d.]+", text)[0]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time: write for example 90s, 10min or 2h")
    return text


def names(text: str) -> list[str]:
    """Names with commas between them."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name: write names with single commas between them")
    return found
