"""Learners of worlds from the command line: the source that they imagine from is put around the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policylab.learner import Learner
    from policylab.source import Source


def around(learner: Learner, source: Source) -> Source:
    """`source` itself, or the one that imagines around it where the learner asks for imagined transitions or windows (its needs name a
    `world` beside them). Raises `BadInput` where the source cannot be imagined from."""
    needs = learner.needs
    if "world" not in needs or len(needs) < 2:
        return source
    from policylab.learner import Windows
    from policylab.sources.dreamed import Dreamed
    from policylab.sources.imagined import Imagined

    windows = any(isinstance(request, Windows) for name, request in needs.items() if name != "world")
    return Dreamed(source) if windows else Imagined(source)
