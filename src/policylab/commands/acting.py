"""Learning by acting from the command line: which source the learner gets, and with what settings."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from policylab.commands.arguments import Parser, whole
from policylab.errors import BadInput

if TYPE_CHECKING:
    from policylab.learner import Learner
    from policylab.source import Source
    from policylab.task import Task

_OF_REPLAY = ("warmup", "capacity", "collect", "updates")


def acting_options(parser: Parser) -> None:
    """Add `--online` and the settings of a replay."""
    group = parser.add_argument_group("learning by acting")
    group.add_argument(
        "--online", action="store_true", help="learn from what the learner does itself in --task or --environment, without data"
    )
    group.add_argument("--copies", type=whole(), metavar="N", help="copies of the environment that act at once (default: 1)")
    group.add_argument("--warmup", type=whole(), metavar="N", help="random steps before the first update (default: 5000)")
    group.add_argument("--capacity", type=whole(), metavar="N", help="steps that are kept to learn from (default: 1000000)")
    group.add_argument("--collect", type=whole(), metavar="N", help="steps of every copy each time that it acts (default: 1)")
    group.add_argument("--updates", type=whole(), metavar="N", help="updates between two times of acting (default: 1)")


def check(options: argparse.Namespace) -> None:
    """Raise `BadInput` where `--online` is beside data, or its settings without it."""
    if options.online:
        for name in ("data", "dataset", "columns", "format"):
            if getattr(options, name) is not None:
                raise BadInput(f"--online learns from acting and --{name} from data: give one of them")
        if options.task is None and options.environment is None:
            raise BadInput("where to act? Give --task NAME or --environment ID beside --online")
        return
    for name in ("copies", *_OF_REPLAY):
        if getattr(options, name) is not None:
            raise BadInput(f"--{name} says how to act, which needs --online")


def source_of(options: argparse.Namespace, learner: Learner, task: Task) -> tuple[Source, dict[str, Any]]:
    """A rollout for a learner of its own doing or of whole episodes, a replay for any other, with goals if it asks for some; and what
    it is in numbers, `steps` of every seed over the whole run among them. Raises `BadInput` for settings that the learner's source does not have."""
    environment = task.environment()
    from policylab.learner import WholeEpisodes

    if learner.on_policy or any(isinstance(request, WholeEpisodes) for request in learner.needs.values()):
        from policylab.sources.rollout import Rollout

        for name in ("copies", *_OF_REPLAY):
            if getattr(options, name) is not None:
                own = "; its own --environments says how many copies act" if name == "copies" else ""
                raise BadInput(
                    f"{type(learner).__name__} keeps nothing to learn from again, so that --{name} means nothing{own}"
                )
        request = next(iter(learner.needs.values()))
        length = getattr(request, "future", 0) or task.spec.horizon
        return Rollout(environment), {
            "kind": "rollout",
            "environments": request.count,
            "steps": options.steps * request.count * length,
        }
    from policylab.sources.hindsight import Hindsight
    from policylab.sources.replay import Replay

    aims = any(request.goals is not None for request in learner.needs.values())
    chosen = {name: getattr(options, name) for name in _OF_REPLAY if getattr(options, name) is not None}
    source = (Hindsight if aims else Replay)(environment, environments=options.copies or 1, **chosen)
    moves = -(-source.warmup // source.environments) + source.collect * -(-options.steps // source.updates)
    numbers = {name: getattr(source, name) for name in ("environments", *_OF_REPLAY)}
    return source, {"kind": "replay", **numbers, "steps": moves * source.environments}
