"""`policylab collect`: run a policy in an environment and write what it experiences as a dataset."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policylab.commands import inputs
from policylab.commands.arguments import Parser, whole
from policylab.commands.output import Result, claim_place
from policylab.errors import BadInput

FORMATS = ("columns", "minari", "minari-arrow", "minari-parquet", "d4rl", "npz")


def run(argv: Sequence[str]) -> tuple[argparse.Namespace, Result]:
    """Collect whole episodes."""
    parser = Parser(
        "collect",
        "A saved policy or run, or the word random, plays in --task or --environment; without one, --dataset names one of the task's\n"
        "own: of a scripted controller, or of SAC on its way from random to expert, which is trained for it first.",
        "Examples:\n  policylab collect runs/iql --task pointmaze/umaze --steps 10000 --out data/iql.hdf5\n"
        "  policylab collect random --environment Pendulum-v1 --episodes 20 --out data/random.npz\n"
        "  policylab collect --task pointmaze/umaze --dataset expert --steps 10000 --out data/expert --format minari\n"
        "  policylab collect --task hopper --dataset medium --out data/hopper-medium.hdf5",
        words="[RUN_OR_POLICY]",
        out="the dataset to write: FILE.hdf5, FILE.npz, or a folder (required); what is there already is kept",
        seed="of starts, noise and sampling",
    )
    parser.add_argument(
        "subject", nargs="?", metavar="RUN_OR_POLICY", help="the folder of a run, the file of a saved policy, or random"
    )
    parser.add_argument("--task", metavar="NAME", help="where to play: a task")
    parser.add_argument("--environment", metavar="ID", help="where to play: a Gymnasium environment")
    parser.add_argument(
        "--dataset", metavar="NAME", help="what that dataset of the task is made by (policylab tasks NAME lists them)"
    )
    parser.add_argument("--episodes", type=whole(), metavar="N", help="how many whole episodes")
    parser.add_argument("--steps", type=whole(), metavar="N", help="whole episodes until there are this many steps")
    parser.add_argument(
        "--horizon",
        type=whole(),
        metavar="N",
        help="cut the episodes of --environment after N steps, also where it has no time limit",
    )
    parser.add_argument(
        "--learning",
        type=whole(),
        metavar="N",
        help="train the learner that makes a --dataset for at most N steps (default: 1000000)",
    )
    parser.add_argument("--mode", action="store_true", help="take the policy's mode (default: sample)")
    parser.add_argument(
        "--format", choices=FORMATS, metavar="NAME", help=f"one of {', '.join(FORMATS)} (default: by the ending of --out)"
    )
    parser.add_argument("--learner", metavar="FILE:CLASS", help="your own learner's class, where the run is one of yours")
    options = parser.read(argv)
    _check(options)
    place = Path(options.out)
    claim_place(place)
    recording = _scripted(options) if options.subject is None else _played(options)

    from policylab.data.loading import save

    save(recording, place, options.format)
    return options, _report(recording, place)


def _check(options: argparse.Namespace) -> None:
    if options.out is None:
        raise BadInput("where to? Give --out PATH, such as data/mine.hdf5")
    suffix = Path(options.out).suffix.lower()
    if options.format is None and suffix not in ("", ".hdf5", ".h5", ".npz"):
        raise BadInput(f"the ending of {options.out} names no format: end it in .hdf5 or .npz, name a folder, or give --format")
    if options.task is None and options.environment is None:
        raise BadInput("where to play? Give --task NAME or --environment ID")
    if options.subject is None and options.dataset is None:
        raise BadInput("who plays? Name a run or a saved policy, or with --dataset what makes a task's dataset")
    if options.subject is not None and options.dataset is not None:
        raise BadInput(f"both {options.subject} and --dataset say who plays: give one of them")
    if options.subject is not None and (options.episodes is None) == (options.steps is None):
        raise BadInput("how much? Give either --episodes N or --steps N")
    if options.dataset is not None and (options.task is None or options.episodes is not None):
        raise BadInput("a dataset belongs to a --task and has a number of --steps, not of episodes: give these")
    if options.learning is not None and options.dataset is None:
        raise BadInput("--learning is for a --dataset that a learner makes on its way, such as --task hopper --dataset medium")
    if options.horizon is not None and options.environment is None:
        raise BadInput("a task has its own time limit: give --horizon only with --environment")
    if options.subject is not None:
        inputs.require_subject(options.subject)


def _played(options: argparse.Namespace) -> Any:
    task = inputs.judge(options)
    assert task is not None
    from policylab.collecting import collect

    policy: Any = "random"
    if options.subject != inputs.RANDOM:
        policy, spec = inputs.saved_policy(Path(options.subject), options.learner)
        spec.require(task.spec, ours=options.subject, theirs=task.name)
    return collect(
        policy,
        task,
        options.episodes or 0,
        steps=options.steps or 0,
        mode=options.mode,
        horizon=options.horizon or 0,
        seed=options.seed,
        name=Path(options.out).stem,
        progress=True,
    )


def _scripted(options: argparse.Namespace) -> Any:
    from policylab.tasks.recordings import task_recording

    task = inputs.named_task(options)
    assert task is not None
    return task_recording(
        task, options.dataset, steps=options.steps or 0, seed=options.seed, learning=options.learning or 0, progress=True
    )


def _report(recording: Any, place: Path) -> Result:
    import numpy as np

    from policylab import spaces
    from policylab.commands.figures import figure

    document = {**inputs.describe_recording(recording, recording.name), "path": str(place), "origin": recording.origin}
    lines = [f"{place}: {recording.episodes:,} episodes, {recording.steps:,} steps"]
    if recording.reward is not None:
        ends = np.cumsum(recording.lengths)
        sums = np.add.reduceat(np.asarray(recording.reward, np.float64), ends - recording.lengths)
        document["return"] = {"mean": float(sums.mean()), "low": float(sums.min()), "high": float(sums.max())}
        lines.append(f"  return  mean {figure(sums.mean())}, from {figure(sums.min())} to {figure(sums.max())}")
    if "success" in recording.extra:
        reached = np.maximum.reduceat(np.asarray(recording.extra["success"]), np.cumsum(recording.lengths) - recording.lengths)
        document["success"] = {"successes": int((reached > 0).sum()), "episodes": recording.episodes}
        lines.append(f"  success {int((reached > 0).sum())} of {recording.episodes}")
    learner = "bcq" if isinstance(recording.spec.action, spaces.Discrete) else "iql"
    lines.append(
        f'use it: policylab diagnose {place}, policylab train {learner} --data {place}, policylab.load_data("{place}")'
    )
    return Result(document, "\n".join(lines), written=True)
