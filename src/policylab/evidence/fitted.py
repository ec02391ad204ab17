"""Evidence from rewards alone: fitted Q evaluation on held-out episodes. Unverified, and said so."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from policylab.data.recording import Recording
from policylab.evaluation.statistics import interval
from policylab.evidence.kinds import Evidence
from policylab.evidence.likelihood import blind_trial
from policylab.evidence.plan import Plan, Problem
from policylab.learners.offline.fqe import FQE
from policylab.policy import actions
from policylab.reporting.page import Row, number
from policylab.runs import PerSeed, Run
from policylab.sources.dataset import Dataset
from policylab.training import train

DISCOUNT = 0.99
TARGET_RATE = 0.05  # the target follows the critic with a time constant of 20 updates


def judge(problem: Problem, plan: Plan) -> Evidence:
    """Learn on most episodes; judge each policy's mode by FQE fitted on other episodes, at the starts of those; no winner."""
    learn, test = problem.recording.split((0.7, 0.3), seed=problem.seed)
    dataset, held_out = Dataset.of(learn), Dataset.of(test)
    logged = discounted_returns(test)
    own = interval(logged)
    rows = [
        Row(
            "the logged episodes",
            own.value,
            (own.low, own.high),
            f"{len(logged)} held-out episodes",
            note="what was really earned",
        )
    ]
    runs: dict[str, Run] = {}
    problem.facts["training seeds"] = (
        ", ".join(map(str, plan.selection)) + " (estimates are means over them; the first is saved)"
    )
    for name, learner in plan.learners.items():
        runs[name] = train(learner, dataset, steps=plan.steps, seeds=plan.selection, progress=problem.progress)
        values = np.mean(start_values(runs[name], held_out, test, plan), axis=0)
        found = interval(values)
        rows.append(Row(name, found.value, (found.low, found.high), f"{len(values)} held-out episodes", note="unverified"))
    best = max(rows[1:], key=lambda row: row.value)
    return Evidence(
        kind="fitted-q",
        winner=None,
        verdict=(
            f"No winner: without propensities or a simulator nothing can verify a policy. Fitted Q evaluation puts {best.method} "
            f"first at {number(best.value)}, where the logged episodes earned {number(own.value)}."
        ),
        words=(
            "The numbers are what a value function, fitted by fitted Q evaluation on held-out episodes, expects from the starts of "
            "those episodes. They extrapolate wherever a policy does what the data do not hold, and their intervals cover the starts "
            "only, not that error: treat them as unverified. All policies are saved."
        ),
        unit=f"discounted return ({DISCOUNT} per step)",
        confirmed=tuple(rows),
        plan=blind_trial(),
        saved=runs,
    )


def start_values(run: Run, held_out: Dataset, test: Recording, plan: Plan) -> np.ndarray:
    """Q(s0, pi(s0)) of every seed's policy at the start of every held-out episode: [seed, episode]."""
    policy = jax.vmap(lambda policy: policy.mode())(run.products()["policy"])
    judge = FQE(discount=DISCOUNT, width=64, learning_rate=1e-3, target_rate=TARGET_RATE)
    # Rewards travel one step back per time constant: too few updates would leave values near 0, far above or below the truth.
    backups = 4 * min(1 / (1 - DISCOUNT), float(test.lengths.max()))
    steps = max(plan.steps, int(np.ceil(backups / TARGET_RATE)))
    fitted = train(judge, held_out, steps=steps, seeds=run.seeds, given={"policy": PerSeed(policy)})
    first = test.starts + np.arange(test.episodes)
    start = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[first]), test.observation)

    def one(policy, critic):
        return jax.vmap(critic.score)(start, actions(policy, start, key=jax.random.key(0)))

    return np.asarray(jax.jit(jax.vmap(one))(policy, fitted.products()["critic"]))


def discounted_returns(recording: Recording) -> np.ndarray:
    """Of every episode, from its start."""
    assert recording.reward is not None
    within = np.arange(recording.steps) - np.repeat(recording.starts, recording.lengths)
    return np.add.reduceat(np.asarray(recording.reward, np.float64) * DISCOUNT**within, recording.starts)
