"""`diagnose`: the dataset card of a recording, from which methods are shortlisted and suspicions raised before anything is trained."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from policylab import spaces
from policylab.data.recording import Recording
from policylab.errors import BadInput
from policylab.evaluation import coverage as measures
from policylab.evaluation import duplicates, end_flags, quality
from policylab.evaluation.advice import Advice, shortlist
from policylab.evaluation.card_text import card_text
from policylab.evaluation.coverage import Coverage
from policylab.evaluation.logged_choices import Choices, describe_choices
from policylab.evaluation.modes import count_modes
from policylab.evaluation.rows import Rows, rows_of
from policylab.evaluation.sizes import Size, measure_size, total_returns
from policylab.evaluation.suspicion import Suspicion

LIMIT = 1_000_000


@dataclass(frozen=True)
class Card:
    """What a recording holds. `looked_at` steps were searched for coverage and suspicions; `notes` say what could not be said.

    `choices` is there for logged bandits only. `str(card)` is for the terminal, `card.to_json()` for programs.
    """

    name: str
    size: Size
    coverage: Coverage
    suspicions: tuple[Suspicion, ...]
    choices: Choices | None
    notes: tuple[str, ...]
    looked_at: int
    seed: int
    advice: tuple[Advice, ...] = ()

    @property
    def raised(self) -> tuple[Suspicion, ...]:
        """The suspicions that a person should look into."""
        return tuple(one for one in self.suspicions if one.raised)

    def __str__(self) -> str:
        return card_text(self)

    def to_json(self) -> dict[str, Any]:
        """Everything as dicts, lists, numbers and text; what is not a finite number becomes None."""
        document = _plain(dataclasses.asdict(self))
        for entry, one in zip(document["suspicions"], self.suspicions):
            entry |= {"share": one.share, "false_alarms": _plain(dataclasses.asdict(one.alarm)) if one.alarm else None}
            entry["planted"] = [_plain(dataclasses.asdict(row)) for row in one.planted]
        return document

    def dumps(self) -> str:
        """`to_json` as text, strict JSON."""
        return json.dumps(self.to_json(), allow_nan=False, indent=1)


def diagnose(
    recording: Recording,
    *,
    reference: Mapping[str, float] | Recording | None = None,
    reference_data: Recording | None = None,
    seed: int = 0,
    limit: int = LIMIT,
) -> Card:
    """The dataset card: size, coverage, suspicions, and which learners fit.

    `reference` holds the returns `random` and `expert` that mean TQ 0 and 1 (as `task.reference` does), `reference_data` the
    recording of an online run that means SACo 1; a Recording as `reference` is the latter. Beyond `limit` steps whole episodes
    drawn with `seed` stand for all in everything but counts and returns; neighbours are searched among 8,000 rows. Takes seconds
    for 1e6 steps. Raises `BadInput` for a recording without steps, or a reference that does not fit.
    """
    if recording.steps == 0:
        raise BadInput(f"{recording.name or 'the data'} has no steps: there is nothing to diagnose")
    if isinstance(reference, Recording):
        reference, reference_data = None, reference
    scale, notes = _scale(reference), []
    rows = rows_of(recording, limit=limit, seed=seed)
    returns = total_returns(recording)
    if reference_data is not None:
        _require_alike(recording, reference_data)
    elif scale is None or returns is None:
        notes.append("no reference return or data is known: quality (TQ) and coverage (SACo) have no scale to be placed on")
    if rows.steps < recording.steps:
        notes.append(f"{rows.steps:,} of {recording.steps:,} steps looked at (whole episodes at random)")
    if rows.projected:
        notes.append(f"{rows.projected:,} entries of an observation are represented by random projections")
    if returns is None:
        notes.append("no rewards were logged: returns, TQ and value learning are out of reach")
    if not rows.sequential and "propensity" not in recording.extra:
        notes.append("no propensities were logged: other policies cannot be judged without a model of the reward")
    if recording.reward is not None and recording.reward.ndim > 1:
        notes.append(f"returns are the sum of {recording.reward.shape[1]} objectives")
    with ThreadPoolExecutor(1) as beside:  # neighbours are searched on one core, dynamics fitted on another
        coverage = beside.submit(
            measures.measure, rows, returns, scale=scale, seed=seed,
            modes=None if returns is None else count_modes(returns, seed=seed),
            reference=None if reference_data is None else rows_of(reference_data, limit=limit, seed=seed),
        )  # fmt: skip
        doubts = suspicions(rows, origin=recording.origin, seed=seed)
    card = Card(
        name=recording.name or "recording",
        size=measure_size(recording, rows),
        coverage=coverage.result(),
        suspicions=doubts,
        choices=_choices(recording),
        notes=tuple(notes),
        looked_at=rows.steps,
        seed=seed,
    )
    return dataclasses.replace(card, advice=tuple(Advice(*entry) for entry in shortlist(card)))


def suspicions(rows: Rows, *, origin: Mapping[str, Any], seed: int) -> tuple[Suspicion, ...]:
    """Every check on these rows, done or not."""
    return (
        quality.spikes(rows, seed=seed),
        quality.odd_rewards(rows, seed=seed),
        quality.mismatched_actions(rows, seed=seed),
        quality.stuck_columns(rows),
        quality.changed_scales(rows),
        end_flags.broken_chains(rows, dict(origin), seed=seed),
        end_flags.timed_terminals(rows),
        end_flags.ignored_terminals(rows, seed=seed),
        end_flags.random_terminals(rows, seed=seed),
        duplicates.repeated_rows(rows),
        duplicates.repeated_episodes(rows),
    )


def _scale(reference: Mapping[str, float] | None) -> tuple[float, float] | None:
    if not reference:
        return None
    if not {"random", "expert"} <= set(reference) or not reference["random"] < reference["expert"]:
        raise BadInput(
            f"the reference is {dict(reference)}: give the returns of a random and of an expert policy, random below expert"
        )
    return float(reference["random"]), float(reference["expert"])


def _require_alike(recording: Recording, reference: Recording) -> None:
    recording.spec.require(reference.spec, ours=recording.name or "the recording", theirs="the reference data")
    if reference.steps == 0:
        raise BadInput("the reference data have no steps: give the recording of an online run")


def _choices(recording: Recording) -> Choices | None:
    space = recording.spec.action
    if not isinstance(space, spaces.Discrete) or recording.lengths.max() > 1:
        return None
    reward, propensity = recording.reward, recording.extra.get("propensity")
    if reward is not None and reward.ndim > 1:
        reward = reward.reshape(len(reward), -1).sum(axis=1)
    return describe_choices(
        np.asarray(recording.action, np.int64), None if reward is None else np.asarray(reward, np.float64),
        None if propensity is None else np.asarray(propensity), choices=space.n, labels=space.labels,
    )  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
