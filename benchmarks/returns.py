"""Returns of the online learners beside published ones after the same number of steps.

    python benchmarks/returns.py sac-halfcheetah td3-hopper --out runs/returns        train, or go on where it was cut short
    python benchmarks/returns.py --table runs/returns --markdown docs/online.md       the table of all that was trained

Each experiment trains five seeds in one program with the settings of the publication, evaluates without noise on ten episodes where
the publication did, and keeps ours as mean and 95% Student interval over seeds beside the published mean and interval; the table says
whether Welch's interval of the difference contains 0.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from tables import table, write_section

import policylab as lab

SEEDS, EPISODES = 5, 10
BEGIN, END = "<!-- returns: begin -->", "<!-- returns: end -->"


@dataclass(frozen=True)
class Published:
    """Mean, standard deviation over runs and number of runs after a number of steps."""

    mean: float
    deviation: float
    runs: int
    source: str


@dataclass(frozen=True)
class Experiment:
    """What is trained: the learner with the publication's settings, random steps before the first update, and what was published
    after how many further steps (for `ppo`: steps in all)."""

    learner: Callable[[], Any]
    task: str
    warmup: int
    published: Mapping[int, Published]


def curve(source: str, runs: int, points: Mapping[int, tuple[float, float]]) -> dict[int, Published]:
    """Published points (mean, deviation) by steps."""
    return {steps: Published(mean, deviation, runs, source) for steps, (mean, deviation) in points.items()}


# Tianshou's benchmark (github.com/thu-ml/tianshou, commit 22c0b9b, examples/mujoco/benchmark/*-v3/result.json): ten seeds, networks of
# 2 x 256, batches of 256, evaluated without noise; its `env_step` counts from the end of the random steps on. SAC there has learning
# rates of 1e-3 and a fixed temperature of 0.2.
TIANSHOU = "Tianshou's benchmark"
# github.com/sfujim/TD3, commit 34770cc, learning_curves: ten seeds, v1 environments; learning rate 1e-3, batches of 100. Its networks have
# 400 and 300 units, ours here 300 and 300.
AUTHORS = "Fujimoto et al. 2018"
CLEANRL = "CleanRL's documentation, returns while training"


def tianshou_sac() -> Any:
    """As in its mujoco_sac.py."""
    return lab.SAC(learning_rate=1e-3, tune=False, temperature=0.2)


def authors_td3() -> Any:
    """As in the paper, but for the width of the first layer."""
    return lab.TD3(learning_rate=1e-3, batch_size=100, width=300, policy=lab.Deterministic(width=300))


def cleanrl_ppo() -> Any:
    """CleanRL's settings for CartPole, but for the clipping of the value's loss and the initial weights."""
    return lab.PPO(
        environments=4, steps=128, batch_size=128, epochs=4, learning_rate=2.5e-4, anneal=True, entropy_weight=0.01, normalise=False
    )  # fmt: skip


EXPERIMENTS = {
    "sac-halfcheetah": Experiment(
        tianshou_sac, "halfcheetah", 10_000,
        curve(TIANSHOU, 10, {
            5_000: (10.2, 23.2), 10_000: (865.4, 486.6), 15_000: (1814.3, 570.1),
            20_000: (2641.1, 503.3), 100_000: (6514.6, 514.2),
        }),
    ),
    "sac-hopper": Experiment(
        tianshou_sac, "hopper", 10_000,
        curve(TIANSHOU, 10, {
            5_000: (275.8, 59.5), 10_000: (282.1, 46.6), 15_000: (336.6, 45.5),
            20_000: (350.8, 59.4), 100_000: (2613.5, 990.8),
        }),
    ),
    "td3-halfcheetah": Experiment(
        lab.TD3, "halfcheetah", 25_000,
        curve(TIANSHOU, 10, {
            5_000: (-491.8, 108.8), 10_000: (-262.0, 291.8), 15_000: (939.4, 527.7),
            20_000: (1252.1, 495.5), 100_000: (5335.8, 376.5),
        }),
    ),
    "td3-hopper": Experiment(
        lab.TD3, "hopper", 25_000,
        curve(TIANSHOU, 10, {
            5_000: (181.2, 11.9), 10_000: (195.6, 28.2), 15_000: (196.3, 38.9),
            20_000: (246.0, 64.8), 100_000: (596.5, 287.8),
        }),
    ),
    "td3-authors-halfcheetah": Experiment(
        authors_td3, "halfcheetah", 10_000,
        curve(AUTHORS, 10, {
            10_000: (476.2, 629.2), 15_000: (1327.4, 409.5), 40_000: (3352.2, 897.4),
            90_000: (5513.5, 583.6), 990_000: (9566.6, 877.9),
        }),
    ),
    "td3-authors-hopper": Experiment(
        authors_td3, "hopper", 1_000,
        curve(AUTHORS, 10, {
            9_000: (132.7, 99.9), 19_000: (150.0, 90.8), 49_000: (285.0, 72.8), 99_000: (659.5, 793.0), 999_000: (3390.8, 398.3),
        }),
    ),
    "ppo-cartpole": Experiment(cleanrl_ppo, "cartpole", 0, curve(CLEANRL, 3, {500_000: (488.75, 18.4)})),
}  # fmt: skip
STEPS = {"cartpole": 500_000, "hopper": 15_000, "halfcheetah": 15_000}


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half the width of Student's 95% interval."""
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def trained(name: str, steps: int, out: Path) -> None:
    """Train one experiment for `steps` steps after the warmup (0: what fits on two cores), or go on with it; it is kept in `out`."""
    experiment = EXPERIMENTS[name]
    task, learner = lab.load_task(experiment.task), experiment.learner()
    steps = steps or STEPS[experiment.task]
    if isinstance(learner, lab.PPO):
        source, per_update = lab.Rollout(task.environment()), learner.environments * learner.steps
    else:
        source, per_update = lab.Replay(task.environment(), capacity=experiment.warmup + steps, warmup=experiment.warmup), 1
    every = int(np.gcd.reduce([at // per_update for at in experiment.published if at <= steps] or [steps // per_update]))
    folder = out / f"{name}-{steps}"
    lab.train(
        learner, source, steps=steps // per_update, seeds=SEEDS, evaluate=task, every=every, episodes=EPISODES, out=folder,
        resume=(folder / "run.json").exists(), progress=True,
    )  # fmt: skip


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """One row for each published point that the run has come to."""
    name, steps = folder.name.rsplit("-", 1)
    experiment, found = EXPERIMENTS[name], []
    per_update = 512 if name == "ppo-cartpole" else 1
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        at = row["step"] * per_update
        published = experiment.published.get(int(steps) if at > int(steps) - per_update else at)
        if published is None or "evaluation" not in row:
            continue
        ours = np.asarray(row["evaluation"]["return"])
        theirs = scipy.stats.t.ppf(0.975, published.runs - 1) * published.deviation / np.sqrt(published.runs)
        test = scipy.stats.ttest_ind_from_stats(
            ours.mean(), ours.std(ddof=1), len(ours), published.mean, published.deviation, published.runs, equal_var=False
        )
        found.append({
            "experiment": name, "steps": at, "warmup": experiment.warmup, "ours": interval(ours), "returns": ours.tolist(),
            "published": (published.mean, float(theirs)), "runs": published.runs, "source": published.source, "p": float(test.pvalue),
        })  # fmt: skip
    return found


def table_of(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    number = lambda pair: f"{pair[0]:,.0f} +- {pair[1]:,.0f}"
    verdict = lambda row: (
        "agrees" if row["p"] >= 0.05 else "**higher**" if row["ours"][0] > row["published"][0] else "**lower**"
    )
    return table(
        ("experiment", "random steps", "steps after them", f"ours, {SEEDS} seeds", "published", "runs", "source", ""),
        [
            (
                row["experiment"], f"{row['warmup']:,}", f"{row['steps']:,}", number(row["ours"]), number(row["published"]),
                row["runs"], row["source"], verdict(row),
            )
            for row in rows
        ],
    )  # fmt: skip


def main() -> None:
    """Train what is named, one after the other, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    parser.add_argument(
        "--steps", type=int, default=0, help="environment steps after the random ones (default: what fits on two cores)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/returns"), help="keep the runs here, and go on with those that are there"
    )
    parser.add_argument("--table", type=Path, help="print the table of all runs in this folder")
    parser.add_argument("--markdown", type=Path, help=f"with --table, write it into this page between {BEGIN} and {END}")
    options = parser.parse_args()
    for name in options.experiments:
        trained(name, options.steps, options.out)
    kept = sorted(path.parent for path in (options.table or options.out).glob("*/metrics.jsonl"))
    rows = [row for folder in kept for row in rows_of(folder)]
    if options.markdown:
        write_section(options.markdown, BEGIN, END, f"{table_of(rows)}\n")
    else:
        print(table_of(rows))


if __name__ == "__main__":
    main()
