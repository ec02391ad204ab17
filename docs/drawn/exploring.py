"""The picture of docs/exploring.md: what every episode is worth while one explores, with a floor under it and without."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from policylab.claims.theory.stepmix import ARMS, BATCH, BONUS, SHARE, detour, played
from policylab.hyperparameters import traced
from policylab.reporting.figures import COLOURS, as_png, plotting

EPISODES, SEEDS = 10_000, 5
NAMES = {"ucbvi": "UCBVI", "epsmix": "EpsMix", "stepmix": "StepMix"}


def floor() -> bytes:
    """The exact value of every plan on the way with costly detours, over the episodes."""
    processes = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(detour(seed) for seed in range(SEEDS)))
    plt = plotting()
    figure, axes = plt.subplots(figsize=(6.8, 4.2))
    episodes = BATCH * np.arange(1, EPISODES // BATCH + 1)
    for (arm, name), colour in zip(NAMES.items(), (COLOURS[1], COLOURS[2], COLOURS[0]), strict=True):
        learner = traced(ARMS[arm](bonus=BONUS, episodes=BATCH))
        values, worth, best = (np.asarray(x) for x in played(learner, processes, jnp.arange(SEEDS), EPISODES // BATCH))
        axes.plot(episodes, values.T, color=colour, alpha=0.45, linewidth=1)
        axes.plot([], [], color=colour, linewidth=2, label=name)
    for height, name in ((best[0], "the best there is"), (worth[0], "the safe baseline"), (SHARE * worth[0], "the floor")):
        axes.axhline(height, color="#222222", linewidth=1.2, linestyle="-" if name == "the floor" else ":")
        axes.annotate(
            name,
            (1.0, height),
            (4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=11,
        )
    axes.set(xscale="log", xlabel="episodes", ylabel="value of what is played (reward)")
    axes.legend(frameon=False)
    return as_png(figure)


PICTURES = {"floor": floor}
