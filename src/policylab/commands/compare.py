"""`policylab compare`: several learners on equal terms."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.commands import choosing, inputs, literals, paging
from policylab.commands.arguments import Parser, real, whole
from policylab.commands.output import Result, claim_place, write_document
from policylab.errors import BadInput

if TYPE_CHECKING:
    from policylab.tuning import Grid

_EXAMPLE = """policylab compare iql bc td3-bc --task pendulum --dataset mixed --seeds 10 --steps 5000 --tune learning-rate=1e-4,3e-4
  policylab compare bc "bold=iql(expectile=0.9)" mine.py:Mine --task pointmaze/umaze --dataset mixed"""


def run(argv: Sequence[str]) -> tuple[argparse.Namespace, Result]:
    """Compare arms."""
    options = _parser().read(argv)
    place = None if options.out is None else Path(options.out)
    if place is not None:
        claim_place(place, folder=True, resume=options.resume, hint="go on with the runs in it by --resume")
    elif options.resume:
        raise BadInput("--resume goes on with the runs in a folder: give it with --out")
    page = paging.place_of_page(options, place)
    arms: dict[str, Any] = {}
    for text in options.arms:
        name, learner = choosing.written_out(text)
        if name in arms:
            raise BadInput(f"two arms are called {name!r}: name one of them, as in other={text}")
        arms[name] = learner
    tune = _grids(options.tune, arms)
    tasks, data = _tasks_and_data(options)

    from policylab.comparing import compare

    comparison = compare(
        arms,
        tasks,
        data=data,
        seeds=range(options.seed, options.seed + options.seeds),
        steps=options.steps,
        episodes=options.episodes,
        tune=tune,
        tuning_seeds=options.tuning_seeds,
        level=options.level,
        sample=options.sample,
        every=options.every,
        out=place,
        resume=options.resume,
        progress=True,
    )
    document = comparison.to_json()
    text = str(comparison)
    if place is not None:
        (place / "comparison.json").unlink(missing_ok=True)  # that of an interrupted comparison which this one has completed
        write_document(place / "comparison.json", document)
        text += f"\nruns and comparison.json are in {place}"
    kept = "the comparison is not lost" if place is None else f"all runs and comparison.json are in {place}"
    report, line = paging.written(
        lambda path: _page(comparison, path, paging.repeated("compare", argv, place), place), page, kept
    )
    return options, Result({**document, "report": report}, f"{text}\n{line}" if line else text, written=True)


def _page(comparison: Any, path: Path, repeat: str, folder: Path | None) -> None:
    """The page about the comparison."""
    from policylab.reporting.compared import report_comparison

    report_comparison(comparison, path, repeat=repeat, folder=folder)


def _parser() -> Parser:
    parser = Parser(
        "compare",
        "Every arm gets the same data, updates, seeds and, with --tune, the same number of trials on seeds of their own. Reported are\n"
        "the last policies; the first arm is the one that the others are compared with, paired by seed, corrected by Holm.",
        f"Examples:\n  {_EXAMPLE}",
        words="ARM ARM ...",
        out="a new folder for all runs, comparison.json and report.html (default: keep nothing)",
        seed="number of the first training seed",
    )
    parser.add_argument(
        "arms", nargs="+", metavar="ARM", help="a learner, with settings as in iql(expectile=0.9); NAME=ARM gives it a name"
    )
    group = parser.add_argument_group("tasks and data")
    group.add_argument("--task", action="append", metavar="NAME", help="a task; several times for several")
    group.add_argument(
        "--environment", metavar="ID", help="instead of a task: a Gymnasium environment, compared by its returns"
    )
    group.add_argument("--dataset", metavar="NAME", help="the dataset of every task")
    group.add_argument("--data", metavar="PATH", help="your own data for the one task or environment")
    group.add_argument("--columns", metavar="MAP", help="which column of a table is what, as for train")
    group.add_argument("--format", metavar="NAME", help="the format of --data where its name does not tell")
    terms = parser.add_argument_group("terms")
    terms.add_argument("--seeds", type=whole(2), default=10, metavar="N", help="reported training seeds")
    terms.add_argument("--steps", type=whole(), default=50_000, metavar="N", help="updates of every run")
    terms.add_argument("--episodes", type=whole(), default=50, metavar="N", help="episodes per seed and task")
    terms.add_argument(
        "--every",
        type=whole(),
        metavar="N",
        help="evaluate the reported runs every N updates too, for the page's learning curves",
    )
    terms.add_argument("--sample", action="store_true", help="let policies sample their actions (default: take their mode)")
    terms.add_argument("--level", type=real(0, 1), default=0.95, metavar="P", help="of the intervals, together")
    terms.add_argument(
        "--tune",
        action="append",
        metavar="SETTING=A,B",
        help="try these values, all combinations; ARM.SETTING=A,B for one arm (every arm must get as many trials)",
    )
    terms.add_argument("--tuning-seeds", type=whole(), default=3, metavar="N", help="training seeds of every trial")
    terms.add_argument("--resume", action="store_true", help="go on with the runs in --out")
    paging.page_options(parser, "report.html in --out")
    return parser


def _tasks_and_data(options: argparse.Namespace) -> tuple[list[Any], dict[str, Any]]:
    if options.environment is not None and options.task:
        raise BadInput("--task and --environment both say where to compare: give one of them")
    if options.environment is None and not options.task:
        raise BadInput("where to compare? Give --task NAME or --environment ID")
    if len(set(options.task or ())) < len(options.task or ()):
        raise BadInput("a task was named twice: give each once")
    if options.data is not None and len(options.task or ()) > 1:
        raise BadInput("--data belongs to one task: compare on one task at a time, or name a --dataset that all tasks have")
    if options.environment is not None and options.data is None:
        raise BadInput(f"{options.environment} comes without data: give --data PATH")
    single = argparse.Namespace(**{**vars(options), "task": None if options.environment else options.task[0]})
    if options.data is not None:
        task = inputs.judge(single)
        assert task is not None
        return [task], {task.name: inputs.read_inputs(single).recording}
    for option in ("columns", "format"):
        if getattr(options, option) is not None:
            raise BadInput(f"--{option} says how to read --data, which is missing: give --data PATH too")
    from policylab.tasks import load_task
    from policylab.tasks.recordings import require_dataset

    tasks = [load_task(name) for name in options.task]
    for task in tasks:
        require_dataset(task, options.dataset)
    return tasks, dict.fromkeys(options.task, options.dataset)


def _grids(texts: Sequence[str] | None, arms: dict[str, Any]) -> dict[str, Grid] | None:
    """One grid per arm, from the words of `--tune`; None without them."""
    if not texts:
        return None
    from policylab.tuning import Grid

    values: dict[str, dict[str, list[Any]]] = {name: {} for name in arms}
    for text in texts:
        target, separator, listed = text.partition("=")
        arm, dot, setting = target.rpartition(".")
        if not separator or (dot and arm not in arms):
            raise BadInput(
                f"--tune {text!r} does not read: write SETTING=A,B or ARM.SETTING=A,B with one of the arms {', '.join(arms)}"
            )
        for name in [arm] if dot else arms:
            rows = {row["name"]: row for row in choosing.settings_of(type(arms[name]))}
            row = rows.get(setting.replace("-", "_"))
            if row is None:
                hint = choosing.nearest(setting, rows, f"it has {', '.join(rows)}")
                raise BadInput(f"--tune: {name} has no setting {setting!r}: {hint}")
            values[name][row["name"]] = [
                literals.setting_value(item, row["type"], f"--tune {setting}") for item in _split(listed)
            ]
    return {name: Grid(**found) for name, found in values.items()}


def _split(text: str) -> list[str]:
    """The text at its commas, but for those in brackets."""
    items, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            items.append("")
        else:
            items[-1] += letter
    return [item.strip() for item in items]
