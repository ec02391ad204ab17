"""What `solve` will do with judged answers and a language model, decided before it starts: methods, room, updates, rates, costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from policylab import spaces
from policylab.data.judged_texts import answer_text, prompt_text
from policylab.data.preferences import Judged, Pair, Rating
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.learner import Learner
from policylab.learners.imitation.sft import SFT
from policylab.learners.preference.dpo import DPO
from policylab.learners.preference.kto import KTO
from policylab.policies.language import LanguagePolicy, text_spec
from policylab.source import Source
from policylab.sources.demonstrations import Demonstrations
from policylab.sources.preferences import Preferences
from policylab.sources.ratings import Ratings
from policylab.tokenizer import Tokenizer, bucket

# name: (learner, what it reads, why)
METHODS: dict[str, tuple[Any, str, str]] = {
    "sft": (SFT(), "answers", "imitates the better answers; what preference learners have to beat"),
    "dpo": (DPO(), "pairs", "likelier better answers, held to the starting model"),
    "ipo": (DPO(loss="ipo"), "pairs", "as DPO, with a margin that it does not go beyond: safer where every pair was judged once"),
    "hinge": (DPO(loss="hinge"), "pairs", "as DPO, with a hinge instead of a sigmoid"),
    "cdpo": (DPO(labels="conservative", flips=0.1), "pairs", "DPO that takes a tenth of the labels for wrong"),
    "rdpo": (DPO(labels="robust", flips=0.1), "pairs", "DPO unbiased by a tenth of wrong labels"),
    "kto": (KTO(), "labels", "good and bad answers one by one"),
}  # fmt: skip
USUAL = {"pairs": ("sft", "dpo", "ipo", "kto"), "ratings": ("sft", "kto", "dpo"), "chats": ("sft",)}
ADAPTED_FROM = 200_000_000  # parameters: from here on adapters of low rank are trained, below all parameters
EPOCHS, BATCH, HELD = 3, 32, 0.2
_NOMINAL = (
    1e11  # floating-point operations a second of the nominal two-core machine (benchmarks/language_training.py: a DPO step)
)
_GRID = (1.0, 0.3, 3.0)  # of the rates that --tune tries, for every method


@dataclass(frozen=True)
class Candidate:
    """A method with its learner, the rows that it learns from, and why it is here."""

    name: str
    learner: Learner
    source: Source
    reason: str


@dataclass(frozen=True)
class AlignmentPlan:
    """What will be done: `updates` of `batch` rows for every candidate, the room of texts, and how they are trained."""

    spec: Spec
    updates: int
    batch: int
    rank: int  # of adapters; 0: all parameters are trained
    scale: float  # of the published rates
    parameters: int
    tokens: int  # in training, for each candidate at most

    def describe(self) -> dict[str, str]:
        """For the report."""
        way = f"adapters of rank {self.rank}, the base is frozen" if self.rank else "all of them"
        return {
            "parameters of the model": f"{self.parameters:,}",
            "trained parameters": way,
            "updates per method": f"{self.updates:,} of {self.batch} rows (the same for all)",
            "learning rates": f"{self.scale:g} times the published ones (by the size of the model)",
        }


def fitting(judged: Judged[Any], asked: Sequence[str] | None) -> tuple[str, ...]:
    """The methods for data of this layout. Raises `BadInput` for one that there is not or that has nothing to learn from."""
    for name in asked or ():
        if name not in METHODS:
            raise BadInput(f"there is no method {name!r} for language models: choose among {', '.join(METHODS)}")
    names = tuple(asked or USUAL[judged.layout])
    kept = tuple(name for name in names if _readable(judged, METHODS[name][1]))
    if (missing := [name for name in names if name not in kept]) and asked:
        need = {"pairs": "two answers of different worth to one prompt", "labels": "good and bad answers"}[
            METHODS[missing[0]][1]
        ]
        raise BadInput(f"{missing[0]} needs {need}, which {judged.name} has not: choose among {', '.join(USUAL['chats'])}")
    return kept


def _readable(judged: Judged[Any], reads: str) -> bool:
    if reads == "pairs":
        return judged.layout == "pairs" or (judged.layout == "ratings" and bool(paired(judged).rows))
    return reads == "answers" or judged.layout != "chats"


def paired(judged: Judged[Any]) -> Judged[Pair]:
    """Pairs as they are; of ratings the best answer to each prompt beside each worse one."""
    if judged.layout == "pairs":
        return judged
    groups: dict[str, list[Rating]] = {}
    for row in judged.rows:
        groups.setdefault(repr(row.prompt), []).append(row)
    best = {key: max(rows, key=lambda row: row.rating) for key, rows in groups.items()}
    rows = [
        Pair(row.prompt, best[key].answer, row.answer, 1.0, row.weight)
        for key, members in groups.items()
        for row in members
        if row.rating < best[key].rating
    ]
    return Judged("pairs", tuple(rows), judged.name)


def rated(judged: Judged[Any]) -> Judged[Rating]:
    """Ratings as they are; of pairs each answer alone, rated by the probability that it is the better one."""
    if judged.layout == "ratings":
        return judged
    both = ((row, row.a, row.p) for row in judged.rows), ((row, row.b, 1.0 - row.p) for row in judged.rows)
    rows = [Rating(row.prompt, answer, p, "", row.weight) for pair in zip(*both, strict=True) for row, answer, p in pair]
    return Judged("ratings", tuple(rows), judged.name)


def threshold(judged: Judged[Rating]) -> float:
    """Above it an answer is good: 1/2 for labels, else the median rating (the mean where nothing is above that)."""
    values = np.asarray([row.rating for row in judged.rows], float)
    if set(values.tolist()) <= {0.0, 1.0}:
        return 0.5
    middle = float(np.median(values))
    return middle if (values > middle).any() else float(values.mean())


def room(judged: Judged[Any], policy: LanguagePolicy, answer: int | None) -> Spec:
    """The Spec that all prompts and answers fit into. Raises `BadInput` at the first row that is longer than the model's context."""
    tokenizer, context = Tokenizer.of(policy.tokenizer), policy.network.architecture.context
    prompts, answers = 1, 1
    for number, (prompt, said) in enumerate(_texts(judged), start=1):
        asked = len(tokenizer.prompt(prompt_text(prompt, tokenizer, number)))
        longest = max(len(tokenizer.encode(answer_text(one, number))) + 1 for one in said)
        if asked + longest > context:
            raise BadInput(
                f"{judged.name} row {number} has a prompt of {asked} tokens and an answer of {longest}, more than the model's context of "
                f"{context}: shorten or remove it, or take a model with a longer context"
            )
        prompts, answers = max(prompts, asked), max(answers, longest)
    written = min(answer or bucket(answers), context - prompts)
    if written < 1:
        raise BadInput(
            f"the longest prompt of {judged.name} fills the model's context of {context}: nothing can be written after it"
        )
    prompt_room = min(bucket(prompts), context - max(written, answers))
    return text_spec(tokenizer, prompt=prompt_room, answer=max(written, answers))


def _texts(judged: Judged[Any]) -> Any:
    if judged.layout == "pairs":
        return ((row.prompt, (row.a, row.b)) for row in judged.rows)
    if judged.layout == "ratings":
        return ((row.prompt, (row.answer,)) for row in judged.rows)
    return (
        (row.messages[:i], (row.messages[i : i + 1],))
        for row in judged.rows
        for i, message in enumerate(row.messages)
        if message["role"] == "assistant" and i > 0
    )


def size_of(policy: LanguagePolicy) -> int:
    """How many parameters a policy has."""
    return sum(leaf.size for leaf in jax.tree.leaves(policy.network))


def make_plan(
    judged: Judged[Any], spec: Spec, policy: LanguagePolicy, *, methods: int, seconds: float, rank: int | None, tune: bool
) -> AlignmentPlan:
    """Equal updates of equally many rows for every method: what a nominal machine does in `seconds`, and no more than 3 epochs.

    The published rates are for billions of parameters; a smaller model takes them times sqrt(1e9 / parameters), at most 100 times, and
    adapters ten times as much.
    """
    parameters = size_of(policy)
    adapters = (16 if parameters >= ADAPTED_FROM else 0) if rank is None else rank
    batch = min(BATCH, max(2, len(judged)))
    texts = 2 * batch * (spaces.size(spec.observation) + spaces.size(spec.action))
    rounds = 1 + (len(_GRID) / 4 if tune else 0)
    affordable = seconds / methods / rounds / (10.0 * parameters * texts / _NOMINAL + 0.005)
    updates = max(1, min(int(affordable), math.ceil(EPOCHS * len(judged) / batch)))
    scale = float(np.clip(np.sqrt(1e9 / parameters), 1.0, 100.0)) * (10.0 if adapters else 1.0)
    return AlignmentPlan(spec, updates, batch, adapters, float(f"{scale:.3g}"), parameters, int(updates * texts * rounds))


def candidates(judged: Judged[Any], plan: AlignmentPlan, names: Sequence[str]) -> tuple[Candidate, ...]:
    """Every method with its data on the device. Raises `BadInput` at the first row that it cannot read."""
    found, sources = [], {}
    for name in names:
        learner, reads, reason = METHODS[name]
        if reads not in sources:
            sources[reads] = _source(judged, plan.spec, reads)
        changes: dict[str, Any] = {"batch_size": plan.batch, "learning_rate": plan.scale * learner.learning_rate}
        if isinstance(learner, KTO):
            changes["threshold"] = threshold(rated(judged))
        found.append(Candidate(name, dataclasses.replace(learner, **changes), sources[reads], reason))
    return tuple(found)


def _source(judged: Judged[Any], spec: Spec, reads: str) -> Source:
    if reads == "pairs":
        return Preferences.of_rows(paired(judged), spec=spec)
    if reads == "labels":
        return Ratings.of_rows(rated(judged), spec=spec)
    if judged.layout != "ratings":
        return Demonstrations.of_rows(judged, spec=spec)
    bar = threshold(judged)
    good = tuple(Pair(row.prompt, row.answer, "-", 1.0, row.weight) for row in judged.rows if row.rating > bar)
    if not good:
        raise BadInput(f"{judged.name} has no answer with a rating above {bar:g}: there is nothing to imitate")
    return Demonstrations.of_rows(Judged("pairs", good, judged.name), spec=spec)


def rates(learner: Any) -> tuple[Any, ...]:
    """The same learner at the rates that tuning tries."""
    return tuple(dataclasses.replace(learner, learning_rate=factor * learner.learning_rate) for factor in _GRID)


def forecast(plan: AlignmentPlan, names: Sequence[str], *, prompts: int, judge: str) -> str:
    """What will be spent, in a few lines: tokens of training and of writing, and calls of the judge (a sentence, or "")."""
    models = len(names) + 1
    written = models * prompts * spaces.size(plan.spec.action)
    lines = [
        f"{len(names)} method{'s' * (len(names) > 1)} ({', '.join(names)}), {plan.updates:,} updates of {plan.batch} rows each: at most "
        f"{len(names) * plan.tokens:,} tokens of training",
        f"{models} models answer {prompts:,} held-out prompts: at most {written:,} tokens of writing",
    ]
    return "\n".join([*lines, *([judge] if judge else [])])
