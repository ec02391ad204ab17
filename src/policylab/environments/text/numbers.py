"""Problems with numbers: sums, countdown and sorting."""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from policylab.environments.text.problems import Family, Problem, final
from policylab.errors import BadInput

_LONGEST = 200  # characters of an expression that are read at all
_OPERATIONS: dict[type, str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


def _value(node: ast.AST, used: list[int]) -> Fraction | None:
    """The exact value of a syntax tree of whole numbers and + - * /, or None; the numbers are added to `used`. Nothing is executed."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _value(node.operand, used)
        return None if inner is None else -inner
    if not isinstance(node, ast.BinOp) or type(node.op) not in _OPERATIONS:
        return None
    left, right = _value(node.left, used), _value(node.right, used)
    if left is None or right is None:
        return None
    match _OPERATIONS[type(node.op)]:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case _:
            return None if right == 0 else left / right


def evaluated(expression: str) -> tuple[Fraction, list[int]] | None:
    """The exact value of an expression of whole numbers, + - * / and brackets, and the numbers in it; None where it is none."""
    if len(expression) > _LONGEST or not re.fullmatch(r"[\d+\-*/() ]+", expression):
        return None
    used: list[int] = []
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        value = _value(tree, used)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return None if value is None else (value, used)


def _matched(pattern: str, question: str) -> re.Match[str]:
    found = re.search(pattern, question)
    if found is None:
        raise BadInput(f"{question[:60]!r} is no question of this family: verify answers with the family that asked")
    return found


@dataclass(frozen=True)
class Arithmetic(Family):
    """`37+5=`: sums and differences of two numbers with as many digits as the difficulty; from 3 on of three, one product among them."""

    @property
    def instruction(self) -> str:
        """What is asked for."""
        return "Calculate. Give the number alone on the last line."

    def draw(self, random: np.random.Generator) -> Problem:
        """One sum."""
        terms = 2 if self.difficulty < 3 else 3
        numbers = [str(n) for n in random.integers(0, 10**self.difficulty, terms)]
        signs = [("+", "-")[i] for i in random.integers(0, 2, terms - 1)]
        if terms == 3:
            signs[random.integers(2)] = "*"
        expression = numbers[0] + "".join(sign + number for sign, number in zip(signs, numbers[1:], strict=True))
        known = evaluated(expression)
        assert known is not None
        return Problem(f"{expression}=", str(known[0]))

    def verify(self, question: str, answer: str) -> float:
        """1 for the right number."""
        known = evaluated(_matched(r"(\d+(?:[+\-*]\d+)+)=", question)[1])
        given = final(answer).rpartition("=")[2].strip().replace(",", "")
        return float(known is not None and bool(re.fullmatch(r"[+-]?\d{1,40}", given)) and int(given) == known[0])

    @property
    def longest_answer(self) -> int:
        """A product of two numbers of this many digits, and a sign."""
        return 2 * self.difficulty + 2


@dataclass(frozen=True)
class Countdown(Family):
    """`2 7 25 -> 39`: reach the target with + - * / and each number at most once; two numbers more than the difficulty.

    A target is made from all the numbers, so that it can be reached; other ways count as well.
    """

    @property
    def instruction(self) -> str:
        """What is asked for."""
        return (
            "Reach the number after the arrow with + - * / and brackets, using each number before it at most once. "
            "Give the expression alone on the last line."
        )

    def draw(self, random: np.random.Generator) -> Problem:
        """Numbers, and a target that was made from them."""
        while True:
            numbers = sorted(int(n) for n in random.integers(1, 26, self.difficulty + 2))
            pieces = [(Fraction(n), str(n)) for n in numbers]
            while len(pieces) > 1:
                first, second = (pieces.pop(random.integers(len(pieces))) for _ in range(2))
                sign = "+-*/"[random.integers(4)]
                if sign == "/" and (second[0] == 0 or (first[0] / second[0]).denominator > 1):
                    sign = "+"
                value = {"+": first[0] + second[0], "-": first[0] - second[0], "*": first[0] * second[0]}.get(sign)
                value = first[0] / second[0] if value is None else value
                pieces.append((value, f"({first[1]}{sign}{second[1]})"))
            target, expression = pieces[0]
            if 0 < target < 1000:
                return Problem(f"{' '.join(map(str, numbers))} -> {target}", expression[1:-1])

    def verify(self, question: str, answer: str) -> float:
        """1 for an expression of the given numbers, each at most as often as given, with exactly the target as its value."""
        found = _matched(r"(\d+(?: \d+)+) -> (\d+)", question)
        known = evaluated(final(answer).partition("=")[0])
        if known is None:
            return 0.0
        too_many = Counter(known[1]) - Counter(map(int, found[1].split()))
        return float(not too_many and known[0] == int(found[2]))

    @property
    def longest_answer(self) -> int:
        """Two digits, a sign and two brackets for each number."""
        return 5 * (self.difficulty + 2)


@dataclass(frozen=True)
class Sorting(Family):
    """`sort 5 31 9`: numbers below 100 in order; two more than twice the difficulty of them."""

    @property
    def instruction(self) -> str:
        """What is asked for."""
        return "Sort the numbers from small to large. Give them alone on the last line, with single spaces between."

    def draw(self, random: np.random.Generator) -> Problem:
        """Numbers, and the same in order."""
        numbers = [int(n) for n in random.integers(0, 100, 2 * self.difficulty + 2)]
        return Problem(f"sort {' '.join(map(str, numbers))}:", " ".join(map(str, sorted(numbers))))

    def verify(self, question: str, answer: str) -> float:
        """1 for all numbers in order."""
        numbers = _matched(r"sort (\d+(?: \d+)+):", question)[1].split()
        return float(final(answer).split() == sorted(numbers, key=int))

    @property
    def longest_answer(self) -> int:
        """Two digits and a space each."""
        return 3 * (2 * self.difficulty + 2)
