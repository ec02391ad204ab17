"""Mazes as text: where the cells lie, and the shortest way from one to another."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from functools import cached_property, lru_cache

Cell = tuple[int, int]


@dataclass(frozen=True)
class Maze:
    """Rows of `#` (wall), `.` (free), `r` (free, episodes start here) and `g` (free, the goal); cells are (row, column)."""

    rows: tuple[str, ...]

    def cells(self, kinds: str = ".rg") -> tuple[Cell, ...]:
        """The cells of these kinds, row by row."""
        return tuple((i, j) for i, row in enumerate(self.rows) for j, kind in enumerate(row) if kind in kinds)

    @cached_property
    def goal(self) -> Cell:
        """The goal's cell."""
        return self.cells("g")[0]

    def centre(self, cell: Cell) -> tuple[float, float]:
        """The cell's centre in metres: cells are 1 m wide, the origin is the maze's middle, y points up."""
        return cell[1] + 0.5 - len(self.rows[0]) / 2, len(self.rows) / 2 - cell[0] - 0.5

    def cell(self, x: float, y: float) -> Cell:
        """The cell that a position in metres lies in."""
        return math.floor(len(self.rows) / 2 - y), math.floor(x + len(self.rows[0]) / 2)

    @lru_cache(maxsize=4096)  # noqa: B019  (mazes are few and live as long as the process)
    def towards(self, target: Cell) -> dict[Cell, Cell]:
        """For every free cell the next one on a shortest way to `target`; breadth first."""
        following, queue, free = {target: target}, deque([target]), set(self.cells())
        while queue:
            i, j = queue.popleft()
            for cell in ((i + 1, j), (i, j + 1), (i - 1, j), (i, j - 1)):
                if cell in free and cell not in following:
                    following[cell] = (i, j)
                    queue.append(cell)
        return following

    def distance(self, start: Cell, target: Cell) -> int:
        """Cells to walk from `start` to `target`."""
        following, steps = self.towards(target), 0
        while start != target:
            start, steps = following[start], steps + 1
        return steps

    def for_gymnasium(self) -> list[list[int | str]]:
        """The map in the form of Gymnasium-Robotics."""
        return [[{"#": 1, ".": 0}.get(kind, kind) for kind in row] for row in self.rows]
