"""`policylab evaluate`: how good a trained run or a saved policy is, on episodes that no learning has seen."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.commands import inputs, paging
from policylab.commands.arguments import Parser, real, whole
from policylab.commands.output import Result, claim_place
from policylab.errors import BadInput

if TYPE_CHECKING:
    from policylab.experience import Spec, Trials
    from policylab.task import Task


_RATE = 10.0  # pictures a second where the environment does not say how many steps a second has


def run(argv: Sequence[str]) -> tuple[argparse.Namespace, Result]:
    """Play whole episodes and report the mean, its interval and the successes."""
    parser = Parser(
        "evaluate",
        "A run plays with every seed's last policy; its interval is over seeds. A single policy's interval is over episodes.",
        "Example:\n  policylab evaluate runs/iql --task pointmaze/umaze --episodes 100\n"
        "  policylab evaluate runs/sac --environment HalfCheetah-v5 --episodes 10 --render film.mp4",
        words="RUN_OR_POLICY",
        seed="numbers the block of episodes: equal numbers meet equal starts, whoever plays (common random numbers)",
    )
    parser.add_argument(
        "subject",
        metavar="RUN_OR_POLICY",
        help="the folder of a run, the file of a saved policy, the checkpoint folder of a language model, or random",
    )
    parser.add_argument(
        "--task", metavar="NAME", help="where to play: a task, which also scores from 0 (random) to 100 (expert)"
    )
    parser.add_argument("--environment", metavar="ID", help="where to play: a Gymnasium environment such as Hopper-v5")
    parser.add_argument(
        "--horizon",
        type=whole(),
        metavar="N",
        help="cut the episodes of --environment after N steps, also where it has no time limit",
    )
    parser.add_argument("--episodes", type=whole(), default=100, metavar="N", help="episodes of every seed")
    parser.add_argument("--sample", action="store_true", help="let policies sample their actions (default: take their mode)")
    parser.add_argument(
        "--render",
        metavar="FILE",
        help="write a film of the first seed's policy, FILE.gif or FILE.mp4: --films episodes played for it",
    )
    parser.add_argument(
        "--films", type=whole(), default=1, metavar="N", help="episodes that --render shows, one after the other"
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write a page about it, FILE.html: the numbers, an episode, and what goes on inside of the first seed's policy",
    )
    parser.add_argument("--level", type=real(0, 1), default=0.95, metavar="P", help="of the intervals")
    parser.add_argument("--learner", metavar="FILE:CLASS", help="your own learner's class, where the run is one of yours")
    options = parser.read(argv)
    if options.task is None and options.environment is None:
        parser.error("where to evaluate? Give --task NAME or --environment ID")
    if options.horizon is not None and options.environment is None:
        raise BadInput("a task has its own time limit: give --horizon only with --environment")
    if options.out:
        claim_place(Path(options.out))
    if options.render:
        from policylab.evaluation.film import require_kind

        claim_place(require_kind(options.render))
    if options.report:
        claim_place(paging.require_page(options.report))
    inputs.require_subject(options.subject)

    task = inputs.judge(options)
    assert task is not None
    if options.subject == inputs.RANDOM:
        from policylab.policies.uniform import UniformRandom

        policies, seeds, name, options.sample = UniformRandom(task.spec.action), (0,), inputs.RANDOM, True
    else:
        place = Path(options.subject)
        if (place / "config.json").is_file():
            task, policies = _language(place, task)
            seeds, name = (0,), place.name
        else:
            policies, spec, seeds, name = _subject(place, options.learner)
            spec.require(task.spec, ours=str(place), theirs=task.name)
    trials = _play(policies, task, seeds, options, name)
    result = _report(trials, task, seeds, options)
    result = _filmed(result, policies, task, options) if options.render else result
    return options, _paged(result, policies, task, trials, options, argv) if options.report else result


def _paged(
    result: Result, policies: Any, task: Task, trials: Trials, options: argparse.Namespace, argv: Sequence[str]
) -> Result:
    import shlex

    import jax

    from policylab.reporting.evaluated import report_evaluation

    policy = policies if options.subject == inputs.RANDOM else jax.tree.map(lambda leaf: leaf[0], policies)
    if Path(options.subject).is_dir():
        policy = inputs.saved_run(Path(options.subject), options.learner)
    report_evaluation(
        policy, task, options.report, seed=options.seed, sample=options.sample, horizon=options.horizon or 0, trials=trials,
        repeat=shlex.join(["policylab", "evaluate", *argv]),
    )  # fmt: skip
    document = {**result.document, "report": options.report}
    return replace(result, document=document, text=f"{result.text}\n  report    {options.report}")


def _subject(place: Path, learner: str | None) -> tuple[Any, Spec, tuple[int, ...], str]:
    """Stacked policies, their spec and training seeds, and a name."""
    import jax

    if place.is_dir():
        run = inputs.saved_run(place, learner)
        products = run.products()
        if "policy" not in products:
            raise BadInput(f"{place} holds a run of {run.name}, which learns no policy: it offers {', '.join(products)}")
        return products["policy"], run.spec, run.seeds, run.name
    policy, spec = inputs.saved_policy(place, learner)
    return jax.tree.map(lambda leaf: leaf[None], policy), spec, (0,), place.stem


def _language(place: Path, task: Task) -> tuple[Task, Any]:
    """The task in the tokens of the language model in a checkpoint folder, and the model, drawing as its makers advise."""
    import jax

    from policylab import spaces
    from policylab.data.checkpoint_folders import generation_settings, load_language
    from policylab.tasks.text import TextTask

    if not isinstance(task, TextTask):
        raise BadInput(
            f"{place} is a language model and {task.name} is no task in words: choose one of text/... (policylab tasks)"
        )
    policy = load_language(place)
    task = replace(task, tokenizer=policy.tokenizer)
    prompt, answer = spaces.size(task.spec.observation), spaces.size(task.spec.action)
    if prompt + answer > policy.network.architecture.context:
        raise BadInput(
            f"{task.name} takes {prompt} tokens of prompt and {answer} of answer, more than the model's context of "
            f"{policy.network.architecture.context}: choose a model with a longer one"
        )
    policy = policy.sampled(**generation_settings(place), answer=answer)
    return task, jax.tree.map(lambda leaf: leaf[None], policy)


def _play(policies: Any, task: Task, seeds: tuple[int, ...], options: argparse.Namespace, name: str) -> Trials:
    import jax

    from policylab.evaluation.rollouts import evaluate
    from policylab.evaluation.task_scores import REPORT_KEY, modes

    return evaluate(
        policies if options.sample else modes(policies),
        task.environment(),
        episodes=options.episodes,
        seeds=seeds,
        horizon=options.horizon or 0,
        key=jax.random.fold_in(jax.random.key(REPORT_KEY), options.seed),
        name=name,
    )


def _filmed(result: Result, policies: Any, task: Task, options: argparse.Namespace) -> Result:
    import jax

    from policylab.evaluation.film import save_film
    from policylab.evaluation.frames import frames

    policy = policies if options.subject == inputs.RANDOM else jax.tree.map(lambda leaf: leaf[0], policies)
    policy = policy if options.sample else policy.mode()
    environment, found = task.environment(), []
    horizon = options.horizon or task.spec.horizon or 1_000
    for number in range(options.films):
        found += frames(policy, environment, seed=options.seed + number, most=horizon, horizon=horizon)
    save_film(found, options.render, rate=task.spec.control_rate or _RATE)
    text = f"{result.text}\n  film      {options.render}: {len(found):,} pictures"
    return replace(result, document={**result.document, "film": {"file": options.render, "pictures": len(found)}}, text=text)


def _report(trials: Trials, task: Task, seeds: tuple[int, ...], options: argparse.Namespace) -> Result:
    import numpy as np

    from policylab.commands.figures import figure, summary
    from policylab.evaluation.dynamics import dynamics_of, scale_of
    from policylab.evaluation.statistics import wilson

    name = str(trials.policy[0])
    unit = "seed" if len(seeds) > 1 else "episode"
    # One training seed says nothing about training again: its interval is that of this one policy, over episodes.
    gather = lambda values: np.asarray(values).reshape(len(seeds), -1).mean(axis=1) if unit == "seed" else np.asarray(values)
    rows = {"return": gather(trials.matrix(name).reshape(-1))}
    if task.reference:
        rows["score"] = gather(task.score(trials.matrix(name).reshape(-1)))
    numbers = {label: summary(values, options.level, unit=unit) for label, values in rows.items()}
    document: dict[str, Any] = {
        "policy": options.subject,
        "task": task.name,
        "dynamics": dynamics_of(task),
        "scale": scale_of(task),
        "action": "sampled" if options.sample else "mode",
        "seeds": list(seeds),
        "episodes": options.episodes,
        "unit": unit,
        **{label: number.document for label, number in numbers.items()},
        "length": {"mean": float(np.mean(trials.length))},
        "success": None,
    }
    lines = [
        f"{options.subject} on {task.name}: {'sampled actions' if options.sample else 'the mode'}, "
        f"{options.episodes} episodes of {len(seeds)} seed{'s' * (len(seeds) > 1)}; {scale_of(task)}"
    ]
    lines += [f"  {label:<9} {number.text}" for label, number in numbers.items()]
    successes = trials.matrix(name, "success")
    if np.isfinite(successes).all():
        k, n = int(successes.sum()), successes.size
        found = wilson(k, n, options.level)
        document["success"] = {
            "successes": k,
            "episodes": n,
            "rate": found.value,
            "interval": [found.low, found.high],
            "method": "wilson",
            "per_seed": [int(row.sum()) for row in successes],
        }
        note = "" if len(seeds) == 1 else "; Wilson over all episodes: of these policies, not of training again"
        lines.append(f"  success   {k} of {n}  [{found.low:.3f}, {found.high:.3f}]{note}")
    lines.append(f"  length    {figure(float(np.mean(trials.length)))} steps")
    if unit == "seed":
        lines.append(
            "  per seed  "
            + "  ".join(f"{seed}: {figure(value)}" for seed, value in zip(seeds, rows.get("score", rows["return"])))
        )
    return Result(document, "\n".join(lines))
