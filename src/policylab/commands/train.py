"""`policylab train`: one learner on logged experience or on what it does itself, all seeds in one program."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from policylab.commands import acting, choosing, imagining, inputs, paging
from policylab.commands.arguments import Parser, whole
from policylab.commands.output import Result, claim_place
from policylab.errors import BadInput

_EXAMPLE = 'policylab train iql --task pointmaze/umaze --dataset mixed --steps 20000 --seeds 5 --policy "Gaussian(width=128)"'
_WORDS = {  # of acting, on the page
    "kind": "source", "environments": "copies acting at once", "warmup": "random steps first", "capacity": "steps kept",
    "collect": "steps each time it acts", "updates": "updates between", "steps": "steps taken per seed",
}  # fmt: skip
_ONLINE = "policylab train sac --online --environment Pendulum-v1 --steps 10000 --seeds 3"


def run(argv: Sequence[str]) -> tuple[argparse.Namespace, Result]:
    """Train, save, evaluate."""
    options, learner, label = _read(argv)
    acting.check(options)
    called = options.environment or options.task if options.online else options.dataset or Path(options.data or "data").stem
    place = Path(options.out or f"runs/{label}-{called.replace('/', '-')}")
    claim_place(place, folder=True, resume=options.resume, hint="go on with the run in it by --resume")
    page = paging.place_of_page(options, place)
    material = _acted(options, learner) if options.online else _logged(options)
    material = replace(material, source=imagining.around(learner, material.source))

    from policylab.evaluation.occasional import occasional, told
    from policylab.training import check_fit, train

    check_fit(learner, material.source, options.steps, {})  # before a tracker writes anything
    plays = _learns_policy(learner, material.source)
    task = material.task if options.episodes and plays else None
    rare = occasional(learner, material.source)
    run = train(
        learner,
        material.source,
        steps=options.steps,
        seeds=range(options.seed, options.seed + options.seeds),
        evaluate=task,
        every=options.every,
        episodes=options.episodes,
        out=place,
        resume=options.resume,
        checkpoint_every=options.checkpoint_every,
        trackers=[_without_absent(tracker, rare) for tracker in _trackers(options)],
        progress=True,
    )
    policy = run.save_policy(place / "policy.safetensors", seed=run.seeds[0]) if plays else None
    last = run.metrics[-1]
    last = {**last, "metrics": told(last["metrics"], rare)}
    known = {"rare": rare, "folder": place, "repeat": paging.repeated("train", argv, place)}
    kept = f"the run is whole in {place}, and the same command with --resume tries the page again"
    report, line = paging.written(lambda path: _page(run, path, options, material, known), page, kept)
    return options, _report(run, last, material, task, place, policy, options.episodes, (report, line))


def _page(run: Any, path: Path, options: argparse.Namespace, material: _Material, known: Mapping[str, Any]) -> None:
    """The page about the run."""
    from policylab.evaluation.dynamics import dynamics_of
    from policylab.reporting.subjects import about_data
    from policylab.reporting.trained import Background, report_training

    judge = material.task
    if material.recording is not None:
        facts = about_data(material.recording)
    else:
        acting = {name: value for name, value in material.document["acting"].items() if name != "environment"}
        facts = {
            _WORDS.get(name, name): f"{value:,}" if isinstance(value, int) else str(value) for name, value in acting.items()
        }
    played: dict[str, Any] = {}
    if judge is not None:
        played = {"where": judge.environment(), "place": judge.name, "caution": judge.caution, "episodes": options.episodes}
        played |= {"unit": f"score ({judge.scale})"} if judge.reference else {}
        facts["dynamics"] = dynamics_of(judge)
    background = Background(learned_from=material.called, facts=facts, recording=material.recording, **played, **known)
    report_training(run, path, background)


def _learns_policy(learner: Any, source: Any) -> bool:
    """Whether a policy is among what the learner offers; worlds, encoders and scorers have none, and nothing is played with them."""
    import jax

    from policylab.hyperparameters import traced

    live = traced(learner)
    return "policy" in jax.eval_shape(lambda key: live.products(live.init(source.spec, key=key)), jax.random.key(0))


def _without_absent(tracker: Callable[[dict[str, Any]], None], rare: frozenset[str]) -> Callable[[dict[str, Any]], None]:
    """The tracker, not told of metrics that no update of a row reported."""
    from policylab.evaluation.occasional import told

    return lambda row: tracker({**row, "metrics": told(row["metrics"], rare)})


@dataclass(frozen=True)
class _Material:
    """What is learned from: the source, what it is called, and what a document says of it under `data` or `acting`."""

    source: Any
    name: str
    document: dict[str, Any]
    called: str
    task: Any = None
    recording: Any = None


def _logged(options: argparse.Namespace) -> _Material:
    given = inputs.read_inputs(options)
    document = {"data": inputs.describe_recording(given.recording, given.name)}
    return _Material(given.dataset(), given.name, document, given.name, inputs.judge(options), given.recording)


def _acted(options: argparse.Namespace, learner: Any) -> _Material:
    task = inputs.judge(options)
    assert task is not None
    source, document = acting.source_of(options, learner, task)
    steps = f"{document['steps']:,} steps in {task.name} per seed"
    return _Material(source, steps, {"data": None, "acting": {"environment": task.name, **document}}, task.name, task)


def _read(argv: Sequence[str]) -> tuple[argparse.Namespace, Any, str]:
    name = choosing.first_learner(argv)
    parser = Parser(
        "train",
        "The learner comes first: a name of `policylab learners`, or your own class as mine.py:Mine. All seeds train at once in one\n"
        "compiled program. With --task or --environment every seed's last policy is evaluated.",
        f"Settings of the learner: policylab train NAME --help. Examples:\n  {_EXAMPLE}\n  {_ONLINE}",
        words="LEARNER",
        out="the folder of the run (default: runs/LEARNER-DATA); what is there already is kept",
        seed="number of the first training seed",
    )
    parser.add_argument("name", nargs="?", metavar="LEARNER", help="the learner")
    parser.add_argument("--learner", metavar="FILE:CLASS", help="the learner, in place of the first word")
    inputs.data_options(parser)
    acting.acting_options(parser)
    training = parser.add_argument_group("training")
    training.add_argument("--steps", type=whole(), default=50_000, metavar="N", help="updates of every seed")
    training.add_argument("--seeds", type=whole(), default=5, metavar="N", help="how many training seeds")
    training.add_argument("--every", type=whole(), metavar="N", help="evaluate every N updates too (default: at the end only)")
    training.add_argument(
        "--episodes", type=whole(0), default=20, metavar="N", help="episodes per seed and evaluation; 0 leaves evaluation out"
    )
    training.add_argument(
        "--checkpoint-every", type=whole(), metavar="N", help="updates between checkpoints (default: a tenth of the run)"
    )
    training.add_argument(
        "--resume", action="store_true", help="go on with the run in --out where it stopped, to the same bits"
    )
    training.add_argument("--tensorboard", metavar="FOLDER", help="write the metrics as TensorBoard events too")
    training.add_argument("--wandb", metavar="PROJECT", help="log the metrics to Weights & Biases too")
    paging.page_options(parser, "report.html in the run's folder")
    if name is None:
        options = parser.read(argv)
        raise BadInput("which learner? Name one first, as in `policylab train iql ...`; policylab learners lists them")
    cls = choosing.learner_class(name)
    rows = choosing.add_settings(parser, cls, name)
    parser.usage = f"policylab train {name} [options]"
    parser.prog += f" {name}"
    options = parser.read(argv)
    if options.learner is not None and options.name is not None:
        raise BadInput(f"two learners, {options.name} and {options.learner}: name one")
    label = cls.__name__ if ":" in name else name
    return options, choosing.build(cls, options, rows, label), label


def _trackers(options: argparse.Namespace) -> list[Any]:
    from policylab.trackers import TensorBoard, WeightsAndBiases

    trackers: list[Any] = []
    if options.tensorboard is not None:
        claim_place(Path(options.tensorboard), folder=True, resume=True)
        trackers.append(TensorBoard(options.tensorboard))
    if options.wandb is not None:
        trackers.append(WeightsAndBiases(options.wandb))
    return trackers


def _report(
    run: Any,
    last: Mapping[str, Any],
    material: _Material,
    task: Any,
    place: Path,
    policy: Path | None,
    episodes: int,
    page: tuple[str | None, str],
) -> Result:
    from policylab.commands.figures import figure, summary
    from policylab.evaluation.dynamics import scale_of

    scores = {name: summary(values) for name, values in last.get("evaluation", {}).items()}
    losses = {name: (sum(values) / len(values), values) for name, values in last["metrics"].items()}
    document = {
        **run.describe(),
        **material.document,
        "seconds": last["seconds"],
        "metrics": {name: {"mean": mean, "values": values} for name, (mean, values) in losses.items()},
        "evaluation": None
        if task is None
        else {
            "task": task.name,
            "scale": scale_of(task),
            "episodes": episodes,
            "policy": "mode",
            **{name: row.document for name, row in scores.items()},
        },
        "folder": str(place),
        "policy": None if policy is None else str(policy),
        "report": page[0],
    }
    lines = [
        f"{run.name} on {material.name}: {run.step:,} updates of {len(run.seeds)} seed{'s' * (len(run.seeds) > 1)} in {last['seconds']:.1f} s"
    ]
    lines += ["  " + ", ".join(f"{name} {figure(mean)}" for name, (mean, _) in losses.items())]
    if task is not None:
        lines.append(f"last policies (their mode) on {task.name}, {episodes} episodes per seed; {scale_of(task)}:")
        lines += [f"  {name:<14} {row.text}" for name, row in scores.items()]
    if policy is None:
        lines.append(f"{run.name} learns no policy, so that nothing was played")
    lines.append(f'saved in {place}: policylab.load_run("{place}")' + (f", policylab evaluate {place}" if policy else ""))
    lines += [page[1]] if page[1] else []
    return Result(document, "\n".join(lines), written=True)
