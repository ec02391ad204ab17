"""The picture of docs/verified.md: what a small model learns from its own checked answers, and which of them teach it anything."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from policylab.claims.reasoning import reinforced, right
from policylab.claims.reasoning.lite_ppo import ARMS, LEVELS, TRIES, problems, starts
from policylab.hyperparameters import traced
from policylab.reporting.figures import COLOURS, as_png, plotting
from policylab.sources.refill import PassRate, Refill

SEEDS, UPDATES, WINDOW = 4, 60, 10
NAMES = {"lite": "lite-ppo", "dapo": "dapo, with Refill"}


def answers() -> bytes:
    """Right answers by the length of the question before and after, and the share of groups with right and wrong answers."""
    (source, held), start = problems(), starts(range(SEEDS))
    level = np.resize(np.asarray(LEVELS), held.ids.shape[0])
    by_level = lambda policy: np.stack([100 * np.asarray(right(policy, held))[:, level == n].mean((1, 2)) for n in LEVELS])
    plt = plotting()
    figure, (solved, apart) = plt.subplots(1, 2, figsize=(9.6, 4.0), layout="constrained")
    shown = {"before": (by_level(start), COLOURS[7])}
    for (arm, name), colour in zip(NAMES.items(), COLOURS, strict=False):
        learner = traced(ARMS[arm])
        drawn_from = Refill(source, PassRate(), tries=TRIES) if arm == "dapo" else source
        state, _, told = reinforced(learner, drawn_from.serve(learner.needs), start, jnp.arange(SEEDS), UPDATES)
        shown[name] = by_level(state["policy"].model), colour
        share = 100 * np.asarray(told["answers_apart"])
        means = share.reshape(SEEDS, UPDATES // WINDOW, WINDOW).mean(axis=2)
        middle = WINDOW * np.arange(UPDATES // WINDOW) + WINDOW / 2
        apart.plot(middle, means.mean(axis=0), "o-", color=colour, linewidth=2, label=name)
        apart.plot(middle, means.T, color=colour, linewidth=0.8, alpha=0.4)
    for number, (name, (share, colour)) in enumerate(shown.items()):
        place = np.arange(len(LEVELS)) + 0.26 * (number - 1)
        solved.bar(place, share.mean(axis=1), width=0.24, color=colour, alpha=0.85, label=name)
        solved.plot(place, share, ".", color="#222222", markersize=5)
    solved.set_xticks(range(len(LEVELS)), [f"{level} digits" for level in LEVELS])
    solved.set(ylabel="right answers (%)", ylim=(0, 100), title="held-out questions")
    solved.legend(frameon=False)
    apart.set(xlabel="updates", ylabel="groups (%)", ylim=(0, 105), title="groups with right and wrong answers")
    apart.legend(frameon=False, loc="lower left")
    return as_png(figure)


PICTURES = {"answers": answers}
