"""The registry of tasks: names and titles here, modules imported when a task is loaded."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from policylab.errors import BadInput

if TYPE_CHECKING:
    from policylab.task import Task

# name of the task -> its module below policylab.tasks, whose `load(name, title)` makes it, and its title.
TASKS = {
    "pointmaze/umaze": ("pointmaze", "a point in a U-shaped maze, 2 forces, -1 per decision until the goal; MuJoCo"),
    "pointmaze/medium": ("pointmaze", "the same in a maze of 8 by 8 cells with wrong turns"),
    "pointmaze/large": ("pointmaze", "the same in a maze of 9 by 12 cells, the longest way"),
    "pendulum": ("pendulum", "pendulum swing-up, 1 torque, 200 steps; Gymnasium's dynamics, compiled"),
    "cartpole": ("cartpole", "cart and pole, 2 choices, up to 500 steps; Gymnasium's dynamics, compiled"),
    "gridworld/rooms": ("tabular", "four rooms, a third of the moves slip, 1 at the goal"),
    "gridworld/cliff": ("tabular", "cliff walk, -1 per step, -100 for a fall"),
    "gridworld/lake": ("tabular", "frozen lake 8 by 8, two thirds of the moves slip, holes end the episode"),
    "gridworld/maze": ("tabular", "a maze with dead ends, -1 per step"),
    "chain": ("tabular", "ten states in a row, the far end is worth 100 times the near one"),
    "riverswim": ("tabular", "six states, swimming up is hard and pays, drifting down is easy and hardly does"),
    "garnet": ("tabular", "a random process of 20 states and 4 actions"),
    "hopper": ("locomotion", "Hopper-v5, 3 torques; data by SAC, D4RL's scale on other dynamics"),
    "halfcheetah": ("locomotion", "HalfCheetah-v5, 6 torques; data by SAC, D4RL's scale on other dynamics"),
    "walker2d": ("locomotion", "Walker2d-v5, 6 torques; data by SAC, D4RL's scale on other dynamics"),
    "text/arithmetic": ("text", "sums in words, 1 if right; difficulty is the number of digits"),
    "text/countdown": ("text", "reach a number with + - * / from given ones, 1 if right; difficulty adds numbers"),
    "text/sorting": ("text", "numbers in order, 1 if right; difficulty adds numbers"),
    "text/retrieval": ("text", "the value of one key among many, 1 if right; difficulty doubles the pairs"),
    "text/maze": ("text", "a walk through a maze drawn in characters, 1 if it arrives; difficulty adds cells"),
    "text/functions": ("text", "a small Python function, 1 if it passes its tests in the sandbox; difficulty adds steps"),
    "text/twenty-questions": ("text", "find a hidden thing in up to 20 turns, 1 if guessed; difficulty adds properties"),
    "text/tic-tac-toe": ("text", "tic-tac-toe in words, 1 for a win, 0.5 for a draw; difficulty is the other side's skill"),
}


def task_names() -> tuple[str, ...]:
    """The names of all tasks, such as `pointmaze/umaze`."""
    return tuple(TASKS)


def load_task(name: str) -> Task:
    """The task of that name. Raises `BadInput` if there is none."""
    if name not in TASKS:
        close = difflib.get_close_matches(name, TASKS, 1)
        hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(TASKS)}"
        raise BadInput(f"there is no task {name!r}: {hint}")
    module, title = TASKS[name]
    return importlib.import_module(f"policylab.tasks.{module}").load(name, title)
