"""`python -m policylab.tasks.reference NAME ...` measures reference returns: random actions and the scripted pilot."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from policylab.errors import BadInput
from policylab.tasks import load_task
from policylab.tasks.pointmaze import PointMaze
from policylab.tasks.scripted import Scripted

RECIPES = ("random", "expert")
SIZE, SEED = 5, 1  # times the size of the task's datasets; another seed than theirs


def measure(name: str, *, size: int = SIZE, seed: int = SEED) -> dict[str, tuple[float, float, int]]:
    """Mean return, its standard error and the number of episodes of the recipes `random` and `expert`, on a seed of their own."""
    task, rows = load_task(name), {}
    if not isinstance(task, Scripted | PointMaze):
        raise BadInput(f"{name} has no pilot to measure: its references are not ours")
    for recipe in RECIPES:
        returns = task.dataset(recipe, steps=size * task.steps, seed=seed).returns
        rows[recipe] = float(returns.mean()), float(returns.std(ddof=1) / np.sqrt(len(returns))), len(returns)
    return rows


def main(names: Sequence[str]) -> None:
    """Print them, with what the task states."""
    for name in names:
        for recipe, (mean, error, episodes) in measure(name).items():
            stated = load_task(name).reference.get(recipe, float("nan"))
            print(f"{name} {recipe}: {mean:.3f} +- {error:.3f} ({episodes} episodes); stated {stated:.3f}", flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BadInput as error:
        sys.exit(f"policylab: {error}")
