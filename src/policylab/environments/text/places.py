"""Problems of looking up and finding the way: retrieval of values by key, and mazes drawn in characters."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

import numpy as np

from policylab.environments.text.problems import Family, Problem, final
from policylab.errors import BadInput

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_MOVES = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}


@dataclass(frozen=True)
class Retrieval(Family):
    """`ab=17 qx=04 ... qx?`: the value of one key among many; twice as many pairs with every difficulty, four at first."""

    @property
    def instruction(self) -> str:
        """What is asked for."""
        return "Give the value of the key that is asked for at the end, alone on the last line."

    def draw(self, random: np.random.Generator) -> Problem:
        """Pairs with different keys, and one of the keys."""
        count = 2 ** (self.difficulty + 1)
        width = 2 if count <= 128 else 3
        numbers = random.choice(26**width, count, replace=False)
        spelled = ("".join(_LETTERS[number // 26**place % 26] for place in range(width)) for number in numbers)
        keys = {key: f"{value:02d}" for key, value in zip(spelled, random.integers(0, 100, count), strict=True)}
        wanted = list(keys)[random.integers(count)]
        return Problem(" ".join(f"{key}={value}" for key, value in keys.items()) + f" {wanted}?", keys[wanted])

    def verify(self, question: str, answer: str) -> float:
        """1 for the value, digit by digit."""
        pairs, wanted = dict(re.findall(r"([a-z]+)=(\d\d)", question)), re.search(r"\d\d ([a-z]+)\?", question)
        if wanted is None or wanted[1] not in pairs:
            raise BadInput(f"{question[:60]!r} is no question of this family: verify answers with the family that asked")
        return float(final(answer).rpartition("=")[2] == pairs[wanted[1]])

    @property
    def longest_answer(self) -> int:
        """Two digits."""
        return 4


@dataclass(frozen=True)
class Maze(Family):
    """Rows of `#` (wall) and `.` (floor), `S` the start and `G` the goal; three cells in each direction and one more with every
    difficulty, with passages between. The answer is a walk such as `RRDL`; any that ends at the goal counts."""

    @property
    def instruction(self) -> str:
        """What is asked for."""
        return (
            "Walk from S to G over free fields (.), never into a wall (#): U is up, D down, L left, R right, one field each. "
            "Give the letters of the walk alone on the last line."
        )

    def draw(self, random: np.random.Generator) -> Problem:
        """A maze without loops (a random spanning tree of its cells), and the way through it."""
        cells = self.difficulty + 2
        size = 2 * cells - 1
        grid = np.full((size, size), "#")
        grid[0, 0] = "."
        stack = [(0, 0)]
        while stack:
            row, column = stack[-1]
            steps = [
                (down, right)
                for down, right in _MOVES.values()
                if 0 <= row + 2 * down < size
                and 0 <= column + 2 * right < size
                and grid[row + 2 * down, column + 2 * right] == "#"
            ]
            if not steps:
                stack.pop()
                continue
            down, right = steps[random.integers(len(steps))]
            grid[row + down, column + right] = grid[row + 2 * down, column + 2 * right] = "."
            stack.append((row + 2 * down, column + 2 * right))
        places = random.choice(cells * cells, 2, replace=False)
        start, goal = ((2 * int(place // cells), 2 * int(place % cells)) for place in places)
        grid[start], grid[goal] = "S", "G"
        question = "\n".join("".join(row) for row in grid)
        return Problem(question, _way(question))

    def verify(self, question: str, answer: str) -> float:
        """1 for a walk that stays on the floor and ends at the goal."""
        grid, place = _read(question)
        walk = final(answer).replace(" ", "").replace(",", "").upper()
        if not walk or len(walk) > 4 * len(grid) * len(grid[0]):
            return 0.0
        for letter in walk:
            if letter not in _MOVES:
                return 0.0
            place = place[0] + _MOVES[letter][0], place[1] + _MOVES[letter][1]
            if not _free(grid, place):
                return 0.0
        return float(grid[place[0]][place[1]] == "G")

    @property
    def longest_answer(self) -> int:
        """All cells, two steps each."""
        return 2 * (self.difficulty + 2) ** 2


def _read(question: str) -> tuple[list[str], tuple[int, int]]:
    """The rows of the maze in a question, and where it starts."""
    rows = [line for line in question.splitlines() if re.fullmatch(r"[#.SG]+", line.strip())]
    starts = [(row, line.index("S")) for row, line in enumerate(rows) if "S" in line]
    if len(starts) != 1 or sum("G" in line for line in rows) != 1:
        raise BadInput(f"{question[:60]!r} is no maze: verify answers with the family that asked")
    return rows, starts[0]


def _free(grid: list[str], place: tuple[int, int]) -> bool:
    return 0 <= place[0] < len(grid) and 0 <= place[1] < len(grid[place[0]]) and grid[place[0]][place[1]] != "#"


def _way(question: str) -> str:
    """The shortest walk, by breadth-first search."""
    grid, start = _read(question)
    queue, walks = deque([start]), {start: ""}
    while queue:
        place = queue.popleft()
        if grid[place[0]][place[1]] == "G":
            return walks[place]
        for letter, (down, right) in _MOVES.items():
            after = place[0] + down, place[1] + right
            if _free(grid, after) and after not in walks:
                walks[after] = walks[place] + letter
                queue.append(after)
    raise BadInput("the maze has no way from S to G: draw another")
