"""The dataset card: what a recording holds, how much of the world it has seen, what is wrong with it, what it advises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from policylab import spaces
from policylab.data.recording import Recording
from policylab.evaluation.alarms import Suspicion, suspicions
from policylab.evaluation.coverage import Coverage, measure
from policylab.evaluation.modes import count_modes
from policylab.evaluation.rows import rows_of
from policylab.evaluation.statistics import wilson


@dataclass(frozen=True)
class Card:
    """Numbers of one recording. `returns` are quantiles of the undiscounted episode returns (None without rewards); `bandit` holds
    what is particular to one-step logs: the rate of positive rewards with its Wilson interval, propensity range, choices never logged.
    """

    name: str
    episodes: int
    steps: int
    lengths: tuple[int, float, int]
    observation: str
    action: str
    rewards: bool
    returns: Mapping[str, float] | None
    reward_share: float | None
    endings: Mapping[str, int]
    saturation: float | None
    groups: int | None
    coverage: Coverage
    suspicions: tuple[Suspicion, ...]
    bandit: Mapping[str, Any] | None
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Strict JSON: what is not finite becomes null."""
        return _plain(asdict(self))

    def __str__(self) -> str:
        rows = [
            ("data", f"{self.episodes:,} episodes, {self.steps:,} steps, {self.lengths[0]} to {self.lengths[2]} long, mean {self.lengths[1]:.1f}"),
            ("spaces", f"observation {self.observation}, action {self.action}"),
            ("endings", ", ".join(f"{count:,} {name}" for name, count in self.endings.items())),
        ]  # fmt: skip
        if self.returns is None:
            rows.append(("returns", "no rewards were logged"))
        elif self.bandit is None:
            shown = ", ".join(f"{name} {value:.3g}" for name, value in self.returns.items())
            rows.append(("returns", f"{shown}; {self.reward_share:.1%} of the steps have a reward other than 0"))
        if self.bandit is not None:
            b = self.bandit
            rows.append(
                (
                    "decisions",
                    f"{b['positives']} of {self.steps:,} rewarded ({b['rate']:.2%}, 95% interval {b['low']:.2%} to {b['high']:.2%})",
                )
            )
            if b.get("propensity_low") is not None:
                rows.append(
                    (
                        "propensities",
                        f"{b['propensity_low']:.3g} to {b['propensity_high']:.3g}; {b['never']} of {b['choices']} choices never logged",
                    )
                )
        if self.saturation is not None:
            rows.append(("actions", f"{self.saturation:.1%} of the action entries lie on a bound"))
        c = self.coverage
        rows.append(("coverage", f"{c.unique_share:.1%} of the (state, action) pairs differ, 100 bins per column"))
        if c.tq is not None and c.tq_scale is not None:
            rows.append(("quality", f"TQ {c.tq:.2f} (0 is a return of {c.tq_scale[0]:.3g}, 1 is {c.tq_scale[1]:.3g})"))
        if c.saco is not None:
            rows.append(("", f"SACo {c.saco:.2f} of the reference data's distinct pairs"))
        if c.action_divergence is not None:
            rows.append(
                (
                    "consistency",
                    f"action divergence {c.action_divergence:.2f} (0: the state decides the action, 1: it says nothing)",
                )
            )
        if c.transition_diversity is not None:
            rows.append(
                ("", f"transition diversity {c.transition_diversity:.2f} of the state changes' variance is left open by a fit")
            )
        if c.state_entropy is not None:
            rows.append(
                (
                    "",
                    f"state entropy {c.state_entropy:.2f} nats; effective dimension {c.effective_dimension:.1f}",
                )
            )
        for i, suspicion in enumerate(self.suspicions):
            rows.append(("suspicious" if i == 0 else "", suspicion.words))
        if not self.suspicions:
            rows.append(("suspicious", "nothing was found"))
        for i, sentence in enumerate(self.advice):
            rows.append(("advice" if i == 0 else "", sentence))
        return "\n".join(f"{name:<12} {text}" for name, text in rows)


def diagnose(
    recording: Recording,
    *,
    scale: tuple[float, float] | None = None,
    reference: Recording | None = None,
    seed: int = 0,
    limit: int = 200_000,
) -> Card:
    """The card of a recording. `scale` holds the returns that mean TQ 0 and 1, `reference` the data of an online run for SACo.

    Data of more than `limit` steps are represented by whole episodes drawn at random up to that size; neighbour searches use fewer.
    """
    rows = rows_of(recording, limit=limit, seed=seed)
    single = int(recording.lengths.max()) == 1
    returns = None if recording.reward is None or np.ndim(recording.reward) > 1 else recording.returns
    modes = count_modes(returns, seed=seed) if returns is not None and not single and len(returns) > 20 else None
    reference_rows = None if reference is None else rows_of(reference, limit=limit, seed=seed)
    coverage = measure(rows, returns, scale=scale, reference=reference_rows, modes=modes, seed=seed)
    found = suspicions(rows, recording, seed=seed)
    bandit = _bandit(recording) if single and returns is not None else None
    last = recording.starts + recording.lengths - 1
    terminal, truncated = np.asarray(recording.terminal)[last], np.asarray(recording.truncated)[last]
    endings = {"terminal": int(terminal.sum()), "truncated": int((truncated & ~terminal).sum())}
    endings["open"] = recording.episodes - sum(endings.values())
    return Card(
        name=recording.name,
        episodes=recording.episodes,
        steps=recording.steps,
        lengths=(int(recording.lengths.min()), float(recording.lengths.mean()), int(recording.lengths.max())),
        observation=spaces.describe(recording.spec.observation),
        action=spaces.describe(recording.spec.action),
        rewards=recording.reward is not None,
        returns=None if returns is None else _quantiles(returns),
        reward_share=None if recording.reward is None else float(np.mean(np.asarray(recording.reward) != 0)),
        endings={name: count for name, count in endings.items() if count},
        saturation=_saturation(recording),
        groups=len(np.unique(recording.extra["group"])) if "group" in recording.extra else None,
        coverage=coverage,
        suspicions=found,
        bandit=bandit,
        advice=_advice(recording, coverage, found, bandit, modes),
    )


def _quantiles(returns: np.ndarray) -> dict[str, float]:
    names = ("worst", "10%", "median", "90%", "best")
    return {
        "mean": float(returns.mean()),
        **{n: float(q) for n, q in zip(names, np.quantile(returns, [0, 0.1, 0.5, 0.9, 1]), strict=True)},
    }


def _saturation(recording: Recording) -> float | None:
    space = recording.spec.action
    if not isinstance(space, spaces.Box) or not space.bounded:
        return None
    low, high = space.bounds()
    action, margin = np.asarray(recording.action), 1e-3 * (high - low)
    return float(np.mean((action <= low + margin) | (action >= high - margin)))


def _bandit(recording: Recording) -> dict[str, Any]:
    positives = int(np.sum(np.asarray(recording.reward) > 0))
    rate = wilson(positives, recording.steps)
    found: dict[str, Any] = {"positives": positives, "rate": rate.value, "low": rate.low, "high": rate.high}
    if isinstance(recording.spec.action, spaces.Discrete):
        counts = np.bincount(np.asarray(recording.action), minlength=recording.spec.action.n)
        found |= {"choices": recording.spec.action.n, "never": int(np.sum(counts == 0))}
    if "propensity" in recording.extra:
        p = np.asarray(recording.extra["propensity"], np.float64)
        found |= {"propensity_low": float(p.min()), "propensity_high": float(p.max())}
    return found


def _advice(recording: Recording, coverage: Coverage, found: tuple[Suspicion, ...], bandit: Mapping[str, Any] | None,
            modes: int | None) -> tuple[str, ...]:  # fmt: skip
    """Sentences with the numbers that led to them (after Schweighofer et al. 2022 and Belkhale et al. 2023)."""
    said = []
    if recording.reward is None:
        said.append("no rewards: cloning is what can be learned, and only a trial can say how good it is")
    elif bandit is not None:
        if bandit["positives"] < 100:
            said.append(f"{bandit['positives']} rewarded decisions: estimates of any new policy will be wide; expect no winner")
        if "propensity" not in recording.extra:
            said.append("no propensities: what a new policy would earn cannot be estimated without a model of the reward")
    else:
        if coverage.tq is not None and coverage.tq > 0.8:
            said.append(f"TQ {coverage.tq:.2f}: most episodes are good, so cloning will be hard to beat")
        if modes is not None and modes > 1:
            said.append(f"the returns fall into {modes} groups: clone the best episodes (percent-bc) as a baseline")
        share = float(np.mean(np.asarray(recording.reward) != 0))
        if share < 0.01:
            said.append(f"rewards on {share:.2%} of the steps: value-based methods need many updates to carry them back")
        if coverage.action_divergence is not None and coverage.action_divergence > 0.5:
            said.append(
                f"action divergence {coverage.action_divergence:.2f}: like states are answered differently, which averages out under "
                "cloning; methods that weight actions by advantage (iql, awac) can tell them apart"
            )
    if any("spikes" in s.kind for s in found):
        said.append("rows that no dynamics explain: look at them first; heavy-tailed losses bear them best")
    return tuple(said) or ("nothing speaks against any method: compare them with policylab solve",)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
