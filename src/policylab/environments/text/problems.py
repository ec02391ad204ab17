"""Families of problems: how one is drawn, how an answer is checked, and to which split it belongs."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from policylab.errors import BadInput
from policylab.hyperparameters import check, setting

# Of a hundred hash values, how many belong to each split.
SPLITS = {"train": 80, "validation": 10, "test": 10}
_TRIES = 200  # draws per wanted problem, before a small family is taken to have no more


class Problem(NamedTuple):
    """A question, which says everything that checking an answer needs, and an answer that is right."""

    question: str
    solution: str


@dataclass(frozen=True)
class Family:
    """All problems of one kind and difficulty (1 is the easiest). `verify` is a function of question and answer alone."""

    difficulty: int = setting(1, "1 is the easiest; each family says what it changes", low=1, high=10)

    def __post_init__(self) -> None:
        check(self)

    @property
    @abstractmethod
    def instruction(self) -> str:
        """What is asked for, in words, for models that have not been trained on these problems."""

    @abstractmethod
    def draw(self, random: np.random.Generator) -> Problem:
        """One problem."""

    @abstractmethod
    def verify(self, question: str, answer: str) -> float:
        """The reward of an answer, in [0, 1]; 0 for what cannot be read. Raises `BadInput` for a question of another family."""

    def verify_all(self, questions: Sequence[str], answers: Sequence[str]) -> list[float]:
        """The rewards of a batch."""
        return [self.verify(question, answer) for question, answer in zip(questions, answers, strict=True)]

    @property
    def longest_answer(self) -> int:
        """How many characters any solution has at most."""
        return 32


def split_of(question: str) -> str:
    """The split that a question belongs to, by its hash alone: whoever draws it, with whatever seed, finds it in the same one."""
    number = int.from_bytes(hashlib.blake2b(question.encode(), digest_size=8).digest(), "big") % 100
    for name, share in SPLITS.items():
        number -= share
        if number < 0:
            return name
    raise AssertionError("the shares add up to 100")


@lru_cache(maxsize=64)
def problems(family: Family, split: str, count: int, seed: int = 0) -> tuple[Problem, ...]:
    """At most `count` different problems of a split; fewer where the family has no more. Raises `BadInput` for an unknown split, or
    one in which the family has no problem at all."""
    if split not in SPLITS:
        raise BadInput(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}")
    random = np.random.default_rng((seed, tuple(SPLITS).index(split)))
    found: dict[str, Problem] = {}
    barren = 0
    while len(found) < count and barren < _TRIES:
        problem = family.draw(random)
        new = split_of(problem.question) == split and problem.question not in found
        barren = 0 if new else barren + 1
        if new:
            found[problem.question] = problem
    if not found:
        raise BadInput(
            f"{type(family).__name__} of difficulty {family.difficulty} has no {split} problems: raise its difficulty"
        )
    return tuple(found.values())


def final(answer: str) -> str:
    """What an answer comes to: what stands between the last <answer> tags, or else its last line that is not empty."""
    if "<answer>" in answer:
        return answer.rpartition("<answer>")[2].partition("</answer>")[0].strip()
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    return lines[-1] if lines else ""
