"""Dialogues of several turns whose outcome can be checked: what they open with and how they reply."""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from policylab.environments.text.problems import Family, Problem, final
from policylab.errors import BadInput


class Reply(NamedTuple):
    """What the other side says, what it remembers (whole numbers), the reward of this turn, and whether the dialogue is over."""

    text: str
    state: list[int]
    reward: float
    over: bool


@dataclass(frozen=True)
class Dialogue(Family):
    """A family whose problems are played over several turns. A problem's `question` is the instance: what is hidden, or where it starts."""

    @property
    @abstractmethod
    def turns(self) -> int:
        """The most turns of the policy."""

    @property
    @abstractmethod
    def longest_reply(self) -> int:
        """How many characters a reply has at most."""

    @abstractmethod
    def start(self, instance: str, seed: int) -> Reply:
        """What is said first, and the state it starts from. `seed` is all chance that the other side has."""

    @abstractmethod
    def reply(self, instance: str, state: list[int], said: str) -> Reply:
        """The answer to what the policy said."""

    @abstractmethod
    def expert(self, instance: str, state: list[int]) -> str:
        """What an expert who sees what a policy may know would say in this state; the proof that the problem can be solved."""

    def verify(self, question: str, answer: str) -> float:
        """The reward of a whole dialogue, given as what the policy said, a line per turn."""
        reply = self.start(question, 0)
        for said in answer.splitlines():
            reply = self.reply(question, reply.state, said)
            if reply.over:
                break
        return reply.reward


THINGS = (
    ("colour", ("red", "green", "blue", "black")),
    ("size", ("tiny", "small", "large", "huge")),
    ("stuff", ("iron", "glass", "stone", "paper")),
    ("shape", ("ring", "cube", "cup", "key")),
    ("age", ("new", "old", "ancient", "broken")),
    ("place", ("home", "garden", "office", "harbour")),
)


@dataclass(frozen=True)
class TwentyQuestions(Dialogue):
    """A hidden thing, such as `red tiny iron ring`, with one word for each of three to six kinds of property (two more than the
    difficulty).

    `red?` asks whether a word is true of it; `red tiny iron ring!` is a guess, which ends the dialogue: reward 1 where it is right.
    Every turn counts as one of twenty, also one that cannot be understood.
    """

    @property
    def instruction(self) -> str:
        """What is asked for."""
        return (
            "Find out which thing I think of: one word of each row. Ask for one word with a question mark, such as red?, or guess all "
            "words in the order of the rows with an exclamation mark. You have twenty turns and one guess; say one thing per turn."
        )

    @property
    def turns(self) -> int:
        """Twenty."""
        return 20

    @property
    def longest_reply(self) -> int:
        """What it was, at the end."""
        return 14 + 9 * len(self._kinds)

    @property
    def longest_answer(self) -> int:
        """A guess."""
        return 9 * len(self._kinds)

    @property
    def _kinds(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return THINGS[: self.difficulty + 2]

    def _rows(self) -> str:
        return "\n".join(" ".join(words) for _, words in self._kinds)

    def draw(self, random: np.random.Generator) -> Problem:
        """A thing; asking for it word by word solves it."""
        thing = " ".join(words[random.integers(len(words))] for _, words in self._kinds)
        return Problem(thing, f"{thing}!")

    def start(self, instance: str, seed: int) -> Reply:
        """The words to choose from. The state counts the turns, and holds for every word whether it was asked for."""
        return Reply(self._rows(), [0] * (1 + 4 * len(self._kinds)), 0.0, False)

    def reply(self, instance: str, state: list[int], said: str) -> Reply:
        """`yes` or `no`; what it was at the end."""
        thing, words = instance.split(), [word for _, row in self._kinds for word in row]
        text = final(said).lower()
        state = [state[0] + 1, *state[1:]]
        last = state[0] >= self.turns
        if text.endswith("!"):
            right = text[:-1].split() == thing
            return Reply("right" if right else f"no, {instance}", state, float(right), True)
        word = text.rstrip("?").strip()
        if word not in words:
            return Reply(f"twenty turns, {instance}" if last else "what?", state, 0.0, last)
        state[1 + words.index(word)] = 1
        return Reply(f"twenty turns, {instance}" if last else ("yes" if word in thing else "no"), state, 0.0, last)

    def expert(self, instance: str, state: list[int]) -> str:
        """Ask row by row, the last word of a row never; then guess."""
        thing = instance.split()
        for row, (_, words) in enumerate(self._kinds):
            asked = state[1 + 4 * row : 5 + 4 * row]
            known = asked[words.index(thing[row])] or sum(asked[:3]) == 3
            if not known:
                return f"{words[asked.index(0)]}?"
        return f"{instance}!"


LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))


def _won(board: str, mark: str) -> bool:
    return any(all(board[cell] == mark for cell in line) for line in LINES)


def _put(board: str, cell: int, mark: str) -> str:
    return board[:cell] + mark + board[cell + 1 :]


def _free(board: str) -> list[int]:
    return [cell for cell in range(9) if board[cell] == "."]


_VALUES: dict[tuple[str, str], int] = {}


def value(board: str, mover: str) -> int:
    """What the mover gets under perfect play: 1, 0 or -1. There are fewer than 6,000 boards."""
    if (board, mover) not in _VALUES:
        other = "O" if mover == "X" else "X"
        if _won(board, other):
            _VALUES[board, mover] = -1
        else:
            _VALUES[board, mover] = max((-value(_put(board, cell, mover), other) for cell in _free(board)), default=0)
    return _VALUES[board, mover]


@dataclass(frozen=True)
class TicTacToeByText(Dialogue):
    """The policy plays X and names a field, 1 to 9, row by row; it starts from a board with none, one or two marks of each side.

    The other side moves at random (difficulty 1), completes a row of three where it can (2), also blocks (3), or plays perfectly (from
    4 on). A win is 1, a draw 0.5, a loss 0; a field that is taken or cannot be read loses. No start is lost under perfect play.
    """

    @property
    def instruction(self) -> str:
        """What is asked for."""
        return "We play tic-tac-toe and you are X. The fields are numbered 1 to 9, row by row. Name one free field per turn."

    @property
    def turns(self) -> int:
        """Five marks fill the board for the side that begins."""
        return 5

    @property
    def longest_reply(self) -> int:
        """A board and a word."""
        return 20

    @property
    def longest_answer(self) -> int:
        """A digit."""
        return 4

    def draw(self, random: np.random.Generator) -> Problem:
        """A board on which X is to move and has not lost."""
        while True:
            cells, each = random.permutation(9), int(random.integers(0, 3))
            board = "".join(
                "X" if cell in cells[:each] else "O" if cell in cells[each : 2 * each] else "." for cell in range(9)
            )
            if not (_won(board, "X") or _won(board, "O")) and value(board, "X") >= 0:
                return Problem(board, str(self._best(board, "X") + 1))

    def start(self, instance: str, seed: int) -> Reply:
        """The board. The state is its nine fields and the seed of the other side."""
        if not re.fullmatch(r"[XO.]{9}", instance):
            raise BadInput(f"{instance[:60]!r} is no board: give nine fields of X, O and .")
        return Reply(_drawn(instance), [*(".XO".index(mark) for mark in instance), seed], 0.0, False)

    def reply(self, instance: str, state: list[int], said: str) -> Reply:
        """The board after both have moved."""
        board, seed = "".join(".XO"[mark] for mark in state[:9]), state[9]
        found = re.fullmatch(r"\D*([1-9])\D*", final(said))
        if found is None or board[int(found[1]) - 1] != ".":
            return Reply("not free", state, 0.0, True)
        board = _put(board, int(found[1]) - 1, "X")
        if not _won(board, "X") and _free(board):
            board = _put(board, self._answer(board, np.random.default_rng((seed, len(_free(board))))), "O")
        after = [*(".XO".index(mark) for mark in board), seed]
        if _won(board, "X"):
            return Reply(f"{_drawn(board)}\nX wins", after, 1.0, True)
        if _won(board, "O"):
            return Reply(f"{_drawn(board)}\nO wins", after, 0.0, True)
        over = not _free(board)
        return Reply(f"{_drawn(board)}\ndraw" if over else _drawn(board), after, 0.5 if over else 0.0, over)

    def _answer(self, board: str, random: np.random.Generator) -> int:
        free = _free(board)
        for mark in ("O", "X")[: max(0, min(self.difficulty, 3) - 1)]:
            ends = [cell for cell in free if _won(_put(board, cell, mark), mark)]
            if ends:
                return ends[0]
        return self._best(board, "O") if self.difficulty >= 4 else free[random.integers(len(free))]

    def _best(self, board: str, mover: str) -> int:
        other = "O" if mover == "X" else "X"
        return max(_free(board), key=lambda cell: -value(_put(board, cell, mover), other))

    def expert(self, instance: str, state: list[int]) -> str:
        """A perfect move."""
        return str(self._best("".join(".XO"[mark] for mark in state[:9]), "X") + 1)


def _drawn(board: str) -> str:
    return "\n".join(board[row : row + 3] for row in (0, 3, 6))
