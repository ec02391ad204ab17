"""What aligning a language model gave: in a few lines, as JSON, and as the report's page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policylab.evidence.answers import Agreement
from policylab.evidence.jury import Verdict, WinRate
from policylab.reporting.page import Report, Row

_SHOWN = 3  # prompts whose answers the report shows


@dataclass(frozen=True)
class AlignmentResult:
    """What `align` found. `agreements` are the diagnostics by model ("start" among them), `answers` what each wrote to `prompts`."""

    data: str
    model: str
    out: Path
    winner: str | None
    verdict: Verdict | None
    agreements: Mapping[str, Agreement]
    diverged: Mapping[str, str]
    checkpoints: Mapping[str, Path]
    rates: Mapping[str, float]
    reasons: tuple[tuple[str, str], ...]
    prompts: Sequence[str]
    answers: Mapping[str, Sequence[str]]
    card: str
    judge: str
    forecast: str
    repeat: str
    seconds: float
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def report(self) -> Path:
        """The page."""
        return self.out / "report.html"

    def sentence(self) -> str:
        """What was found, in one sentence."""
        if self.verdict is None:
            return "No winner: held-out rows say how well a model predicts judged answers, not how good its own are."
        told, name = self.verdict.confirmed, self.verdict.chosen
        where = f"on {told.prompts} fresh prompts {_percent(told)}"
        if self.winner:
            return f"Winner: {name}. Its answers win against the starting model's, {where}; {told.told()}."
        return f"No winner: the most promising, {name}, is not surely better than the starting model, {where}; {told.told()}."

    def summary(self) -> str:
        """A few lines for a terminal."""
        lines = [self.sentence(), f"report: {self.report}"]
        for name, path in self.checkpoints.items():
            lines.append(f"saved:  {path} ({name}; {_told(self.agreements[name])})")
        return "\n".join([*lines, *(f"failed: {name}: {why}" for name, why in self.diverged.items())])

    def to_json(self) -> dict[str, Any]:
        """The whole result; the same arguments, data and judge give the same document but for `seconds`."""
        rate = lambda found: {
            "win_rate": _finite(found.value), "interval": found.interval, "wins": found.wins, "ties": found.ties, "losses": found.losses,
            "abstained": found.abstained, "prompts": found.prompts,
        }  # fmt: skip
        found = self.verdict
        return {
            "winner": self.winner, "kind": "win-rate" if found else "diagnostic", "verdict": self.sentence(), "judge": self.judge or None,
            "confirmed": None if found is None else {"method": found.chosen, **rate(found.confirmed)},
            "selection": {} if found is None else {name: rate(one) for name, one in found.selection.items()},
            "diagnostics": {
                name: {"what": a.what, "value": _finite(a.value), "interval": a.interval, "over": a.units} for name, a in self.agreements.items()
            },
            "learning_rates": dict(self.rates), "diverged": dict(self.diverged), "shortlist": [list(row) for row in self.reasons],
            "forecast": self.forecast, "out": str(self.out), "report": str(self.report),
            "checkpoints": {name: str(path) for name, path in self.checkpoints.items()}, "seconds": round(self.seconds, 1),
        }  # fmt: skip

    def page(self) -> Report:
        """The report: win rates where somebody compared answers, the diagnostics always, answers side by side."""
        rows, found = tuple(self._diagnostic(name) for name in self.agreements), self.verdict
        shared: dict[str, Any] = {
            "title": f"policylab: {self.data}, {Path(self.model).name}", "verdict": self.sentence(), "shortlist": self.reasons,
            "card": self.card + self._examples(), "load": self._loading(), "repeat": self.repeat, "facts": self.facts,
        }  # fmt: skip
        what = next(iter(self.agreements.values())).what
        if found is None:
            words = (
                f"What can be measured without a judge is a diagnostic, the {what}, on rows that no model learned from. A model that orders "
                "answers well need not write better ones, and one that fits the data longer often writes worse. All models are saved."
            )
            plan = "To find a winner, give a judge: --judge https://host/v1 --judge-model NAME for a model behind an endpoint, or --judge text/TASK"
            return Report(**shared, evidence=words, unit=what, confirmed=rows, plan=f"{plan} where answers can be checked.")
        words = (
            f"Answers of each model to held-out prompts were compared with those of the starting model by {self.judge}. Ties count half. One "
            "half of the prompts chose the model, the other half, fresh, is reported. The judge's taste is not its users': read some answers."
        )
        unit = "win rate against the starting model"
        confirmed = (self._rated(found.chosen, found.confirmed, won=found.won),)
        selection = tuple(self._rated(name, rate, won=name == found.chosen) for name, rate in found.selection.items())
        return Report(**shared, evidence=words, unit=unit, confirmed=confirmed, selection=selection, differences=())

    def _rated(self, name: str, rate: WinRate, *, won: bool) -> Row:
        known = self.agreements[name]
        return Row(name, rate.value, rate.interval, f"{rate.prompts} prompts", rate.told(), won, {"diagnostic": _told(known)})

    def _diagnostic(self, name: str) -> Row:
        known = self.agreements[name]
        note = "the starting model, by its log-probabilities alone" if name == "start" else ""
        return Row(name, known.value, known.interval, known.units, note)

    def _examples(self) -> str:
        names = ["start", *([self.verdict.chosen] if self.verdict else [name for name in self.answers if name != "start"])]
        blocks = [
            "\n".join([f"prompt: {prompt[:300]}", *(f"{name:>9}: {self.answers[name][i][:300]}" for name in names)])
            for i, prompt in list(enumerate(self.prompts))[-_SHOWN:]
        ]
        return "\n\nanswers to held-out prompts\n\n" + "\n\n".join(blocks) if blocks else ""

    def _loading(self) -> str:
        if not self.checkpoints:
            return ""
        path = self.checkpoints[self.winner or next(iter(self.checkpoints))]
        return "\n".join([
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n",
            f'model = AutoModelForCausalLM.from_pretrained("{path}")',
            f'tokenizer = AutoTokenizer.from_pretrained("{path}")\n',
            "# or here",
            "import policylab as lab",
            f'policy = lab.load_language("{path}")',
            f"# or in the terminal: policylab chat {path}",
        ])  # fmt: skip


def _told(found: Agreement) -> str:
    value = "unknown" if math.isnan(found.value) else f"{found.value:.3g}"
    ends = "" if found.interval is None else f" ({found.interval[0]:.3g} to {found.interval[1]:.3g})"
    return f"{found.what} {value}{ends}"


def _percent(rate: WinRate) -> str:
    if rate.interval is None:
        return "without a verdict"
    return f"in {100 * rate.value:.0f}% (95% interval {100 * rate.interval[0]:.0f} to {100 * rate.interval[1]:.0f})"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
