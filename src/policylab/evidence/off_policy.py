"""Evidence from a log with rewards and propensities: estimates on rows that neither learned nor selected the policy."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from policylab.data.recording import Recording
from policylab.evaluation import logged_bandits, logged_episodes
from policylab.evaluation.off_policy import Estimate, difference_to_logging
from policylab.evidence.kinds import Evidence
from policylab.evidence.plan import Plan, Problem
from policylab.experience import Window
from policylab.policy import Policy
from policylab.reporting.page import Row, number
from policylab.runs import Run
from policylab.sources.dataset import Dataset
from policylab.training import train

_SHARES = (0.5, 0.2, 0.3)  # learn, select, report


def judge(problem: Problem, plan: Plan) -> Evidence:
    """Learn on half of the groups, select on a fifth, report on the rest; a winner only where its gain is sure."""
    learn, select, report = problem.recording.split(_SHARES, seed=problem.seed)
    dataset = Dataset.of(learn)
    runs = {
        name: train(learner, dataset, steps=plan.steps, seeds=plan.fresh[:1], progress=problem.progress)
        for name, learner in plan.learners.items()
    }
    chosen = {name: _estimate(run, select)[0] for name, run in runs.items()}
    best = max(chosen, key=lambda name: -np.inf if np.isnan(chosen[name].value) else chosen[name].value)
    found = {name: _estimate(run, report) for name, run in runs.items()}
    gains = {name: difference_to_logging(estimate, log) for name, (estimate, log) in found.items()}
    low = gains[best].interval[0]
    sure = bool(low > 0) and not found[best][0].warning
    earned = next(iter(found.values()))[1].logging_value()
    per = "decision" if int(problem.recording.lengths.max()) == 1 else "episode"
    problem.facts["training seed"] = f"{plan.fresh[0]} (one policy per method: the estimates are of this policy)"
    return Evidence(
        kind="off-policy",
        winner=best if sure else None,
        verdict=_verdict(best, gains[best], found[best][0], sure, per),
        words=(
            f"Nothing was tried for real: these are off-policy estimates on {report.episodes:,} {found[best][0].unit}s that neither "
            f"learned nor selected a policy. The logging policy itself earned {number(earned.value)} "
            f"({number(earned.interval[0])} to {number(earned.interval[1])}) on them. Estimator: {found[best][0].name}, of policies "
            "that sample their actions."
        ),
        unit=f"reward per {per}",
        confirmed=tuple(_row(name, estimate, name == best and sure) for name, (estimate, _) in found.items()),
        selection=tuple(_row(name, estimate, name == best) for name, estimate in chosen.items()),
        differences=tuple(
            replace(_row(f"{name} minus the logging policy", gain, False), note="") for name, gain in gains.items()
        ),
        shipped=(best, runs[best], runs[best].seeds[0]) if sure else None,
        saved=runs,
    )


def _estimate(run: Run, rows: Recording) -> tuple[Estimate, logged_bandits.BanditLog | logged_episodes.EpisodeLog]:
    """The estimate of the run's first policy on these rows, and the log that it rests on."""
    log = log_for(run.policy(), rows)
    if isinstance(log, logged_bandits.BanditLog):
        return logged_bandits.estimates(log)["SNIPS"], log
    return logged_episodes.weighted_per_decision(log), log


def log_for(policy: Policy, rows: Recording) -> logged_bandits.BanditLog | logged_episodes.EpisodeLog:
    """The log with what `policy` would do on it: probabilities of all choices where they can be listed, else densities."""
    assert rows.reward is not None
    group = rows.extra.get("group")
    unit = "episode" if group is None else "group"
    single = int(rows.lengths.max()) == 1
    target = np.exp(step_log_probs(policy, rows))
    if single:
        return logged_bandits.BanditLog(
            np.asarray(rows.reward),
            np.asarray(rows.extra["propensity"]),
            target,
            group=group,
            unit="impression" if unit == "episode" else unit,
        )
    return logged_episodes.EpisodeLog(
        np.asarray(rows.reward), np.asarray(rows.extra["propensity"]), target, rows.lengths,
        group=None if group is None else group[rows.starts], unit=unit,
    )  # fmt: skip


def step_log_probs(policy: Policy, rows: Recording, *, block: int = 4096) -> np.ndarray:
    """log pi(a | s) of every logged action, block by block; of a memoryless policy."""
    inside = rows.observation_rows

    @jax.jit
    def compute(observation, action):
        count = jax.tree.leaves(action)[0].shape[0]
        flags, ones = jnp.zeros(count, bool), jnp.ones(count)
        window = Window(observation, action, ones, observation, flags, flags, ~flags, jnp.ones(count, jnp.int32))
        return policy.log_prob(window)

    pieces = []
    for first in range(0, rows.steps, block):
        take = np.arange(first, min(first + block, rows.steps))
        padded = np.concatenate([take, np.full(block - len(take), take[-1])])
        observation = jax.tree.map(lambda leaf, at=inside[padded]: jnp.asarray(leaf[at]), rows.observation)
        action = jax.tree.map(lambda leaf, at=padded: jnp.asarray(leaf[at]), rows.action)
        pieces.append(np.asarray(compute(observation, action), np.float64)[: len(take)])
    return np.concatenate(pieces)


def _row(name: str, estimate: Estimate, winner: bool) -> Row:
    return Row(
        name, estimate.value, estimate.interval, f"{estimate.units:,} {estimate.unit}s", note=estimate.warning, winner=winner,
        extra={
            "matched positives": str(estimate.matched_positives),
            "effective sample size": f"{estimate.effective_sample_size:,.0f}",
        },
    )  # fmt: skip


def _verdict(best: str, gain: Estimate, estimate: Estimate, sure: bool, per: str) -> str:
    told = (
        f"estimated to earn {number(abs(gain.value))} {'less' if gain.value < 0 else 'more'} per {per} than the logging policy "
        f"(95% interval of the difference: {number(gain.interval[0])} to {number(gain.interval[1])})"
    )
    if sure:
        return f"The winner is {best}, {told}."
    unsure = ["the interval holds 0"] if gain.interval[0] <= 0 <= gain.interval[1] else []
    unsure += [estimate.warning] if estimate.warning else [] if unsure else ["it is worse"]
    return (
        f"No winner. {best}, which looked best on the rows that choose, is {told}, but {'; '.join(unsure)}. All policies are saved: "
        "log more, or try them in a controlled trial."
    )
