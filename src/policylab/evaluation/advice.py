"""From the card to a shortlist: which learners fit these data, best first, each with the numbers that speak for it.

Evidence: Schweighofer et al. 2022 (arXiv 2111.04714): behaviour cloning competes with the best where TQ is high, the DQN family
needs high SACo, constrained methods (BCQ, CQL) do well where either is high. Yang et al. 2024 (arXiv 2310.12955): IQL withstands
corrupted data, RIQL more so. Kumar et al. 2022 (arXiv 2204.05618): offline RL gains over cloning where critical decisions are few
and data are noisy. The thresholds are ours: rules of thumb for what to try first, never a result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policylab.evaluation.diagnosis import Card

HIGH_QUALITY = 0.7  # TQ from which cloning is expected to compete
LOW_QUALITY = 0.3
HIGH_COVERAGE = 0.7  # SACo from which unconstrained value learning is expected to work
FEW_POSITIVES = 100  # positive rewards of a bandit log below which models of the reward are hardly better than a guess
CORRUPTING = ("spikes", "rewards", "actions", "broken chains", "scales", "stuck")

# What is advised -> the name of the learner in policylab.registry.
LEARNERS = {
    "cloning": {"continuous": "bc", "discrete": "bc"},
    "best-cloning": {"continuous": "percent-bc", "discrete": "percent-bc"},
    "td3-bc": {"continuous": "td3-bc"},
    "awac": {"continuous": "awac"},
    "iql": {"continuous": "iql"},
    "cql": {"continuous": "cql", "discrete": "cql-discrete"},
    "rebrac": {"continuous": "rebrac"},
    "robust-iql": {"continuous": "riql"},
    "nearest-pair": {"continuous": "prdc"},
    "advantage-guided": {"continuous": "a2pr"},
    "q-learning": {"discrete": "dqn"},
    "constrained-q": {"discrete": "bcq"},
    "quantile-q": {"discrete": "qr-dqn"},
    "greedy-regression": {"bandit": "reward-regression"},
    "softmax-regression": {"bandit": "softmax-regression"},
    "inverse-propensity": {"bandit": "ipw"},
    "doubly-robust": {"bandit": "doubly-robust"},
}


@dataclass(frozen=True)
class Advice:
    """A learner's name and one sentence with the numbers that led to it."""

    learner: str
    reason: str


def shortlist(card: Card) -> list[tuple[str, str]]:
    """(learner name, reason) of the methods that fit the data on the card, best first."""
    size = card.size
    if size.returns is None:
        found = [("cloning", "no rewards were logged, so that only imitation can learn from these data")]
    elif size.rewards is not None and size.rewards.least == size.rewards.most and size.length.least == size.length.most:
        only = f"every reward is {size.rewards.least:g} in episodes of one length, so that no action is better than another"
        found = [("cloning", only)]
    elif size.single and size.discrete and len(size.counts):
        found = _bandit(card)
    elif size.discrete:
        found = _discrete(card)
    else:
        found = _continuous(card)
    kind = "discrete" if size.discrete else "continuous"
    names = [(LEARNERS[role].get("bandit" if "bandit" in LEARNERS[role] else kind), reason) for role, reason in found]
    return [(name, reason) for name, reason in names if name is not None]


def _quality(card: Card) -> tuple[str, str]:
    """high, middle, low or unknown, and the words for it."""
    tq, size = card.coverage.tq, card.size
    if tq is not None:
        level = "high" if tq >= HIGH_QUALITY else "low" if tq < LOW_QUALITY else "middle"
        return level, f"TQ {tq:.2f} (0: random, 1: the best known policy)"
    if size.success is not None:
        level = "high" if size.success >= 0.9 else "low" if size.success < 0.1 else "middle"
        return level, f"{size.success:.0%} of the episodes succeed"
    return "unknown", "no reference return is known, so that the quality of the data cannot be placed"


def _covered(card: Card) -> tuple[str, str]:
    saco, cover = card.coverage.saco, card.coverage
    if saco is not None:
        level = "high" if saco >= HIGH_COVERAGE else "low"
        return level, f"SACo {saco:.2f} (1: as many different state-action pairs as the reference)"
    size = card.size
    if size.observation.startswith("Discrete(") and len(size.counts):  # finite: what there is to try is known
        tried = cover.unique_pairs / max(1, cover.distinct_states * len(size.counts))
        level = "high" if tried >= HIGH_COVERAGE else "low"
        return level, f"{tried:.0%} of the choices were tried in the {cover.distinct_states} states that were seen"
    return "unknown", f"{cover.unique_share:.0%} of the state-action pairs differ, with no reference to compare with"


def _gap(card: Card) -> str:
    """The words for a best tenth that is clearly better than the mean, or nothing."""
    size = card.size
    if size.returns is None or size.top_mean is None or size.episodes < 20:
        return ""
    if size.top_mean - size.returns.mean < max(0.5 * size.returns.deviation, 1e-9):
        return ""
    groups = card.coverage.return_modes
    several = f" and fall into {groups} groups" if groups and groups > 1 else ""
    return f"returns range from {size.returns.lower:.3g} to {size.returns.upper:.3g} (5-95%){several}"


def _corrupted(card: Card) -> str:
    hits = [one for one in card.suspicions if one.raised and one.name in CORRUPTING]
    return "; ".join(f"{one.name}: {one.count:,} {one.unit} ({one.share:.1%})" for one in hits)


def _continuous(card: Card) -> list[tuple[str, str]]:
    quality, quality_words = _quality(card)
    gap, corrupted = _gap(card), _corrupted(card)
    mixed = "mixed data: " + gap
    found: list[tuple[str, str]] = []
    if corrupted:
        found.append(
            ("robust-iql", f"parts look corrupted ({corrupted}): IQL with Huber loss and quantile targets withstands that")
        )
    iql = f"{quality_words}; it never asks for the value of an action that was not taken"
    cloning = f"{quality_words}; the baseline that everything else has to beat"
    if quality == "high":
        found += [
            ("cloning", f"{quality_words}: cloning competes with the best on such data"),
            ("td3-bc", f"{quality_words}: improves on cloning while staying close to it"),
            ("iql", iql),
        ]
        found += [("best-cloning", f"{gap}: clone the best tenth")] if gap else []
        found.append(("rebrac", "the strongest regularised actor-critic of its kind, if cloning leaves room"))
        return found
    if gap:
        found += [
            ("iql", f"{mixed}; {iql}"),
            ("rebrac", f"{gap}: there is something better than the average to move to"),
            ("advantage-guided", f"{mixed}: pull towards the better actions only"),
            ("td3-bc", f"{gap}: the simplest constrained actor-critic"),
            ("best-cloning", f"{gap}: clone the best tenth (mean return {card.size.top_mean:.3g})"),
            ("awac", f"{gap}: cloning weighted by advantage"),
        ]
    else:
        found += [
            ("iql", iql),
            ("td3-bc", f"{quality_words}; stays close to the data"),
            ("rebrac", "stays close, tunable on both sides"),
        ]
    divergence = card.coverage.action_divergence
    if divergence is not None and divergence > 0.5:
        words = f"neighbouring states hold different actions (action divergence {divergence:.2f})"
        found.append(("nearest-pair", f"{words}: the best of several actions nearby can be chosen"))
    found.append(("cql", f"{quality_words}; pessimistic values for actions that the data don't show"))
    found.append(("cloning", cloning))
    return found


def _discrete(card: Card) -> list[tuple[str, str]]:
    quality, quality_words = _quality(card)
    coverage, coverage_words = _covered(card)
    cloning = (
        "cloning",
        f"{quality_words}" + (": cloning competes with the best on such data" if quality == "high" else "; the baseline"),
    )
    constrained = [
        ("cql", f"{quality_words}, {coverage_words}: pessimism does well where quality or coverage is high"),
        ("constrained-q", f"{quality_words}, {coverage_words}: only actions that the data show are considered"),
    ]
    free = [
        ("q-learning", f"{coverage_words}: unconstrained value learning needs such coverage"),
        ("quantile-q", f"{coverage_words}: as DQN, with the whole distribution of returns"),
    ]
    if coverage == "low":
        free = [("q-learning", f"{coverage_words}: too little for unconstrained value learning; for comparison only")]
    if coverage == "unknown":
        free = [("q-learning", f"{coverage_words}; unconstrained value learning works only with high coverage")]
    gap = _gap(card)
    best = [("best-cloning", f"{gap}: clone the best tenth")] if gap else []
    if quality == "high":
        return [cloning, *constrained, *best, *free]
    if coverage == "high":
        return [*free, *constrained, *best, cloning]
    return [*constrained, *best, *free, cloning]


def _bandit(card: Card) -> list[tuple[str, str]]:
    log = card.choices
    if log is None:
        return [("cloning", "single decisions without rewards: only the logged choices can be imitated")]
    few = log.positives < FEW_POSITIVES and log.binary
    rewards = f"{log.positives:,} positive rewards among {log.rows:,} decisions and {log.choices} choices"
    shaky = ": too few to tell most choices apart, expect a wide interval" if few else ""
    found = []
    if log.propensity_low is not None and log.uniform_effective is not None:
        wrong = "" if log.consistent else "; but the propensities contradict the choices, check them first"
        weights = f"propensities from {log.propensity_low:.3g} to {log.propensity_high:.3g}{wrong}"
        found.append(("doubly-robust", f"{rewards}{shaky}; {weights}: a reward model corrected by inverse propensities"))
        found.append(("inverse-propensity", f"{weights}: unbiased without a reward model, at the price of variance"))
    found.append(
        ("softmax-regression", f"{rewards}{shaky}; a stochastic policy stays closer to the log and can be judged from it")
    )
    found.append(("greedy-regression", f"{rewards}{shaky}; the highest predicted reward wins"))
    found.append(("cloning", f"the logging policy itself earns {log.rate:.3g} per decision: what the others have to beat"))
    return found
