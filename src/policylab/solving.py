"""`solve`: from data, and perhaps a simulator, to the best policy that they can give, with the evidence and a report."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.checkpoints import write_atomically
from policylab.compilation import enable_cache
from policylab.data.recording import Recording
from policylab.data.roles import parse
from policylab.errors import BadInput
from policylab.evidence import likelihood, off_policy, simulator
from policylab.evidence.kinds import Evidence, row_json
from policylab.evidence.plan import Plan, Problem, make_plan, requested, seconds_of, shortlist
from policylab.progress import Progress
from policylab.reporting.insides import insides_of
from policylab.reporting.page import Report, write_report
from policylab.runs import versions
from policylab.task import Task

if TYPE_CHECKING:
    from policylab.reporting.alignment import AlignmentResult


@dataclass(frozen=True)
class Solution:
    """What `solve` found: the winner's name (None: no winner), the evidence, and where everything was written."""

    winner: str | None
    evidence: Evidence
    plan: Plan
    out: Path
    report: Path
    policy: Path | None
    policies: dict[str, Path]
    seconds: float

    def summary(self) -> str:
        """A few lines for a terminal."""
        lines = [self.evidence.verdict, f"report: {self.report}"]
        if self.policy:
            lines.append(f"policy: {self.policy}")
        lines += [f"saved:  {path} ({name})" for name, path in self.policies.items() if path != self.policy]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The whole result; the same arguments and seed give the same document but for `seconds`."""
        return {
            "winner": self.winner, "kind": self.evidence.kind, "verdict": self.evidence.verdict, "unit": self.evidence.unit,
            "confirmed": [row_json(row) for row in self.evidence.confirmed],
            "selection": [row_json(row) for row in self.evidence.selection],
            "differences": [row_json(row) for row in self.evidence.differences],
            "shortlist": [list(row) for row in self.plan.reasons], "steps": self.plan.steps,
            "out": str(self.out), "report": str(self.report), "policy": str(self.policy) if self.policy else None,
            "policies": {name: str(path) for name, path in self.policies.items()}, "seconds": round(self.seconds, 1),
        }  # fmt: skip


def solve(
    data: str | Path | Recording | None = None,
    *,
    task: str | Task | None = None,
    dataset: str | None = None,
    environment: str | None = None,
    columns: Any = None,
    format: str | None = None,
    budget: str | float = "5min",
    methods: Sequence[str] | None = None,
    out: str | Path = "runs/solve",
    seed: int = 0,
    progress: bool = True,
    model: str | Path | None = None,
    **aligned: Any,
) -> Solution | AlignmentResult:
    """The best policy for `data` (a file, folder, Minari id or Recording) or for a task's `dataset`, written to `out`.

    With a task or an `environment` (a Gymnasium id) policies are tried there; without one the strongest evidence that the data
    allow is used: off-policy estimates (rewards and propensities), fitted Q evaluation (rewards), or held-out likelihood.
    `budget` is the time on a nominal two-core machine; `methods` overrides the shortlist. With `model`, a checkpoint folder, `data` are
    judged answers and a better language model is looked for; `aligned` are further options of `aligning.align` then, such as `judging`.
    Raises `BadInput` with one sentence.
    """
    if model is not None:
        return _aligned(data, model, {"task": task, "dataset": dataset, "environment": environment, "format": format}, {
            "columns": columns or {}, "budget": budget, "methods": methods, "out": out, "seed": seed, "progress": progress, **aligned,
        })  # fmt: skip
    if aligned:
        raise BadInput(f"{next(iter(aligned))} is an option for language models: give model=FOLDER as well")
    started = time.perf_counter()
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise BadInput(f"{folder} is not empty: choose another folder with --out, or remove it")
    enable_cache()
    problem = _problem(data, task, dataset, environment, columns, format, seed, progress)
    seconds = seconds_of(budget)
    chosen = requested(methods, problem.recording) if methods else None  # what cannot be is told before anything takes time
    card, picture, advised = _card(problem)
    plan = make_plan(problem.recording, chosen or shortlist(advised), budget=seconds, seed=seed)
    evidence = _judge(problem, plan)
    command = _command({
        "data": data, "task": task, "dataset": dataset, "environment": environment, "columns": columns, "format": format,
        "budget": budget, "methods": methods, "out": out, "seed": seed,
    })  # fmt: skip
    with _all_or_nothing(folder):
        shipped, policies = _save_policies(folder, evidence)
        load = _loading(shipped, policies, problem.recording, sampled=evidence.kind in ("off-policy", "likelihood"))
        report = write_report(folder / "report.html", Report(
            title=f"policylab: {problem.name}", verdict=evidence.verdict, evidence=evidence.words, unit=evidence.unit,
            confirmed=evidence.confirmed, selection=evidence.selection, differences=evidence.differences,
            shortlist=plan.reasons, curves=evidence.curves, profile=evidence.profile, card=card, card_picture=picture,
            frames=evidence.frames, insides=insides_of(evidence.shipped, problem.recording, seed=seed), plan=evidence.plan,
            load=load, repeat=command,
            facts={**plan.describe(), "budget": str(budget), **problem.facts,
                   "machine": f"{os.cpu_count()} cores", **versions()},
        ))  # fmt: skip
        seconds = time.perf_counter() - started
        solution = Solution(evidence.winner, evidence, plan, folder, report, shipped, policies, seconds)
        write_atomically(folder / "result.json", (json.dumps(solution.to_json(), indent=1) + "\n").encode())
    return solution


def _aligned(data: Any, model: str | Path, others: Mapping[str, Any], options: Mapping[str, Any]) -> AlignmentResult:
    from policylab.aligning import align

    for name, value in others.items():
        if value is not None:
            raise BadInput(f"{name} does not go with model: a language model learns from judged answers, data=PATH alone")
    if not isinstance(data, str | Path):
        raise BadInput("a language model learns from a file of judged answers: give data=PATH")
    return align(data, model, **options)


@contextlib.contextmanager
def _all_or_nothing(folder: Path) -> Generator[None]:
    """Whatever goes wrong inside takes back what was written to `folder`, and nothing else: others may have used it meanwhile."""
    there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    earlier = set(folder.iterdir())
    try:
        yield
    except BaseException:
        for path in set(folder.iterdir()) - earlier:
            path.unlink()
        if not there and not earlier:
            folder.rmdir()
        raise


def _problem(data: Any, task: str | Task | None, dataset: str | None, environment: str | None, columns: Any, format: str | None,
             seed: int, progress: bool) -> Problem:  # fmt: skip
    from policylab.data.loading import load
    from policylab.tasks import load_task
    from policylab.tasks.in_environment import InEnvironment

    if isinstance(task, str):
        task = load_task(task)
    if (data is None) == (dataset is None):
        raise BadInput("solve needs data: give --task NAME --dataset NAME, or --data PATH for your own, and not both")
    if dataset is not None:
        if task is None:
            raise BadInput(f"the dataset {dataset!r} belongs to a task: give --task NAME as well")
        if dataset not in task.datasets:
            raise BadInput(
                f"{task.name} has no dataset {dataset!r}: choose one of {', '.join(task.datasets) or 'your own with --data'}"
            )
        return Problem(task.dataset(dataset), f"{task.name}, {dataset}", task, seed, progress)
    if isinstance(data, Recording):
        recording = data
    else:
        expected = environment or (task.spec if task else None)
        recording = load(data, columns=columns, format=format, environment=expected)
    if task is None and environment is not None:
        task = InEnvironment.of(environment)
    name = Path(data).name if isinstance(data, str | Path) else recording.name or "recording"
    return Problem(recording, name, task, seed, progress)


def _judge(problem: Problem, plan: Plan) -> Evidence:
    if problem.task is not None:
        return simulator.judge(problem, plan)
    if problem.recording.reward is not None and "propensity" in problem.recording.extra:
        return off_policy.judge(problem, plan)
    if problem.recording.reward is not None:
        from policylab.evidence import fitted

        return fitted.judge(problem, plan)
    return likelihood.judge(problem, plan)


def _card(problem: Problem) -> tuple[str, bytes, list[tuple[str, str]]]:
    from policylab.evaluation.advice import shortlist as advice
    from policylab.evaluation.diagnosis import diagnose
    from policylab.evaluation.pictures import card_figure

    bar = Progress("the dataset card", 1, enabled=problem.progress)
    scale = problem.task.reference or None if problem.task is not None else None
    card = diagnose(problem.recording, reference=scale, seed=problem.seed)
    picture = card_figure(card, problem.recording)
    bar.advance(1)
    return str(card), picture, advice(card)


def _save_policies(folder: Path, evidence: Evidence) -> tuple[Path | None, dict[str, Path]]:
    """The policy to use as `policy.safetensors`; without a winner every policy, under its method's name."""
    if evidence.shipped:
        name, run, seed = evidence.shipped
        path = run.save_policy(folder / "policy.safetensors", seed=seed)
        return path, {name: path}
    names = {name: "".join(c if c.isalnum() else "-" for c in name).strip("-") for name in evidence.saved}
    return None, {name: run.save_policy(folder / f"policy-{names[name]}.safetensors") for name, run in evidence.saved.items()}


def _loading(shipped: Path | None, policies: Mapping[str, Path], recording: Recording, *, sampled: bool) -> str:
    """The lines that load a policy and let it act as it was judged; for a log, on new rows of it and in its own words."""
    path = shipped or next(iter(policies.values()), None)
    if path is None:
        return ""
    lines = ["import jax", "import policylab as lab"]
    key = "jax.random.key(0)" + (")   # it samples, as it was judged: a new key for every decision" if sampled else ")")
    mode = "" if sampled else ".mode()"
    if recording.spec.encoder:
        lines += [
            "from policylab.policy import actions\n",
            f'policy, spec = lab.load_product("{path}")',
            "encoder = lab.Encoder.of(spec)",
            "observations = encoder.encode(rows)   # new rows of the log: a dict of columns or an Arrow table",
            f"chosen = actions(policy{mode}, observations, key={key}",
            "encoder.decode_action(chosen)   # in the words of the log",
        ]
    else:
        lines += [
            f'\npolicy = lab.load_policy("{path}"){mode}',
            "memory = policy.initial_memory(key=jax.random.key(1))",
            f"action, memory = policy.act(observation, memory, key={key}",
            "# observation and action are in the units of your data",
        ]
    others = [other.name for other in policies.values() if other != path]
    return "\n".join(lines + ([f"# saved beside it: {', '.join(others)}"] if others else []))


def _command(given: Mapping[str, Any]) -> str:
    """The command that gives these results again, or the call, where something was given that only Python can say."""
    from policylab.tasks import TASKS

    named = {name: value for name, value in given.items() if value is not None}
    if isinstance(named.get("task"), Task) and named["task"].name in TASKS:
        named["task"] = named["task"].name
    plain = {name: value for name, value in named.items() if isinstance(value, str | int | float | Path)}
    others = {name: value for name, value in named.items() if name not in plain}
    if set(others) <= {"columns", "methods"}:
        if "columns" in others:
            roles = parse(others["columns"])
            others["columns"] = ",".join(f"{role}={','.join(names)}" for role, names in roles.items())
        others |= {"methods": ",".join(others["methods"])} if "methods" in others else {}
        told = {**named, **plain, **others}
        words = [f"--{name} {shlex.quote(str(value))}" for name, value in told.items()]
        return " ".join(["policylab solve", *words, "--overwrite"])
    shown = {name: repr(str(value) if isinstance(value, Path) else value) for name, value in plain.items()}
    shown |= {name: f"your_{name}" if isinstance(value, Recording | Task) else repr(value) for name, value in others.items()}
    return f"lab.solve({', '.join(f'{name}={shown[name]}' for name in named)})"
