"""Returns of the online learners beside published ones at the same number of steps: `python benchmarks/returns.py ppo-cartpole td3-hopper`.

Each experiment trains five seeds in one program, on a checkpointed run that goes on where it was cut short (`--out`), and prints a
row of a table: ours as mean and 95% Student interval over seeds, the published mean and interval, and whether the two overlap.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.stats

import policylab as lab

SEEDS, EPISODES = 5, 10


@dataclass(frozen=True)
class Published:
    """Mean, standard deviation over runs and number of runs at a number of environment steps."""

    mean: float
    deviation: float
    runs: int
    source: str


# TD3 at 50,000 and 100,000 steps: from the authors' learning curves (github.com/sfujim/TD3, learning_curves, ten seeds each, v1
# environments, evaluated without noise), whose networks are of 400 and 300 units and whose batches are of 100.
_CURVES = "Fujimoto et al. 2018, the authors' learning curves"
REFERENCES = {
    ("td3", "hopper", 50_000): Published(285.0, 72.8, 10, _CURVES),
    ("td3", "hopper", 100_000): Published(659.5, 793.0, 10, _CURVES),
    ("td3", "hopper", 1_000_000): Published(3390.8, 398.3, 10, _CURVES),
    ("td3", "halfcheetah", 50_000): Published(3352.2, 897.4, 10, _CURVES),
    ("td3", "halfcheetah", 100_000): Published(5513.5, 583.6, 10, _CURVES),
    ("td3", "halfcheetah", 1_000_000): Published(9566.6, 877.9, 10, _CURVES),
    ("sac", "hopper", 1_000_000): Published(2310.5, 342.8, 3, "CleanRL's documentation, returns while training"),
    ("sac", "halfcheetah", 1_000_000): Published(9634.9, 1423.7, 3, "CleanRL's documentation, returns while training"),
    ("ppo", "cartpole", 500_000): Published(488.75, 18.4, 3, "CleanRL's documentation, returns while training"),
}


def ppo(steps: int, task: Any) -> tuple[Any, Any, int]:
    """CleanRL's settings for CartPole, but for the clipping of the value's loss and the initial weights."""
    learner = lab.PPO(
        environments=4, steps=128, batch_size=128, epochs=4, learning_rate=2.5e-4, anneal=True, entropy_weight=0.01, normalise=False
    )  # fmt: skip
    return learner, lab.Rollout(task.environment()), steps // (4 * 128)


def off_policy(cls: Callable[[], Any], warmup: int) -> Callable[[int, Any], tuple[Any, Any, int]]:
    """The learner with its defaults, one step and one update at a time, after `warmup` random steps."""

    def made(steps: int, task: Any) -> tuple[Any, Any, int]:
        return cls(), lab.Replay(task.environment(), capacity=steps, warmup=warmup), steps - warmup

    return made


LEARNERS = {"ppo": ppo, "td3": off_policy(lab.TD3, 10_000), "sac": off_policy(lab.SAC, 5_000)}
STEPS = {"cartpole": 500_000, "hopper": 100_000, "halfcheetah": 50_000}


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half the width of Student's 95% interval."""
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def measured(name: str, steps: int, out: Path | None) -> dict[str, Any]:
    """Train and evaluate one experiment."""
    learner_name, task_name = name.split("-")
    task = lab.load_task(task_name)
    steps = steps or STEPS[task_name]
    learner, source, updates = LEARNERS[learner_name](steps, task)
    started = time.perf_counter()
    folder = None if out is None else out / f"{name}-{steps}"
    run = lab.train(
        learner, source, steps=updates, seeds=SEEDS, evaluate=task, episodes=EPISODES, out=folder,
        resume=folder is not None and (folder / "run.json").exists(), progress=True,
    )  # fmt: skip
    ours = np.asarray(run.metrics[-1]["evaluation"]["return"])
    mean, half = interval(ours)
    row: dict[str, Any] = {
        "experiment": name,
        "steps": steps,
        "seeds": SEEDS,
        "returns": ours.tolist(),
        "mean": mean,
        "half": half,
    }
    published = REFERENCES.get((learner_name, task_name, steps))
    if published is not None:
        spread = scipy.stats.t.ppf(0.975, published.runs - 1) * published.deviation / np.sqrt(published.runs)
        row["published"] = {"mean": published.mean, "half": spread, "runs": published.runs, "source": published.source}
        row["overlap"] = bool(abs(mean - published.mean) <= half + spread)
    return row | {"seconds": time.perf_counter() - started, "jax": jax.__version__}


def main() -> None:
    """Run the experiments that are named, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="+", help="LEARNER-TASK, such as ppo-cartpole, td3-hopper, sac-halfcheetah")
    parser.add_argument("--steps", type=int, default=0, help="environment steps (default: what fits on two cores)")
    parser.add_argument("--out", type=Path, help="keep the runs here, and go on with those that are there")
    options = parser.parse_args()
    for name in options.experiments:
        row = measured(name, options.steps, options.out)
        published = row.get("published")
        said = (
            f"{published['mean']:,.0f} +- {published['half']:,.0f} ({published['runs']} runs, {published['source']})"
            if published
            else "none"
        )
        verdict = {True: "yes", False: "no", None: ""}[row.get("overlap")]
        print(f"| {name} | {row['steps']:,} | {row['mean']:,.0f} +- {row['half']:,.0f} | {said} | {verdict} |")
        print(json.dumps(row), file=sys.stderr)


if __name__ == "__main__":
    main()
