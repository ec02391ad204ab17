"""A point in a maze, steered by forces: Gymnasium-Robotics' PointMaze on MuJoCo, from a start region to a fixed goal cell.

What differs from the registered PointMaze_UMaze-v3 and its sisters, and why:

* The goal lies in one cell, at a place in it that varies by 0.25 m and is part of the observation, and episodes start at the
  far end, as in AntMaze. A policy then learns one long way and not all of them: several methods on several seeds can do that
  in minutes on two cores.
* An action is held for 5 simulator steps, so there are 20 decisions a second, as in AntMaze. At the simulator's own 100 a
  way of two seconds is 110 decisions long, and values do not spread that far in the updates of a short demonstration.
* The reward is -1 per decision until the goal ends the episode (IQL and CQL shift AntMaze's rewards so). A return is minus the
  decisions taken; success is reported beside it.

The dataset `mixed` has no episode that goes the whole way: whoever copies it gets nowhere, whoever joins its pieces arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np

from policylab.data.recording import Recording
from policylab.environments.held import Held, Hurried
from policylab.environments.hosted import Gymnasium
from policylab.environments.hosting import build_by_id
from policylab.errors import BadInput
from policylab.task import Task
from policylab.tasks.caching import cached, require_size
from policylab.tasks.maze import Cell, Maze
from policylab.tasks.pilots import Flight, fly

MAZES = {
    "umaze": ("PointMaze_UMaze-v3", Maze(("#####", "#rr.#", "###.#", "#g..#", "#####"))),
    "medium": (
        "PointMaze_Medium-v3",
        Maze(("########", "#rr##..#", "#..#...#", "##...###", "#..#...#", "#.#..#.#", "#...#.g#", "########")),
    ),
    "large": (
        "PointMaze_Large-v3",
        Maze(
            (
                "############",
                "#r...#.....#",
                "#.##.#.#.#.#",
                "#......#...#",
                "#.####.###.#",
                "#..#.#.....#",
                "##.#.#.#.###",
                "#..#...#.g.#",
                "############",
            )
        ),
    ),
}
HELD, RATE = 5, 20.0  # simulator steps of 10 ms per decision, decisions per second
HORIZON = {"umaze": 60, "medium": 120, "large": 160}
STEPS = {"umaze": 20_000, "medium": 40_000, "large": 60_000}
REFERENCE = {
    "umaze": {"random": -59.24, "expert": -22.47},
    "medium": {"random": -119.54, "expert": -40.66},
    "large": {"random": -159.99, "expert": -59.70},
}
RECIPES = {
    "random": "uniformly random forces from the task's own starts",
    "mixed": "wanderers, pilots that turn back on the way, pilots that start near the goal; no episode goes from start to goal",
    "replay": "the task's own starts, from random forces at the beginning to a steady pilot at the end",
    "noisy": "an unsteady pilot that reaches the goal, with disturbed actions of which 20% are random",
    "expert": "a steady waypoint pilot on the shortest way",
}


@dataclass(frozen=True)
class Build:
    """Makes the simulator of one maze size; `__name__` is what specs call it."""

    size: str

    @property
    def __name__(self) -> str:
        return f"pointmaze/{self.size}"

    def __call__(self, **extra: Any) -> gymnasium.Env:
        """A fresh simulator; `extra` goes to `gymnasium.make`, such as `render_mode`."""
        name, maze = MAZES[self.size]
        arguments = {"continuing_task": False, "maze_map": maze.for_gymnasium()}
        simulator = build_by_id(name, -1, arguments)(**extra)
        return Hurried(Held(simulator, HELD))


@dataclass(frozen=True)
class PointMaze(Task):
    """One maze. `size` is umaze, medium or large; horizons are 3, 6 and 8 simulated seconds, as registered."""

    size: str = "umaze"

    @property
    def maze(self) -> Maze:
        """The map, with start cells and goal cell."""
        return MAZES[self.size][1]

    @property
    def steps(self) -> int:
        """Decisions in a dataset of the default size."""
        return STEPS[self.size]

    def environment(self, instance: int = 0) -> Gymnasium:
        """MuJoCo, hosted. The episode ends at the goal."""
        return Gymnasium(Build(self.size), horizon=HORIZON[self.size], control_rate=RATE)

    @property
    def datasets(self) -> Mapping[str, str]:
        """The recipes and what their pilots do."""
        return RECIPES

    @property
    def reference(self) -> Mapping[str, float]:
        """Mean returns of uniformly random forces and of the steady pilot, as `python -m policylab.tasks.reference NAME` prints."""
        return REFERENCE[self.size]

    def dataset(
        self, name: str, *, steps: int = 0, seed: int = 0, progress: Callable[[int, int], Any] | None = None
    ) -> Recording:
        """About `steps` actions of whole episodes (0: the default size), flown on first use and cached; some seconds.

        `progress(done, total)` is called after every episode. Raises `BadInput` for a name that is not in `datasets`.
        """
        if name not in RECIPES:
            raise BadInput(f"{self.name} has no dataset {name!r}: choose one of {', '.join(RECIPES)}")
        require_size(steps)
        steps = steps or self.steps
        facts = {
            "task": self.name,
            "recipe": name,
            "revision": 4,
            "steps": steps,
            "seed": seed,
            "maze": self.maze.rows,
            "mujoco": version("mujoco"),
            "gymnasium-robotics": version("gymnasium-robotics"),
        }
        return cached(f"{self.name}-{name}", facts, lambda: self._record(name, facts, progress))

    def _record(self, name: str, facts: Mapping[str, Any], progress: Callable[[int, int], Any] | None) -> Recording:
        environment = self.environment()
        (simulator,) = environment.host.borrow(1)
        try:
            columns = fly(
                simulator,
                self.maze,
                plan(name, self.maze, facts["steps"]),
                steps=facts["steps"],
                seed=facts["seed"],
                progress=progress,
            )
        finally:
            environment.host.give_back([simulator])
        reward, terminal, truncated, success = (np.array(column) for column in zip(*columns.rows, strict=True))
        parts = columns.observation[0]
        return Recording(
            observation={part: np.stack([row[part] for row in columns.observation]).astype(np.float32) for part in parts},
            action=np.stack(columns.action),
            reward=reward.astype(np.float32),
            terminal=terminal,
            truncated=truncated,
            lengths=np.array(columns.lengths),
            spec=environment.spec,
            extra={"success": success.astype(np.float32)},
            name=f"{self.name}/{name}",
            origin={"how": f"scripted pilots: {RECIPES[name]}", **facts},
        )


def plan(recipe: str, maze: Maze, steps: int) -> Callable[[np.random.Generator, int], Flight]:
    """Who flies the next episode, given the random numbers and how many steps are done."""
    match recipe:
        case "random":
            return lambda rng, done: Flight(None, (maze.goal,), chance=1.0)
        case "expert":
            return lambda rng, done: Flight(None, (maze.goal,), noise=0.1)
        case "noisy":
            return lambda rng, done: Flight(None, (maze.goal,), noise=0.5, chance=0.2)
        case "replay":
            return lambda rng, done: Flight(None, (maze.goal,), noise=1.0 - done / steps, chance=(1.0 - done / steps) ** 0.5)
        case _:
            return partial(mixed, maze)


def mixed(maze: Maze, rng: np.random.Generator, done: int) -> Flight:
    """A wanderer (60% of the flights), one that turns back on the way (20%), or one that starts in the last third (20%)."""
    far = max(maze.distance(start, maze.goal) for start in maze.cells("r"))
    near = [cell for cell in maze.cells(".") if maze.distance(cell, maze.goal) <= far / 3]
    rest = [cell for cell in maze.cells("r.") if cell != maze.goal]
    kind = rng.choice(["wander", "return", "finish"], p=[0.6, 0.2, 0.2])
    if kind == "finish":
        return Flight(_pick(rng, near), (maze.goal,), noise=0.3)
    if kind == "return":
        turn = _pick(rng, [cell for cell in rest if maze.distance(cell, maze.goal) > far / 3])
        return Flight(None, (turn, _pick(rng, maze.cells("r"))), noise=0.3)
    avoided = [cell for cell in rest if maze.distance(cell, maze.goal) > 1]
    return Flight(_pick(rng, avoided), tuple(_pick(rng, avoided) for _ in range(40)), noise=0.3)


def _pick(rng: np.random.Generator, cells: list[Cell] | tuple[Cell, ...]) -> Cell:
    return cells[rng.integers(len(cells))]


def load(name: str, title: str) -> PointMaze:
    """The task of that name, `pointmaze/SIZE`."""
    return PointMaze(name, title, name.rpartition("/")[2])
