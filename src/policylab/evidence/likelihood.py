"""The weakest evidence: demonstrations alone. How well each form predicts episodes that it has not seen; no winner."""

from __future__ import annotations

import numpy as np

from policylab import spaces
from policylab.evaluation.statistics import interval
from policylab.evidence.kinds import Evidence
from policylab.evidence.plan import Plan, Problem
from policylab.learners.imitation.bc import BC
from policylab.policies.categorical import Categorical
from policylab.policies.gaussian import Gaussian
from policylab.policy import Policy
from policylab.reporting.page import Row
from policylab.sources.dataset import Dataset
from policylab.training import train


def judge(problem: Problem, plan: Plan) -> Evidence:
    """Clone with every form that has a density; log-likelihood per step of held-out episodes, an interval over episodes."""
    learn, test = problem.recording.split((0.8, 0.2), seed=problem.seed)
    width = 64
    forms = (
        {"categorical": Categorical(width=width)}
        if isinstance(problem.recording.spec.action, spaces.Discrete)
        else {
            "gaussian, one spread": Gaussian(width=width),
            "gaussian, spread by state": Gaussian(width=width, state_dependent_std=True),
        }
    )
    rows, runs = [], {}
    problem.facts["training seeds"] = ", ".join(map(str, plan.fresh)) + " (likelihoods are means over them; the first is saved)"
    dataset = Dataset.of(learn)
    for name, form in forms.items():
        run = train(BC(policy=form), dataset, steps=plan.steps, seeds=plan.fresh, progress=problem.progress)
        runs[name] = run
        each = np.mean([_per_episode(run.policy(seed=seed), test) for seed in run.seeds], axis=0)
        found = interval(each) if len(each) > 1 else None
        rows.append(
            Row(
                f"bc ({name})", float(each.mean()), (found.low, found.high) if found else None, f"{len(each)} held-out episodes"
            )
        )
    return Evidence(
        kind="likelihood",
        winner=None,
        verdict="No winner: these data hold demonstrations and no rewards, so nothing can say which policy would do better.",
        words=(
            "What can be measured is how well each cloned policy predicts the actions of episodes that it has not seen. A higher "
            "likelihood is a better description of the demonstrator, not a better policy. All policies are saved."
        ),
        unit="log-likelihood per step (nats)",
        confirmed=tuple(rows),
        plan=blind_trial(),
        saved=runs,
    )


def _per_episode(policy: Policy, test) -> np.ndarray:
    from policylab.evidence.off_policy import step_log_probs

    values = step_log_probs(policy, test)
    return np.add.reduceat(values, test.starts) / test.lengths


def blind_trial() -> str:
    """What a person would have to do to find a winner, with the number of trials that it takes."""
    rows = []
    for gap in (0.10, 0.20, 0.30):
        # Two proportions around one half, 5% two-sided error, 80% power (normal approximation).
        rows.append(f"{100 * gap:.0f} points: {int(np.ceil((1.96 + 0.84) ** 2 * 2 * 0.25 / gap**2))}")
    return (
        "To find a winner, run a blind trial: let each saved policy do the task from the same list of starts, in an order drawn "
        "at random before the first trial, with a judge who does not know which policy is running; note success or failure of "
        "every trial, also of those that were broken off.\n\n"
        f"Trials per policy to see a difference in success rates with 80% power: {'; '.join(rows)}."
    )
