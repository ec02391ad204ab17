"""Which scale and which dynamics a score belongs to: scores of another simulator or version are never the benchmark's own."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policylab.task import Task

# Gymnasium's versions of the MuJoCo tasks that the published D4RL scores belong to: everything later has other dynamics.
_MUJOCO = (
    "hopper",
    "halfcheetah",
    "walker2d",
    "ant",
    "humanoid",
    "swimmer",
    "reacher",
    "pusher",
    "pointmaze",
    "antmaze",
    "invert",
)


def dynamics_of(task: Task) -> str:
    """The environment's versioned id and, where MuJoCo moves it, MuJoCo's version."""
    name = task.spec.environment or task.name
    if not name.lower().startswith(_MUJOCO):
        return name
    try:
        return f"{name} on MuJoCo {version('mujoco')}"
    except PackageNotFoundError:
        return name


def scale_of(task: Task) -> str:
    """What a task's score means, for labels: `score: 0 = random, 100 = expert, Hopper-v5 on MuJoCo 3.3.2`, or `return` without
    reference returns. Never called a D4RL score: those belong to the dynamics that D4RL recorded."""
    if not task.reference:
        return f"return, {dynamics_of(task)}"
    return f"score: {task.scale}, {dynamics_of(task)}"
