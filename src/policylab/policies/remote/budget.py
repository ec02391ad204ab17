"""What may be spent on a remote model, what was, and how that is kept."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

from policylab.errors import BadInput

_SIZES = {"": 1, "k": 1_000, "m": 1_000_000}


class BudgetSpent(BadInput):
    """The next batch would cost more than is left: nothing of it was asked, and what was answered before is in the cache."""


@dataclass(frozen=True)
class Plan:
    """What a batch will cost: answers found in the cache are free. `tokens` is the most that it can be."""

    calls: int
    tokens: int
    cached: int

    def __str__(self) -> str:
        return f"{self.calls:,} calls, at most {self.tokens:,} tokens ({self.cached:,} answers are in the cache)"


class Budget:
    """At most so many calls and tokens (None: no bound), over all that shares this object. Every attempt counts as a call.

    What a batch can cost at most is put aside before it starts and set right as the answers come, so that a bound is never exceeded.
    """

    def __init__(self, calls: int | None = None, tokens: int | None = None):
        for name, bound in (("calls", calls), ("tokens", tokens)):
            if bound is not None and bound < 0:
                raise BadInput(f"a budget of {bound} {name} is none: give a number of at least 0")
        self.calls, self.tokens = calls, tokens
        self.spent_calls = self.spent_tokens = 0
        self._lock = threading.Lock()

    @staticmethod
    def of(text: str | Budget | None) -> Budget:
        """The budget in words such as `20k calls`, `1.5M tokens` or `500 calls, 2M tokens`; None is one without bounds."""
        if isinstance(text, Budget):
            return text
        bounds: dict[str, int] = {}
        for part in (text or "").split(","):
            found = re.fullmatch(r"([\d.]+|\d[\d_]*)\s*([kKmM]?)\s*(calls?|tokens?)", part.strip())
            if found is None and text is not None:
                raise BadInput(f"a budget of {text!r} does not read: write for example '20k calls' or '500 calls, 2M tokens'")
            if found is not None:
                bounds[found[3].rstrip("s") + "s"] = round(float(found[1].replace("_", "")) * _SIZES[found[2].lower()])
        return Budget(**bounds)

    def set_aside(self, calls: int, tokens: int) -> None:
        """Take this much before it is spent. Raises `BudgetSpent`, taking nothing, where there is not so much left."""
        with self._lock:
            for name, bound, spent, more in (
                ("calls", self.calls, self.spent_calls, calls),
                ("tokens", self.tokens, self.spent_tokens, tokens),
            ):
                if bound is not None and spent + more > bound:
                    raise BudgetSpent(
                        f"the budget of {bound:,} {name} has {bound - spent:,} left where {more:,} may be needed: raise it, or ask for "
                        "less; answers so far are in the cache and cost nothing again"
                    )
            self.spent_calls += calls
            self.spent_tokens += tokens

    def settle(self, *, calls: int = 0, tokens: int = 0) -> None:
        """Give back what was put aside and not needed."""
        with self._lock:
            self.spent_calls -= calls
            self.spent_tokens -= tokens

    def __repr__(self) -> str:
        bounds = [f"{spent:,}{'' if bound is None else f' of {bound:,}'} {name}" for name, bound, spent in (
            ("calls", self.calls, self.spent_calls), ("tokens", self.tokens, self.spent_tokens),
        )]  # fmt: skip
        return f"Budget({', '.join(bounds)})"
