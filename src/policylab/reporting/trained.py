"""The report of a training: what was trained on what, what its policies earn seed by seed, its curves, and what goes on inside of one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from policylab import spaces
from policylab.data.recording import Recording
from policylab.environment import Environment
from policylab.errors import BadInput
from policylab.evaluation.statistics import interval
from policylab.policy import Policy
from policylab.reporting import markup
from policylab.reporting.insides import Moment, Picture, insides, insightful, middle_of_an_episode, moment_of
from policylab.reporting.markup import Section, number
from policylab.reporting.page import Report, write_report
from policylab.reporting.run_curves import evaluation_curves, metric_sections, silent, without_copies
from policylab.reporting.settings import differing, every, shown
from policylab.runs import Run, versions

_WORDS = ("95% interval", "over")
_SIDE_BY_SIDE = 8  # seeds that fit in one table beside the mean


@dataclass(frozen=True)
class Background:
    """What a run does not know of itself. `learned_from` names its data or environment, `facts` say more of them; `where` is where its
    policies were evaluated, `unit` what their scores are; `rare` the metrics that only some updates report (None: not known)."""

    learned_from: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    recording: Recording | None = None
    where: Environment | None = None
    place: str = ""
    unit: str = ""
    caution: str = ""
    episodes: int = 0
    rare: Collection[str] | None = None
    folder: Path | None = None
    repeat: str = ""


def report_training(run: Run, path: str | Path, known: Background = Background()) -> Path:
    """Write a page about a run to `path`: nothing is played for it but one episode, where there is an inside to be seen in its middle.

    Raises `BadInput` if the report's extra is not installed.
    """
    found = _evaluation(run, known)
    pictures, missing = _pictures(run, known)
    offered = run.products(seed=run.seeds[0])
    title = f"{run.name} on {known.learned_from}" if known.learned_from else run.name
    page = Report(
        f"policylab: {title}", _verdict(run, known, found, "policy" in offered), _evidence(run, known, found, "policy" in offered), "",
        found=[*_cautions(run, known), *_tables(run, known, found)], insides=pictures,
        background=[*evaluation_curves(run), *metric_sections(run, known.rare), *about(run, known), *_loading(run, known, offered)],
        glossary=_WORDS if found else (), repeat=known.repeat or _call(run),
        facts={**_circumstances(run), **{f"no picture {i + 1}": why for i, why in enumerate(missing)}, **versions()},
    )  # fmt: skip
    return write_report(path, page)


def _evaluation(run: Run, known: Background) -> dict[str, list[float]]:
    """The last evaluation, without a score that is the return by another name."""
    rows = run.evaluations
    found = dict(rows[-1]["evaluation"]) if rows and rows[-1]["step"] == run.step else {}
    return without_copies(found)


def _headline(names: Collection[str]) -> str:
    return next((name for name in ("score", "return") if name in names), next(iter(names)))


def _unit(name: str, known: Background) -> str:
    return known.unit if known.unit and name == "score" else name


def _verdict(run: Run, known: Background, found: Mapping[str, Sequence[float]], policy: bool) -> str:
    what = f"{run.name}{f' on {known.learned_from}' if known.learned_from else ''}"
    trained = f"{what}: {run.step:,} updates of {_seeds(run)}"
    if not policy:
        return f"{trained}. It learns no policy, so that nothing was played; it offers {', '.join(run.products(seed=run.seeds[0]))}."
    if not found:
        return f"{trained}. Its policies were not evaluated at the end."
    name = _headline(found)
    values = np.asarray(found[name], float)
    ends, (kind, bracket, scale) = _interval(values), _unit(name, known).partition(" (")
    played = f", played on {known.place}" if known.place not in ("", known.learned_from) else ""
    return (
        f"{what}{played}: {kind} {number(float(values.mean()))}{bracket}{scale}"
        f"{f', 95% interval {number(ends[0])} to {number(ends[1])}' if ends else ''}, {_seeds(run)}."
    )


def _evidence(run: Run, known: Background, found: Mapping[str, Sequence[float]], policy: bool) -> str:
    last = ", the last policies and not the best on the way" if policy else ""
    words = [f"{_seeds(run).capitalize()}, {run.step:,} updates{' each' if len(run.seeds) > 1 else ''}{last}."]
    if found and known.episodes:
        words.append(f"The mode of every seed's policy played {known.episodes} whole episodes, the same for all seeds.")
    if found and len(run.seeds) == 1:
        words.append("One seed says nothing about training again: train five to learn how much of this is chance.")
    return " ".join([*words, known.caution]).strip()


def _cautions(run: Run, known: Background) -> list[Section]:
    """What a reader should know before believing the rest."""
    said = []
    if run.total and run.step < run.total:
        said.append(
            f"The run stands at {run.step:,} of {run.total:,} updates: it was interrupted, or ended where it was told to."
        )
    for row in run.metrics:
        if row.get("fresh_episodes"):
            said.append(
                f"It was resumed before update {row['step']:,} with simulators that cannot be stored: they began new episodes there, "
                "so that it is not to the bit the run that was never interrupted."
            )
    if run.stage and not run.earlier:
        said.append(f"This is stage {run.stage + 1} of several; those before it are in folders of their own.")
    unheard = silent(run, known.rare)
    if unheard:
        said.append(f"No update reported {', '.join(unheard)}: there is nothing to draw of it.")
    return [Section("What to know first", markup.items(said))] if said else []


def _tables(run: Run, known: Background, found: Mapping[str, Sequence[float]]) -> list[Section]:
    """The last evaluation: mean, interval, and every seed."""
    if not found:
        return []
    rows, few = [], len(run.seeds) <= _SIDE_BY_SIDE
    for name, given in found.items():
        values = np.asarray(given, float)
        ends = _interval(values)
        said = [name, number(float(values.mean())), f"{number(ends[0])} to {number(ends[1])}" if ends else "-", _seeds(run)]
        rows.append(said + ([number(value) for value in values] if few and len(values) > 1 else []))
    head = ["", "mean", "95% interval", "over"]
    head += [f"seed {seed}" for seed in run.seeds] if few and len(run.seeds) > 1 else []
    scale = known.unit.partition(" (")[2].rstrip(")")
    unit = f" A score is on the task's scale: {scale}." if scale and "score" in found else ""
    where = f" on {known.place}; no training saw these episodes" if known.place else ", evaluated as the run was told to"
    caption = f"The last policies{where}.{unit}"
    body = markup.table(head, rows, caption=caption)
    if not few:
        lines = [[str(seed), *(number(values[i]) for values in found.values())] for i, seed in enumerate(run.seeds)]
        body += markup.folded("every seed", markup.table(["seed", *found], lines))
    return [Section("What they earn", body)]


def about(run: Run, known: Background) -> list[Section]:
    """What was trained, with the settings that are not the defaults and all of them folded; of all stages that are in memory."""
    sections = []
    for stage in (*run.earlier, run):
        facts = {"learner": f"{stage.name} ({type(stage.learner).__name__})"}
        if stage is run:
            facts |= ({"learned from": known.learned_from} if known.learned_from else {}) | dict(known.facts)
        facts |= {
            "observation": spaces.describe(stage.spec.observation), "action": spaces.describe(stage.spec.action),
            "updates": f"{stage.step:,}{' of every seed' if len(stage.seeds) > 1 else ''}", "seeds": ", ".join(map(str, stage.seeds)),
        }  # fmt: skip
        changed = differing(stage.learner)
        rows = [[name, value, default, help] for name, value, default, help in changed]
        body = markup.pairs(facts) + (
            markup.table(
                ["setting", "value", "default", "what it is"],
                rows,
                caption="Settings that are not the defaults:",
                numbers=False,
            )
            if rows
            else markup.soft("All settings are the defaults.")
        )
        body += markup.folded(
            "all settings", markup.table(["setting", "value", "what it is"], every(stage.learner), numbers=False)
        )
        title = f"Stage {stage.stage + 1}: {stage.name}" if run.earlier else "What was trained"
        sections.append(Section(title, body))
    return sections


def _pictures(run: Run, known: Background) -> tuple[Sequence[Picture], tuple[str, ...]]:
    """What there is to see inside of the first seed's policy and of what was learned beside it; and why something is missing."""
    products, key = run.products(seed=run.seeds[0]), jax.random.key(0)
    policy = products.get("policy")
    if policy is None:
        return insides(None, None, products, key=key)
    moment, missing = None, ()
    if insightful(policy):
        try:
            moment = _moment(policy, known, key)
        except BadInput as reason:
            missing = (str(reason),)
        if moment is None and not missing:
            missing = (
                "what goes on inside is drawn for an observation, and this page was given none: name data or an environment",
            )
    pictures, why = insides(policy, moment, products, key=key)
    return pictures, (*missing, *why)


def _moment(policy: Policy, known: Background, key: Any) -> Moment | None:
    if known.recording is not None:
        return moment_of(known.recording, policy, key=key)
    return None if known.where is None else middle_of_an_episode(policy, known.where, seed=0)


def _loading(run: Run, known: Background, offered: Mapping[str, Any]) -> list[Section]:
    if known.folder is None:
        return []
    lines = ["import policylab as lab\n", f'run = lab.load_run("{known.folder}")']
    if "policy" in offered:
        lines.append(f'policy = run.policy(seed={run.seeds[0]}).mode()   # every seed\'s: run.products()["policy"]')
    lines.append(f"run.products(seed={run.seeds[0]})   # {', '.join(offered)}")
    return [Section("Load what was learned", markup.code("\n".join(lines)))]


def _call(run: Run) -> str:
    """The call that trains again, but for what only the caller knows."""
    source = "source" if not run.stage else "source, given=..."
    return f"lab.train({shown(run.learner, python=True)}, {source}, steps={run.total or run.step}, seeds={list(run.seeds)})"


def _circumstances(run: Run) -> dict[str, str]:
    seconds = run.metrics[-1]["seconds"] if run.metrics else 0.0
    return {"training": f"{seconds:,.1f} s, all seeds together"} if seconds else {}


def _seeds(run: Run) -> str:
    return f"{len(run.seeds)} seeds" if len(run.seeds) > 1 else "one seed"


def _interval(values: np.ndarray) -> tuple[float, float] | None:
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    found = interval(values)
    return found.low, found.high
