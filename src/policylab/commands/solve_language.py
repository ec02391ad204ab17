"""`policylab solve --model`: from judged answers to a better language model."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policylab.commands.arguments import Parser, whole
from policylab.commands.output import Result, claim_place
from policylab.errors import BadInput

_OURS = (
    "judge",
    "judge_model",
    "judge_key",
    "judge_budget",
    "judge_prompts",
    "rubric",
    "rank",
    "answer",
    "tune",
    "resume",
    "dry_run",
)


def language_options(parser: Parser) -> None:
    """Add the options that hold where `--model` is given."""
    group = parser.add_argument_group("language models")
    group.add_argument(
        "--model", metavar="FOLDER",
        help="a checkpoint folder of Hugging Face: --data are judged answers then (JSONL, Parquet: prompt, chosen, rejected; or prompt, "
        "completion, label or rating; or messages), --columns maps our names to theirs (chosen=response_1), --methods are among sft, dpo, "
        "ipo, hinge, cdpo, rdpo, kto",
    )  # fmt: skip
    group.add_argument(
        "--judge", metavar="URL|TASK",
        help="who compares answers with the starting model's: an OpenAI-compatible endpoint such as https://host/v1, or a task in words "
        "such as text/sorting whose checker does; without it no winner is named",
    )  # fmt: skip
    group.add_argument("--judge-model", metavar="NAME", help="the endpoint's model")
    group.add_argument(
        "--judge-key", metavar="VARIABLE", help='environment variable with its key (default: OPENAI_API_KEY; "": none)'
    )
    group.add_argument(
        "--judge-budget", metavar="BUDGET", help="the most that may be asked, as '20k calls' or '500 calls, 2M tokens'"
    )
    group.add_argument("--judge-prompts", type=whole(4), metavar="N", help="held-out prompts that are answered (default: 100)")
    group.add_argument("--rubric", metavar="FILE", help="what the judge goes by, in a text file")
    group.add_argument(
        "--rank", type=whole(0), metavar="R", help="of adapters; 0 trains all parameters (default: 16 from 200M parameters on)"
    )
    group.add_argument(
        "--answer", type=whole(), metavar="N", help="longest answer in tokens (default: as the longest of the data)"
    )
    group.add_argument("--tune", action="store_true", help="try three learning rates for every method, on prompts of their own")
    group.add_argument("--resume", action="store_true", help="go on with what is in --out")
    group.add_argument("--dry-run", action="store_true", help="say what would be spent at most, and stop")


def require_no_language(options: argparse.Namespace) -> None:
    """Raise `BadInput` for an option of language models without a model."""
    for name in _OURS:
        if getattr(options, name) not in (None, False):
            raise BadInput(f"--{name.replace('_', '-')} is for language models: give --model FOLDER as well")


def run_language(options: argparse.Namespace) -> Result:
    """Train, compare, report; or say what that would cost."""
    for name in ("task", "dataset", "environment", "format"):
        if getattr(options, name) is not None:
            raise BadInput(f"--{name} does not go with --model: a language model learns from judged answers, --data PATH alone")
    if options.data is None:
        raise BadInput("no data: give --data PATH, judged answers as JSON lines or Parquet")
    place = Path(options.out or "runs/solve")
    if not options.dry_run and not (options.resume or (place / "plan.json").is_file()):
        done = options.overwrite and (place / "result.json").is_file()
        if not done:
            claim_place(place, folder=True)
    from policylab import aligning
    from policylab.evidence.jury import Judging

    told: dict[str, Any] = {
        "where": options.judge, "model": options.judge_model, "key": options.judge_key, "budget": options.judge_budget,
        "prompts": options.judge_prompts, "rubric": _rubric(options.rubric) if options.rubric else None,
    }  # fmt: skip
    judging = Judging(**{name: value for name, value in told.items() if value is not None})
    given: dict[str, Any] = {
        "judging": judging, "budget": options.budget, "methods": options.methods, "columns": _columns(options.columns),
        "rank": options.rank, "answer": options.answer, "tune": options.tune, "seed": options.seed,
    }  # fmt: skip
    if options.dry_run:
        costs = aligning.forecast(options.data, options.model, **given)
        return Result({"forecast": costs.splitlines()}, costs, written=True)
    from policylab.commands.solve import set_aside

    earlier = (
        options.overwrite and not options.resume and ((place / "result.json").is_file() or (place / "plan.json").is_file())
    )
    with set_aside(place) if earlier else contextlib.nullcontext():
        result = aligning.align(
            options.data, options.model, out=place, resume=options.resume, progress=True, repeat=_repeat(options), **given
        )
    return Result(result.to_json(), result.summary(), written=True)


def _columns(text: str | None) -> Mapping[str, str]:
    pairs = [part.partition("=") for part in (text or "").split(",") if part.strip()]
    for name, equals, column in pairs:
        if not (name.strip() and equals and column.strip()):
            raise BadInput(f"--columns {text!r} does not read: write for example chosen=response_1,rejected=response_2")
    return {name.strip(): column.strip() for name, _, column in pairs}


def _rubric(path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the rubric {path} ({type(error).__name__}): give a text file in UTF-8") from None
    if not text:
        raise BadInput(f"the rubric {path} is empty: write down what makes an answer better")
    return text


def _repeat(options: argparse.Namespace) -> str:
    names = ("data", "model", "columns", "budget", "methods", "out", "seed", *_OURS[:-2])
    told = {name: getattr(options, name) for name in names}
    words = []
    for name, value in told.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value not in (None, False):
            words.append(f"{flag} {shlex.quote(','.join(value) if isinstance(value, list) else str(value))}")
    return " ".join(["policylab solve", *words, "--overwrite"])
