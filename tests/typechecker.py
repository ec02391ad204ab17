"""beartype with PEP 484's rule that an int is good where a float is asked for; a check is written when its function is first called."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_write = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable) -> Callable:
    """The function with its arguments and result checked. beartype takes a millisecond to write a check: most are never needed."""
    written: list[Callable] = []

    @functools.wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        if not written:
            written.append(_write(function))
        return written[0](*arguments, **named)

    return checked
