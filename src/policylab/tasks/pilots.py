"""Scripted pilots for the point in a maze: they follow a list of cells by waypoints, more or less steadily."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from policylab.tasks.maze import Cell, Maze

# Gains of the waypoint controller of D4RL (Fu et al. 2020, "D4RL: Datasets for Deep Data-Driven Reinforcement Learning").
PROPORTIONAL, DERIVATIVE, ARRIVED = 10.0, 1.0, 0.5


@dataclass(frozen=True)
class Flight:
    """One episode's plan: the cell it starts in (None: as the task does), the cells to visit in turn, and how unsteady it is.

    `noise` is the standard deviation of an action disturbance that fades over about ten steps; `chance` the probability per
    step of a uniformly random action instead.
    """

    start: Cell | None
    visits: tuple[Cell, ...]
    noise: float = 0.0
    chance: float = 0.0


@dataclass
class Columns:
    """The columns of a Recording as lists."""

    observation: list[Mapping[str, np.ndarray]] = field(default_factory=list)
    action: list[np.ndarray] = field(default_factory=list)
    rows: list[tuple[float, bool, bool, float]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)


class Pilot:
    """Steers towards the centre of the next cell on the shortest way to its current target."""

    def __init__(self, maze: Maze, flight: Flight, rng: np.random.Generator) -> None:
        self.maze, self.flight, self.rng = maze, flight, rng
        self.visits, self.disturbance = list(flight.visits), np.zeros(2)

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """The force to apply, float32 in [-1, 1], for the task's own (unbatched) observation."""
        x, y, speed_x, speed_y = observation["observation"].tolist()
        here = self.maze.cell(x, y)
        while len(self.visits) > 1 and here == self.visits[0]:
            self.visits.pop(0)
        target = self.visits[0]
        if here == target == self.maze.goal:
            aim_x, aim_y = observation["desired_goal"].tolist()
        else:
            aim_x, aim_y = self.maze.centre(self.maze.towards(target)[here])
        force = np.array([PROPORTIONAL * (aim_x - x) - DERIVATIVE * speed_x, PROPORTIONAL * (aim_y - y) - DERIVATIVE * speed_y])
        if self.flight.noise:
            self.disturbance = 0.9 * self.disturbance + self.flight.noise * 0.19**0.5 * self.rng.standard_normal(2)
        if self.flight.chance and self.rng.random() < self.flight.chance:
            return self.rng.uniform(-1.0, 1.0, 2).astype(np.float32)
        # Clipped first, so that the disturbance shows also where the controller asks for more than the motors give.
        return np.clip(np.clip(force, -1.0, 1.0) + self.disturbance, -1.0, 1.0).astype(np.float32)


def fly(
    simulator: gymnasium.Env,
    maze: Maze,
    plan: Callable[[np.random.Generator, int], Flight],
    *,
    steps: int,
    seed: int,
    progress: Callable[[int, int], Any] | None = None,
) -> Columns:
    """Whole episodes, planned one by one, until there are at least `steps` actions. Equal seeds give equal columns."""
    rng, columns, done = np.random.default_rng(seed), Columns(), 0
    while done < steps:
        flight = plan(rng, done)
        start = {} if flight.start is None else {"reset_cell": np.array(flight.start)}
        observation, _ = simulator.reset(seed=int(rng.integers(2**31)), options=start)
        pilot, length, ended = Pilot(maze, flight, rng), 0, False
        columns.observation.append(observation)
        while not ended:
            action = pilot.act(observation)
            observation, reward, terminal, truncated, info = simulator.step(action)
            columns.observation.append(observation)
            columns.action.append(action)
            columns.rows.append((float(reward), terminal, truncated and not terminal, float(info["success"])))
            length, ended = length + 1, terminal or truncated
        columns.lengths.append(length)
        done += length
        if progress is not None:
            progress(min(done, steps), steps)
    return columns
