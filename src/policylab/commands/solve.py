"""`policylab solve`: from data to the best policy that they can give, with the evidence and a report."""

from __future__ import annotations

import argparse
import contextlib
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path

from policylab import registry
from policylab.commands import inputs, nearest
from policylab.commands.arguments import Parser, duration, names
from policylab.commands.output import Result, claim_place
from policylab.commands.solve_language import language_options, require_no_language, run_language
from policylab.errors import BadInput


def run(argv: Sequence[str]) -> tuple[argparse.Namespace, Result]:
    """Diagnose, shortlist, train, select, confirm on fresh seeds, report."""
    parser = Parser(
        "solve",
        "Diagnoses the data, trains the methods that suit them on several seeds, chooses by selection seeds, retrains the choice on\n"
        "fresh seeds, and reports these numbers alone. Without --task or --environment the report names the strongest evidence that\n"
        "the data allow. `No winner` is a result: every policy is kept and the exit status is 0.",
        "Examples:\n  policylab solve --task pointmaze/umaze --dataset mixed --budget 5min\n"
        "  policylab solve --data my.hdf5 --environment Hopper-v5 --budget 10min --out runs/mine\n"
        "  policylab solve --data prefs.jsonl --model models/small --judge https://host/v1 --judge-model NAME",
        out="the folder of policy, report.html and result.json (default: runs/solve)",
        seed="of splits, training and evaluation: equal numbers give equal results",
    )
    inputs.data_options(parser)
    group = parser.add_argument_group("search")
    group.add_argument(
        "--budget",
        type=duration,
        default="5min",
        metavar="TIME",
        help="training and evaluation on a nominal machine of two cores, as 90s, 10min or 2h; a slower machine takes longer",
    )
    group.add_argument(
        "--methods", type=names, metavar="A,B", help="these learners (policylab learners) in place of the shortlist"
    )
    group.add_argument("--overwrite", action="store_true", help="replace the results of an earlier solve in --out")
    language_options(parser)
    options = parser.read(argv)
    if options.model is not None:
        return options, run_language(options)
    require_no_language(options)
    for name in options.methods or ():
        if name not in registry.LEARNERS:
            hint = nearest(name, registry.LEARNERS, f"choose among {', '.join(registry.LEARNERS)}")
            raise BadInput(f"--methods: there is no learner {name!r}: {hint}")
    place = Path(options.out or "runs/solve")
    earlier = options.overwrite and (place / "result.json").is_file()
    if not earlier:
        hint = "replace the results in it by --overwrite" if (place / "result.json").is_file() else ""
        claim_place(place, folder=True, hint=hint)
    _check_data(options)

    from policylab.solving import solve

    with set_aside(place) if earlier else contextlib.nullcontext():
        solution = solve(
            options.data,
            task=options.task,
            dataset=options.dataset,
            environment=options.environment,
            columns=options.columns,
            format=options.format,
            budget=options.budget,
            methods=options.methods,
            out=place,
            seed=options.seed,
            progress=True,
        )
    return options, Result(solution.to_json(), solution.summary(), written=True)


def _check_data(options: argparse.Namespace) -> None:
    if options.data is None and options.task is None:
        raise BadInput("no data: give --task NAME --dataset NAME, or --data PATH for your own")
    if options.task is not None and options.environment is not None:
        raise BadInput("--task and --environment both say where to evaluate: give one of them")
    if options.task is not None and options.data is None:
        from policylab.tasks.recordings import require_dataset

        task = inputs.named_task(options)
        assert task is not None
        require_dataset(task, options.dataset)


@contextlib.contextmanager
def set_aside(place: Path) -> Generator[None]:
    """Move the earlier results away while new ones are made; they come back if that fails and go if it succeeds."""
    aside = place.with_name(f".{place.name}.earlier")
    if aside.exists():
        raise BadInput(f"{aside} holds results that an interrupted run set aside: move it to {place}, or remove it")
    place.rename(aside)
    try:
        yield
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        aside.rename(place)
        raise
    shutil.rmtree(aside)
