"""A run's policies on a task: one list of per-seed numbers per metric of the task."""

from __future__ import annotations

import jax
import numpy as np

from policylab.evaluation.rollouts import evaluate
from policylab.experience import Trials
from policylab.policy import Policy
from policylab.runs import Run
from policylab.task import Task

# Keys of evaluation rollouts; selection and report never share one.
LEARNING_KEY, SELECTION_KEY, REPORT_KEY = 1_000_003, 1_000_033, 1_000_037


def trials_of(run: Run, task: Task, *, episodes: int, key: int = LEARNING_KEY, mode: bool = True) -> Trials:
    """Every seed's policy (its mode unless told otherwise) on the same `episodes` episodes."""
    policy = run.products()["policy"]
    return evaluate(
        modes(policy) if mode else policy, task.environment(), episodes=episodes, seeds=np.asarray(run.seeds),
        key=jax.random.key(key), name=run.name,
    )  # fmt: skip


def modes(policies: Policy) -> Policy:
    """The mode of every one of stacked policies, each found by itself: some look at their numbers to find it."""
    stacked = jax.tree.leaves(policies)
    return jax.vmap(lambda policy: policy.mode())(policies) if stacked else policies.mode()


def evaluate_task(task: Task, run: Run, *, episodes: int) -> dict[str, list[float]]:
    """The task's metrics of every seed, for learning curves."""
    trials = trials_of(run, task, episodes=episodes)
    rows = [task.metric(trials.where(trials.seed == seed)) for seed in run.seeds]
    return {name: [row[name] for row in rows] for name in rows[0]}
