"""The pictures of docs/agents.md: how two who learn agree on a place, and how an embedding tells partners apart."""

from __future__ import annotations

import jax
import numpy as np

import policylab as lab
from policylab.claims.multiagent.clam import CHOSEN, HORIZON, UPDATES, arm
from policylab.environments.rendezvous import PLACES, Rendezvous
from policylab.environments.time_limit import TimeLimit
from policylab.reporting.figures import COLOURS, as_png, plotting

TIMES, PAIRS = (1, 5, 10, 15, 25), (0, 1, 2)
SPANS, EPISODES = (1, 2, 3, 6), 600


def conventions() -> bytes:
    """How often two who learn side by side choose each pair of places, from the first update on; a row per training seed."""
    game = TimeLimit(lab.Joint(Rendezvous()), 8)
    ppo = lab.PPO(environments=32, steps=8, batch_size=64, epochs=4, width=16, depth=1, learning_rate=3e-3, normalise=False)
    learner, source = lab.Independent(ppo, share=False), lab.Rollout(game)
    run, done, shown = None, 0, []
    for time in TIMES:
        begin = {"seeds": len(PAIRS)} if run is None else {}
        run, done = lab.train(run or learner, source, steps=time - done, **begin), time
        shown.append([together(run.policy(seed=seed), game) for seed in PAIRS])
    plt = plotting()
    figure, axes = plt.subplots(len(PAIRS), len(TIMES), figsize=(9.6, 6.4), sharex=True, sharey=True, layout="constrained")
    for column, (time, matrices) in enumerate(zip(TIMES, shown, strict=True)):
        for row, (share, met) in enumerate(matrices):
            axis = axes[row, column]
            drawn = axis.imshow(100 * share, origin="lower", vmin=0, vmax=100, cmap="cividis")
            axis.grid(False)
            axis.set_xticks(range(PLACES), "ABCD")
            axis.set_yticks(range(PLACES), "ABCD")
            if row == len(PAIRS) - 1:
                axis.set_xlabel(f"{time} update{'s' * (time > 1)}")
            if not column:
                axis.set_ylabel(f"run {row + 1}")
            axis.set_title(f"meet {100 * met:.0f}%", fontsize=11)
    figure.colorbar(drawn, ax=axes, label="of all choices (%)", shrink=0.7)
    figure.supxlabel("across: place of the first player, up: place of the second", fontsize=12)
    return as_png(figure)


def together(team: lab.Policy, game: lab.Environment) -> tuple[np.ndarray, float]:
    """The share of every pair of places [second, first] in 200 episodes, and how often they are the same."""
    played = jax.jit(lambda team: lab.unroll(team, game, episodes=200, horizon=8, key=jax.random.key(0)))(team)
    first, second = (np.asarray(played.action[role]).ravel() for role in ("first", "second"))
    share = np.zeros((PLACES, PLACES))
    np.add.at(share, (second, first), 1 / len(first))
    return share, float(np.trace(share))


def partners() -> bytes:
    """Embeddings of histories, longer from panel to panel, coloured by who the partner is."""
    learner, environment = arm("clam", **CHOSEN["clam"])
    products = lab.train(learner, lab.Rollout(environment), steps=UPDATES).products(seed=0)
    played = jax.jit(lambda policy: lab.unroll(policy, environment, episodes=EPISODES, horizon=HORIZON, key=jax.random.key(9)))(
        products["policy"]
    )
    other = np.asarray(played.info["other"])[:, 0].astype(int)
    seen = jax.jit(jax.vmap(jax.vmap(products["encoder"])))(played.observation["past"], played.observation["seen"])
    seen = np.asarray(seen)
    seen = seen / np.linalg.norm(seen, axis=-1, keepdims=True)
    late = seen[:, SPANS[-1]]
    directions = np.linalg.svd(late - late.mean(0), full_matrices=False)[2][:2]
    orders = ("ABCD", "ABDC", "ACBD", "ACDB", "ADBC", "ADCB")
    random = np.random.default_rng(0)
    plt = plotting()
    figure, axes = plt.subplots(1, len(SPANS), figsize=(10.4, 3.6), sharex=True, sharey=True, layout="constrained")
    for axis, span in zip(axes, SPANS, strict=True):
        flat = (seen[:, span] - late.mean(0)) @ directions.T
        shown = flat + 0.015 * random.standard_normal(flat.shape)  # partners make no mistakes, so that histories repeat
        for number, order in enumerate(orders):
            axis.scatter(*shown[other == number].T, s=9, color=COLOURS[number], alpha=0.6, linewidths=0, label=order)
        axis.set(title=f"{span} place{'s' * (span > 1)} seen", aspect="equal", xticks=(-0.5, 0, 0.5), yticks=(-0.5, 0, 0.5))
    figure.supxlabel("embedding, 1st direction", fontsize=12)
    axes[0].set_ylabel("2nd direction")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False, markerscale=2)
    return as_png(figure)


PICTURES = {"conventions": conventions, "partners": partners}
