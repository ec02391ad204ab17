"""`solve` for language models: from judged answers to a better model, with the evidence, a report and checkpoint folders."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from policylab import spaces
from policylab.checkpoints import write_atomically
from policylab.compilation import enable_cache
from policylab.data.atomic import atomic
from policylab.data.checkpoint_folders import generation_settings, load_language, save_language
from policylab.data.preferences import Judged, load_judged
from policylab.errors import BadInput, Diverged
from policylab.evidence import alignment, answers
from policylab.evidence.alignment import AlignmentPlan, Candidate
from policylab.evidence.jury import Judging, Jury, decided
from policylab.evidence.plan import seconds_of
from policylab.evidence.steps import Steps
from policylab.policies.language import LanguagePolicy
from policylab.policies.lora import adapt
from policylab.reporting.alignment import AlignmentResult
from policylab.reporting.page import write_report
from policylab.runs import versions
from policylab.training import train


@dataclass(frozen=True)
class _Start:
    """The starting model, the folder's advice on sampling, its type of numbers, and what it makes of held-out answers."""

    policy: LanguagePolicy
    advice: Mapping[str, Any]
    dtype: str
    log_probs: np.ndarray


def align(
    data: str | Path,
    model: str | Path,
    *,
    out: str | Path = "runs/solve",
    judging: Judging = Judging(),
    budget: str | float = "5min",
    methods: Sequence[str] | None = None,
    columns: Mapping[str, str] = {},
    rank: int | None = None,
    answer: int | None = None,
    tune: bool = False,
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
    repeat: str = "",
) -> AlignmentResult:
    """Better models than the checkpoint folder `model` from judged `data` (a file that `load_judged` reads), written to `out`.

    Every method that fits the data is trained with the same updates. The one whose answers to held-out prompts win most often against the
    starting model's is tried once more on fresh prompts, and these numbers alone are reported; without a judge there is no winner. Each
    candidate is a folder in `out/checkpoints`. `rank` is that of adapters (0: all parameters are trained, None: by the model's size),
    `answer` the longest answer in tokens. What will be spent is told first. A stopped run goes on with `resume` and ends as it would have.
    Raises `BadInput` with one sentence, and `Diverged` if every method does.
    """
    started, place = time.perf_counter(), Path(out)
    enable_cache()
    work = _prepare(data, model, judging, budget, methods, columns, rank, answer, tune, seed)
    steps = Steps.begin(place, work.facts(data, model, judging, tune, seed), resume=resume)
    if progress:
        print(work.forecast, file=sys.stderr, flush=True)
    try:
        work.jury.ready(*work.cost, cache=place / "judge.sqlite")
    except BadInput:
        steps.abandon()
        raise

    base = np.asarray(steps.once("start", lambda: _log_probs(work.policy, work, work.held)))
    start = _Start(work.policy, generation_settings(model), work.dtype, base)
    said = {
        "start": steps.once("start-answers", lambda: answers.written(_drawing(start, work.policy, work), work.asked, seed=seed))
    }
    rows: dict[str, dict[str, Any]] = {}
    for candidate in alignment.candidates(work.learn, work.plan, work.names):
        name = candidate.name
        rows[name] = steps.once(
            name, lambda one=candidate: _trained(one, work, start, place, seed=seed, tune=tune, progress=progress)
        )
        if "diverged" not in rows[name]:
            said[name] = steps.once(f"{name}-answers", lambda name=name: _answers(place, name, work, start, seed))
        shutil.rmtree(place / "runs" / name, ignore_errors=True)
    alive = {name: row for name, row in rows.items() if "diverged" not in row}
    if not alive:
        raise Diverged(next(iter(rows.values()))["diverged"])
    verdict = None
    if work.jury:
        verdict = decided(work.jury.compare, {name: said[name] for name in alive}, said["start"], work.prompts)
    agreements = {"start": answers.agreement(work.held, base, None)}
    agreements |= {name: answers.Agreement.of(row["agreement"]) for name, row in alive.items()}
    result = AlignmentResult(
        data=Path(data).name, model=str(model), out=place, winner=verdict.chosen if verdict and verdict.won else None, verdict=verdict,
        agreements=agreements, diverged={name: row["diverged"] for name, row in rows.items() if "diverged" in row},
        checkpoints={name: place / "checkpoints" / name for name in alive}, rates={name: row["learning_rate"] for name, row in alive.items()},
        reasons=tuple((name, alignment.METHODS[name][2]) for name in work.names), prompts=work.prompts, answers=said, card=work.card(),
        judge=work.jury.words(), forecast=work.forecast, repeat=repeat, seconds=time.perf_counter() - started,
        facts={**work.plan.describe(), "budget": str(budget), "seed": str(seed), "machine": f"{os.cpu_count()} cores", **versions()},
    )  # fmt: skip
    write_report(place / "report.html", result.page())
    shutil.rmtree(place / "runs", ignore_errors=True)
    write_atomically(place / "result.json", (json.dumps(result.to_json(), indent=1, allow_nan=False) + "\n").encode())
    return result


def forecast(data: str | Path, model: str | Path, **options: Any) -> str:
    """What `align` with the same arguments would spend at most: updates, tokens, calls. Nothing is spent, and nothing is written."""
    given = {
        "judging": Judging(),
        "budget": "5min",
        "methods": None,
        "columns": {},
        "rank": None,
        "answer": None,
        "tune": False,
        "seed": 0,
    }
    return _prepare(data, model, **{name: options.get(name, value) for name, value in given.items()}).forecast


@dataclass(frozen=True)
class _Work:
    """All that is known before anything is spent."""

    policy: LanguagePolicy
    dtype: str
    learn: Judged[Any]
    tuning: Judged[Any] | None
    held: Judged[Any]
    asked: list[Any]
    prompts: list[str]
    names: tuple[str, ...]
    plan: AlignmentPlan
    jury: Jury
    cost: tuple[int, int]
    forecast: str

    def facts(self, data: str | Path, model: str | Path, judging: Judging, tune: bool, seed: int) -> dict[str, Any]:
        """What has to be the same for a run to be resumed."""
        weights = [[path.name, path.stat().st_size] for path in sorted(Path(model).glob("*.safetensors"))]
        config = (Path(model) / "config.json").read_bytes()
        return {
            "data": _digest(Path(data).read_bytes()), "model": [_digest(config), weights], "methods": list(self.names), "seed": seed,
            "updates": [self.plan.updates, self.plan.batch, self.plan.rank, self.plan.scale, tune],
            "answer": spaces.size(self.plan.spec.action), "judge": [judging.where, judging.model, judging.rubric, judging.prompts],
        }  # fmt: skip

    def card(self) -> str:
        """The data in a few lines."""
        room = spaces.size(self.plan.spec.observation), spaces.size(self.plan.spec.action)
        return (
            f"{self.learn.name}: {len(self.learn) + len(self.held):,} {self.learn.layout}, {len(self.learn):,} to learn from and "
            f"{len(self.held):,} held out, split by prompt\nroom for prompts of {room[0]} tokens and answers of {room[1]}"
        )


def _prepare(
    data: str | Path, model: str | Path, judging: Judging, budget: str | float, methods: Sequence[str] | None, columns: Mapping[str, str],
    rank: int | None, answer: int | None, tune: bool, seed: int,
) -> _Work:  # fmt: skip
    if not Path(model).is_dir():
        raise BadInput(f"there is no folder {model}: give --model the folder of a checkpoint, with config.json and safetensors")
    judged = load_judged(data, columns=columns)
    policy = load_language(model)
    dtype, names = policy.network.architecture.dtype, alignment.fitting(judged, methods)
    spec = alignment.room(judged, policy, answer)
    learn, held = judged.split(alignment.HELD, seed=seed)
    learn, tuning = learn.split(alignment.HELD, seed=seed + 1) if tune else (learn, None)
    plan = alignment.make_plan(learn, spec, policy, methods=len(names), seconds=seconds_of(budget), rank=rank, tune=tune)
    if not plan.rank and dtype != "float32":
        policy = load_language(model, dtype="float32")  # small steps are lost in bfloat16
    policy = dataclasses.replace(policy, answer=spaces.size(spec.action))
    asked = answers.held_prompts(held, judging.prompts)
    order = np.random.default_rng([seed, 1]).permutation(len(asked))
    asked = [asked[i] for i in order]
    prompts = [answers.plain(prompt) for prompt in asked]
    jury = Jury(judging)
    jury.require(prompts)
    longest = 4 * spaces.size(spec.action)
    cost = jury.cost(len(names), prompts, longest)
    calls = f"the judge is asked at most {cost[0]:,} times, about {cost[1]:,} tokens at most" if cost[0] else ""
    told = alignment.forecast(plan, names, prompts=len(prompts), judge=calls)
    return _Work(policy, dtype, learn, tuning, held, asked, prompts, names, plan, jury, cost, told)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _log_probs(policy: LanguagePolicy, work: _Work, judged: Judged[Any]) -> list[float]:
    return answers.log_prob(policy, work.plan.spec, *answers.rows_of(judged)).tolist()


def _drawing(start: _Start, policy: LanguagePolicy, work: _Work) -> LanguagePolicy:
    """How every model writes: as the folder advises, else always the likeliest token."""
    policy = dataclasses.replace(policy, answer=spaces.size(work.plan.spec.action))
    return policy.sampled(**start.advice) if start.advice else policy.mode()


def _answers(place: Path, name: str, work: _Work, start: _Start, seed: int) -> list[str]:
    return answers.written(_drawing(start, load_language(place / "checkpoints" / name), work), work.asked, seed=seed)


def _trained(
    candidate: Candidate, work: _Work, start: _Start, place: Path, *, seed: int, tune: bool, progress: bool
) -> dict[str, Any]:
    """Train one candidate and write its checkpoint folder: its learning rate and its diagnostic, or why it diverged."""
    rank = work.plan.rank
    policy: Any = adapt(start.policy, rank=rank, key=jax.random.key(seed)) if rank else start.policy
    options: dict[str, Any] = {"seeds": [seed], "given": {"start": policy}, "progress": progress}
    try:
        learner = _tuned(candidate, work, start, options) if tune else candidate.learner
        folder = place / "runs" / candidate.name
        run = train(learner, candidate.source, steps=work.plan.updates, out=folder, resume=True, **options)
    except Diverged as problem:
        return {"diverged": str(problem)}
    found = _final(run.policy(), rank)
    checkpoint = place / "checkpoints" / candidate.name
    if not checkpoint.exists():
        with atomic(checkpoint, folder=True) as scratch:
            save_language(found, scratch, advice=start.advice, dtype=start.dtype)
    known = answers.agreement(work.held, np.asarray(_log_probs(found, work, work.held)), start.log_probs)
    rate: Any = learner
    return {"learning_rate": rate.learning_rate, "last": run.metrics[-1]["metrics"], "agreement": dataclasses.asdict(known)}


def _final(policy: Any, rank: int) -> LanguagePolicy:
    return policy.merged() if rank else policy


def _tuned(candidate: Candidate, work: _Work, start: _Start, options: Mapping[str, Any]) -> Any:
    """The learner at that rate of a grid, one for all methods, which agrees best with prompts of their own after a quarter of the updates."""
    assert work.tuning is not None
    tried: list[tuple[float, Any]] = []
    before = np.asarray(_log_probs(start.policy, work, work.tuning))
    for learner in alignment.rates(candidate.learner):
        try:
            run = train(learner, candidate.source, steps=max(1, work.plan.updates // 4), **options)
        except Diverged:
            continue
        log_probs = np.asarray(_log_probs(_final(run.policy(), work.plan.rank), work, work.tuning))
        tried.append((answers.agreement(work.tuning, log_probs, before).value, learner))
    if not tried:
        raise Diverged(
            f"{candidate.name} stopped being finite at every learning rate that was tried: check the data and the model"
        )
    return max(tried, key=lambda one: one[0])[1]
