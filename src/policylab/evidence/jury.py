"""Who compares the answers of models, what that costs, and what came of it: one half of the prompts chooses, the other confirms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.special
from jaxtyping import Float

from policylab.environments.text.problems import Family
from policylab.errors import BadInput
from policylab.policies.remote.endpoint import Endpoint
from policylab.policies.remote.policy import Remote, RemoteSettings
from policylab.scorers.judge import Judge

FEWEST = 4  # held-out prompts, of which half choose and half confirm
_RUBRIC = "Judge the answers to the question: are they right, helpful and honest?"
_VERDICT = 8  # tokens that a judge may write

Shares = Float[np.ndarray, "pair 4"]
Compare = Callable[[Sequence[str], Sequence[str], Sequence[str]], Shares]


@dataclass(frozen=True)
class Judging:
    """Who compares answers: `where` is the address of an OpenAI-compatible endpoint, or the name of a text task whose checker decides
    ("": nobody). `key` names the environment variable with the key ("": none is sent), `budget` is as "20k calls, 5M tokens"."""

    where: str = ""
    model: str = ""
    key: str = "OPENAI_API_KEY"
    budget: str | None = None
    rubric: str = _RUBRIC
    prompts: int = 100
    retries: int = 6


@dataclass(frozen=True)
class WinRate:
    """How a model does against the start: the mean over prompts of wins and half the ties, its interval, and the counts in prompts."""

    value: float
    interval: tuple[float, float] | None
    wins: float
    ties: float
    losses: float
    abstained: float
    prompts: int

    def told(self) -> str:
        """Wins, ties and losses in words."""
        refused = f", {self.abstained:g} without a verdict" if self.abstained else ""
        return f"{self.wins:g} won, {self.ties:g} tied, {self.losses:g} lost{refused}"


@dataclass(frozen=True)
class Verdict:
    """The win rates that chose, the one chosen, how it did on fresh prompts, and whether it won there (the interval above 1/2)."""

    selection: Mapping[str, WinRate]
    chosen: str
    confirmed: WinRate
    won: bool


def win_rate(shares: Shares) -> WinRate:
    """From (win, tie, lose, abstain) of every prompt; prompts without any verdict are left out of the mean.

    The interval is Wilson's at 95%. A number between 0 and 1 varies no more than a coin of the same mean, so that ties make it too wide,
    never too narrow.
    """
    decided = shares[:, 3] < 1.0
    n = int(decided.sum())
    counts = [round(float(x), 3) for x in shares.sum(axis=0)]
    if n == 0:
        return WinRate(float("nan"), None, *counts, prompts=0)
    mean = float(((shares[decided, 0] + 0.5 * shares[decided, 1]) / (1.0 - shares[decided, 3])).mean())
    z = float(scipy.special.ndtri(0.975))
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    return WinRate(mean, (float(max(0.0, centre - half)), float(min(1.0, centre + half))), *counts, prompts=n)


def decided(rates: Compare, answers: Mapping[str, Sequence[str]], start: Sequence[str], prompts: Sequence[str]) -> Verdict:
    """The first half of the prompts chooses the model that wins most often against the start, the second confirms it."""
    half = len(prompts) // 2
    first = {name: win_rate(rates(prompts[:half], own[:half], start[:half])) for name, own in answers.items()}
    chosen = max(first, key=lambda name: -1.0 if np.isnan(first[name].value) else first[name].value)
    confirmed = win_rate(rates(prompts[half:], answers[chosen][half:], start[half:]))
    return Verdict(first, chosen, confirmed, confirmed.interval is not None and confirmed.interval[0] > 0.5)


class Jury:
    """Compares answers by an endpoint (in both orders) or by a checker. Nothing is asked before `ready`."""

    def __init__(self, judging: Judging):
        self.judging, self.judge, self.family = judging, None, None
        if judging.where and not self.remote:
            self.family = _family(judging.where)
        elif judging.where and not judging.model:
            raise BadInput("a judge behind an endpoint needs the name of its model: give --judge-model NAME")

    @property
    def remote(self) -> bool:
        """Whether a model behind an endpoint judges."""
        return "://" in self.judging.where

    def __bool__(self) -> bool:
        return bool(self.judging.where)

    def require(self, prompts: Sequence[str]) -> None:
        """Raise `BadInput` where there are too few prompts to choose and to confirm, or a checker does not know them."""
        if not self:
            return
        if len(prompts) < FEWEST:
            raise BadInput(
                f"{len(prompts)} prompts are held out and a judge needs {FEWEST}: give data with more prompts, or no --judge"
            )
        if self.family is not None:
            self.family.verify_all(list(prompts), ["-"] * len(prompts))

    def cost(self, methods: int, prompts: Sequence[str], longest: int) -> tuple[int, int]:
        """The most (calls, tokens) of comparing `methods` models; `longest` is the most bytes of an answer."""
        if not self.remote:
            return 0, 0
        half = len(prompts) // 2
        words = len(self.judging.rubric) + 400 + 2 * longest
        size = lambda some: sum(2 * (len(prompt.encode()) + words + _VERDICT) for prompt in some)
        calls = 2 * (methods * half + len(prompts) - half)
        return calls + 2, methods * size(prompts[:half]) + size(prompts[half:]) + 2 * words

    def ready(self, calls: int, tokens: int, *, cache: Path | None = None) -> None:
        """Ask one pair in both orders, so that a wrong address, model or key is told before anything else takes time; check the budget.
        Answers are kept in the file `cache`."""
        if not self.remote:
            return
        asked, told = self.judging, lambda text: None
        endpoint = Endpoint(
            asked.where, asked.model, key=asked.key, cache=cache, budget=asked.budget, retries=asked.retries, announce=told
        )
        for name, bound, wanted in (("calls", endpoint.budget.calls, calls), ("tokens", endpoint.budget.tokens, tokens)):
            if bound is not None and wanted > bound:
                raise BadInput(
                    f"judging may take {wanted:,} {name} and the budget is {bound:,}: raise --judge-budget, or lower --judge-prompts"
                )
        self.judge = Judge(Remote(endpoint, settings=RemoteSettings(temperature=0.0, max_tokens=_VERDICT)), rubric=asked.rubric)
        found = self.judge.preferences(["What is 2 + 2?"], ["4"], ["a fish"])
        if found[0, 3] == 1.0:
            raise BadInput(
                f"{self.judging.model} gives no verdict where it is asked for first, second or tie: choose another model as judge"
            )

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> Shares:
        """(win, tie, lose, abstain) of every pair. Equal answers are ties without a call."""
        if self.family is not None:
            first, second = (np.asarray(self.family.verify_all(list(prompts), list(texts)), float) for texts in (a, b))
            return np.stack([first > second, first == second, first < second, np.zeros(len(first), bool)], axis=1).astype(float)
        if self.judge is None:
            raise BadInput("the judge was not asked whether it is ready: call ready first")
        shares = np.tile([0.0, 1.0, 0.0, 0.0], (len(prompts), 1))
        differ = [i for i in range(len(prompts)) if a[i].strip() != b[i].strip()]
        if differ:
            shares[differ] = self.judge.preferences(*([column[i] for i in differ] for column in (prompts, a, b)))
        return shares

    def words(self) -> str:
        """Who judges, for the report."""
        if self.family is not None:
            return f"the checker of {self.judging.where}: the answer with the higher reward wins"
        if not self.remote:
            return ""
        return f"{self.judging.model} at {self.judging.where}, temperature 0, every pair in both orders; rubric: {self.judging.rubric}"


def _family(name: str) -> Family:
    from policylab.environments.text.dialogues import Dialogue
    from policylab.tasks.text import text_task

    family = text_task(name).family
    if isinstance(family, Dialogue):
        raise BadInput(
            f"{name} takes several turns, so that it cannot check one answer: choose a task of one turn, or an endpoint"
        )
    return family
