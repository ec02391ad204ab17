"""The picture of docs/online.md on experts who take over: what is learned from a weak one, by imitation and by reinforcement."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import policylab as lab
from policylab.claims.online.rlif import (
    CHOSEN,
    DISC,
    ERRORS,
    GOAL,
    HORIZON,
    MARGIN,
    ROOM,
    STEPS,
    Progress,
    cloning,
    pilot,
    rlif,
    scores,
    source,
    watched,
)
from policylab.reporting.figures import COLOURS, as_png, plotting

FLIGHTS, SEEDS = 14, 5  # trained as in the claim, the first of them drawn


def takeovers() -> bytes:
    """Flights of the expert and of two who learned from it, from the same places, and where it would have taken over."""
    learned = {
        "HG-DAgger": (cloning(**CHOSEN["hg-dagger"]), source("weak", watched(), "expert")),
        "RLIF": (rlif(**CHOSEN["rlif"]), source("weak", watched(), "all")),
    }
    policies = {"weak expert": pilot(ERRORS["weak"])}
    policies |= {name: lab.train(*arm, steps=STEPS, seeds=SEEDS).policy(seed=0) for name, arm in learned.items()}

    def loss(place: jax.Array, action: jax.Array) -> jax.Array:
        best = pilot(0.0).act(place, None, key=jax.random.key(0))[0]
        return Progress().score(place, best) - Progress().score(place, action)

    plt = plotting()
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 4.3), sharex=True, sharey=True, layout="constrained")
    for axis, (name, policy) in zip(axes, policies.items(), strict=True):
        play = lambda policy: lab.unroll(policy, ROOM, episodes=FLIGHTS, horizon=HORIZON, key=jax.random.key(4))
        flown = jax.jit(play)(policy)
        places = np.asarray(flown.observation)
        stopped = np.asarray(jax.jit(jax.vmap(jax.vmap(loss)))(jnp.asarray(places[:, :-1]), flown.action)) > MARGIN
        axis.add_patch(plt.Circle(DISC[:2], DISC[2], color="#55585c"))
        for way in places:
            axis.plot(*way.T, color=COLOURS[0], linewidth=1.1, alpha=0.7)
            axis.plot(*way[0], "o", color="#ffffff", markeredgecolor=COLOURS[0], markersize=5)
        axis.scatter(*places[:, :-1][stopped].T, s=14, color=COLOURS[1], alpha=0.7, linewidths=0, zorder=3)
        axis.plot(*GOAL, "*", color="#ffffff", markeredgecolor="#222222", markersize=16, zorder=4)
        score = float(scores(policy, [0], stacked=False)[0])
        axis.set(title=f"{name}: {score:.0f} of 100", xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal", xlabel="x (m)")
    axes[0].set_ylabel("y (m)")
    axes[0].plot([], [], color=COLOURS[0], label="flights")
    axes[0].scatter([], [], s=30, color=COLOURS[1], label="where the expert takes over")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return as_png(figure)


PICTURES = {"takeovers": takeovers}
