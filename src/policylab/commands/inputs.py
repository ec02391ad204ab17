"""What several commands read: data and tasks by name, environments by id, runs and policies from disk."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.commands.arguments import Parser
from policylab.errors import BadInput

if TYPE_CHECKING:
    from policylab.data.recording import Recording
    from policylab.experience import Spec
    from policylab.policy import Policy
    from policylab.runs import Run
    from policylab.sources.dataset import Dataset
    from policylab.task import Task


RANDOM = "random"  # the policy of that name needs no file


@dataclass(frozen=True)
class Inputs:
    """The data of a command (with their name), and the task they belong to where one was named."""

    recording: Recording
    name: str
    task: Task | None

    def dataset(self) -> Dataset:
        """The recording on the device."""
        from policylab.sources.dataset import Dataset

        return Dataset.of(self.recording)


def data_options(parser: Parser, *, task_too: bool = True) -> None:
    """Add `--task`, `--dataset`, `--data`, `--columns`, `--format` and `--environment`."""
    group = parser.add_argument_group("data")
    if task_too:
        group.add_argument("--task", metavar="NAME", help="a task, such as pointmaze/umaze (policylab tasks lists them)")
        group.add_argument("--dataset", metavar="NAME", help="one of the task's datasets, made on first use and cached")
    group.add_argument(
        "--data",
        metavar="PATH",
        help="your own data: Minari (folder or id), D4RL-style HDF5, NPZ, CSV, Parquet, JSON lines, LeRobot",
    )
    group.add_argument(
        "--columns",
        metavar="MAP",
        help='which column of a table is what: "observation=x_*,action=a,reward=r,propensity=p,episode=run"',
    )
    group.add_argument("--format", metavar="NAME", help="the format of --data where its name does not tell")
    group.add_argument(
        "--environment",
        metavar="ID",
        help="the Gymnasium environment of the data, such as Hopper-v5: its bounds and time limit",
    )


def read_inputs(options: argparse.Namespace) -> Inputs:
    """The data that `--task NAME --dataset NAME` or `--data PATH` name. Raises `BadInput` where they name none or two."""
    task = named_task(options)
    if options.data is not None:
        if options.dataset is not None:
            raise BadInput("--dataset and --data both name data: give one of them")
        from policylab.data.loading import load

        # The bounds and time limit of the task or environment complete what a file does not say.
        place = judge(options)
        expected = None if place is None else place.spec
        recording = load(options.data, columns=options.columns, format=options.format, environment=expected)
        return Inputs(recording, Path(options.data).stem, task)
    for option in ("columns", "format", "environment"):
        if getattr(options, option, None) is not None:
            acting = (
                ", or --online to learn by acting in it"
                if option == "environment" and getattr(options, "online", None) is not None
                else ""
            )
            raise BadInput(f"--{option} says how to read --data, which is missing: give --data PATH too{acting}")
    if task is None:
        raise BadInput("no data: give --task NAME --dataset NAME, or --data PATH for your own")
    from policylab.tasks.recordings import task_recording

    return Inputs(task_recording(task, options.dataset, progress=True), f"{task.name}/{options.dataset}", task)


def named_task(options: argparse.Namespace) -> Task | None:
    """The task of `--task`, if it was given."""
    if getattr(options, "task", None) is None:
        return None
    from policylab.tasks import load_task

    return load_task(options.task)


def judge(options: argparse.Namespace) -> Task | None:
    """Where policies are evaluated: the task, or `--environment` as a task without reference scores; None without either."""
    from policylab.tasks.in_environment import InEnvironment

    task = named_task(options)
    if task is not None:
        if options.environment is not None:
            raise BadInput("--task and --environment both say where to evaluate: give one of them")
        return task
    if options.environment is None:
        return None
    return InEnvironment.of(options.environment, getattr(options, "horizon", None) or 0)


def describe_recording(recording: Recording, name: str) -> dict[str, Any]:
    """What the data are, for documents."""
    from policylab import spaces

    return {
        "name": name,
        "episodes": recording.episodes,
        "steps": recording.steps,
        "observation": spaces.describe(recording.spec.observation),
        "action": spaces.describe(recording.spec.action),
        "rewards": recording.reward is not None,
    }


def require_subject(subject: str) -> None:
    """Raise `BadInput` unless there is a run or a policy at `subject`, or it is the word random."""
    if subject != RANDOM and not Path(subject).exists():
        raise BadInput(
            f"there is no run or policy at {subject}: give the folder of a run, the file of a saved policy, or the word random"
        )


def saved_run(path: Path, learner: str | None) -> Run:
    """The run in a folder; `learner` is `file.py:Class` for a run of the user's own class."""
    from policylab.runs import load_run

    return load_run(path, learner=_own(path / "checkpoint.safetensors", learner))


def saved_policy(path: Path, learner: str | None) -> tuple[Policy, Spec]:
    """The policy in a file, or of the first seed of the run in a folder, and what it sees and does."""
    from policylab.runs import load_product

    if path.is_dir():
        run = saved_run(path, learner)
        return run.policy(), run.spec
    return load_product(path, learner=_own(path, learner))


def _own(path: Path, learner: str | None) -> Any:
    """The user's own learner as it was saved at `path`, so that its arrays find their places; None for ours."""
    if learner is None:
        return None
    from policylab import documents
    from policylab.commands.choosing import own_class
    from policylab.commands.literals import made

    return made(own_class(learner), [], documents.fields_in(path), learner)
