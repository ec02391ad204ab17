"""Tiny Python functions, checked by running them on inputs in the sandbox."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from policylab.environments.sandbox import Sandbox
from policylab.environments.text.problems import Family, Problem
from policylab.errors import BadInput

_TESTS = 12
_SANDBOX = Sandbox(seconds=2.0, memory=128 << 20, output=16_384, files=1 << 20)

# What the sandbox runs beside the answer: it calls the function and prints what comes back. What is expected stays outside.
_CALLER = """import json, sys
from answer import f
print("\\n" + json.dumps([f(list(x)) for x in json.loads(sys.stdin.read())]))
"""


class Operation(NamedTuple):
    """A step on a list of whole numbers: its words (with a number k in them), what it does, and the same as Python."""

    words: str
    apply: Callable[[list[int], int], list[int]]
    code: str


STEPS = (
    Operation("add {k} to every number", lambda x, k: [a + k for a in x], "x = [a + {k} for a in x]"),
    Operation("multiply every number by {k}", lambda x, k: [a * k for a in x], "x = [a * {k} for a in x]"),
    Operation("keep the numbers greater than {k}", lambda x, k: [a for a in x if a > k], "x = [a for a in x if a > {k}]"),
    Operation("drop the multiples of {k}", lambda x, k: [a for a in x if a % k], "x = [a for a in x if a % {k}]"),
    Operation("drop the first {k} numbers", lambda x, k: x[k:], "x = x[{k}:]"),
    Operation("keep every number at a position divisible by {k}", lambda x, k: x[::k], "x = x[::{k}]"),
    Operation("put {k} at the end", lambda x, k: [*x, k], "x = [*x, {k}]"),
    Operation("replace every number by its remainder modulo {k}", lambda x, k: [a % k for a in x], "x = [a % {k} for a in x]"),
)
ENDS = (
    Operation("return the list", lambda x, k: x, "return x"),
    Operation("return the sum", lambda x, k: [sum(x)], "return sum(x)"),
    Operation("return how many there are", lambda x, k: [len(x)], "return len(x)"),
    Operation("return the list in ascending order", lambda x, k: sorted(x), "return sorted(x)"),
    Operation("return the list in reverse order", lambda x, k: x[::-1], "return x[::-1]"),
    Operation("return the largest, or 0 if there is none", lambda x, k: [max(x, default=0)], "return max(x, default=0)"),
)
_SINGLE = ("the sum", "how many", "the largest")  # ends whose value is one number


@dataclass(frozen=True)
class Functions(Family):
    """Write `f(x)` over a list of whole numbers, which does as many steps as the difficulty says and returns something of the result.

    An answer is Python, in a fenced block or alone. It runs in the sandbox on twelve inputs that follow from the question; what should
    come out is never inside. Any defect, and any try to get out, is reward 0. Raises `BadInput` where programs cannot be locked in.
    """

    @property
    def instruction(self) -> str:
        """What is asked for."""
        return "Write the function f in Python, with the standard library alone. Give the code in one ```python block."

    def draw(self, random: np.random.Generator) -> Problem:
        """Steps and an end, and the code that does them."""
        steps = [(STEPS[random.integers(len(STEPS))], int(random.integers(2, 10))) for _ in range(self.difficulty)]
        end = ENDS[random.integers(len(ENDS))]
        words = ", then ".join([step.words.format(k=k) for step, k in steps] + [end.words])
        code = "\n    ".join([step.code.format(k=k) for step, k in steps] + [end.code])
        return Problem(f"f(x: list[int]): {words}.", f"def f(x):\n    {code}")

    def verify(self, question: str, answer: str) -> float:
        """1 if the function returns what it should on every input."""
        return self.verify_all([question], [answer])[0]

    def verify_all(self, questions: Sequence[str], answers: Sequence[str]) -> list[float]:
        """The rewards of a batch; the programs run one per core, equal ones once."""
        jobs = list(dict.fromkeys(zip(questions, answers, strict=True)))
        wanted = {question: _expected(question) for question in dict.fromkeys(questions)}
        orders = [(_CALLER, json.dumps(wanted[question][0]), {"answer.py": _code(answer)}) for question, answer in jobs]
        rewards = {}
        for (question, answer), outcome in zip(jobs, _SANDBOX.run_each(orders), strict=True):
            lines = outcome.output.strip().splitlines()
            right = outcome.ok and bool(lines) and _same(lines[-1], wanted[question][1])
            rewards[question, answer] = float(right)
        return [rewards[job] for job in zip(questions, answers, strict=True)]

    @property
    def longest_answer(self) -> int:
        """A line for every step."""
        return 48 + 40 * self.difficulty


def _expected(question: str) -> tuple[list[list[int]], list]:
    """Inputs that follow from the question, and what the function it describes returns on each."""
    found = re.search(r"f\(x: list\[int\]\): (.*)\.", question)
    steps = [] if found is None else [_operation(words, STEPS + ENDS) for words in found[1].split(", then ")]
    if not steps or any(step is None for step in steps):
        raise BadInput(f"{question[:60]!r} is no question of this family: verify answers with the family that asked")
    seed = int.from_bytes(hashlib.blake2b(question.encode(), digest_size=8).digest(), "big")
    random = np.random.default_rng(seed)
    inputs = [[], *([int(n) for n in random.integers(-20, 40, random.integers(1, 12))] for _ in range(_TESTS - 1))]
    outputs = []
    for values in inputs:
        result = list(values)
        for operation, k in steps:
            result = operation.apply(result, k)
        outputs.append(result[0] if any(word in steps[-1][0].words for word in _SINGLE) else result)
    return inputs, outputs


def _operation(words: str, known: Sequence[Operation]) -> tuple[Operation, int]:
    for operation in known:
        pattern = re.escape(operation.words).replace(re.escape("{k}"), r"(\d+)")
        found = re.fullmatch(pattern, words)
        if found:
            return operation, int(found[1]) if found.groups() else 0
    raise BadInput(f"{words!r} is no step that this family knows: verify answers with the family that asked")


def _code(answer: str) -> str:
    """The last fenced block of an answer, or all of it."""
    blocks = re.findall(r"```(?:python|py)?\n(.*?)```", answer, re.S)
    return blocks[-1] if blocks else answer


def _same(line: str, wanted: list) -> bool:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return given == wanted and not re.search(r"\b(true|false)\b|\.\d", line)  # True is no 1 and 1.0 is no 1 here
