"""The pictures of docs/preferences.md: what is learned from comparisons, and what alignment pays for its reward."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import policylab as lab
from policylab.policies.tabular import TabularPolicy
from policylab.reporting.figures import COLOURS, as_png, plotting

SPEC = lab.Spec(lab.Discrete(1), lab.Box((2,), -1.0, 1.0))
PAIRS, SHOWN = 2_000, 25


def truth(place: np.ndarray) -> np.ndarray:
    """A high hill and a lower, broader one."""
    hill = lambda x, y, wide: np.exp(-((place[..., 0] - x) ** 2 + (place[..., 1] - y) ** 2) / (2 * wide**2))
    return 4.0 * hill(0.5, 0.4, 0.25) + 2.5 * hill(-0.45, -0.35, 0.35)


def compared() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places anywhere in the square, two by two, and whether the first was preferred: with chance sigma(reward of a - of b)."""
    random = np.random.default_rng(0)
    a, b = random.uniform(-1, 1, (2, PAIRS, 2)).astype(np.float32)
    return a, b, (random.uniform(size=PAIRS) < 1 / (1 + np.exp(truth(b) - truth(a)))).astype(np.float32)


def reward() -> bytes:
    """The reward behind 2,000 comparisons, what Bradley-Terry makes of them, and where DPO's answers go."""
    a, b, first = compared()
    pairs = lab.Preferences.of(np.zeros(PAIRS, np.int32), a, b, first, spec=SPEC)
    fit = lab.Fit(lab.BradleyTerry(width=64), learning_rate=3e-3, batch_size=128)
    model = lab.train(fit, pairs, steps=800).products(seed=0)["reward"]

    form = lab.Mixture(experts=6, width=32, depth=1)
    none = np.zeros(PAIRS, bool)
    answers = lab.Recording(np.zeros(2 * PAIRS, np.int32), a, None, none, ~none, np.ones(PAIRS, np.int64), SPEC)
    start = lab.train(lab.BC(policy=form, learning_rate=3e-3, batch_size=128), answers, steps=1_500).policy()
    dpo = lab.DPO(beta=0.5, learning_rate=1e-3, batch_size=128, policy=form)
    policy = lab.train(dpo, pairs, steps=800, given={"start": start}).policy()
    draws = lambda policy: np.asarray(
        jax.jit(jax.vmap(lambda k: policy.act(jnp.asarray(0), None, key=k)[0]))(jax.random.split(jax.random.key(1), 400))
    )
    before, after = draws(start), draws(policy)
    line = np.linspace(-1, 1, 81)
    across, up = np.meshgrid(line, line)
    places = np.stack([across, up], axis=-1).reshape(-1, 2).astype(np.float32)
    learned = np.asarray(jax.jit(jax.vmap(lambda p: model.scores(jnp.asarray(0), p)[0]))(jnp.asarray(places)))
    true = truth(places)
    learned = learned - learned.mean() + true.mean()  # comparisons tell rewards up to a constant
    plt = plotting()
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 4.6), sharey=True, layout="constrained")
    top = max(true.max(), learned.max())
    levels = np.linspace(min(true.min(), learned.min()), top, 21)
    for axis, field, name in zip(axes, (true, learned), ("true reward, and 25 pairs", "learned reward"), strict=False):
        drawn = axis.contourf(across, up, field.reshape(across.shape), levels=levels, cmap="cividis")
        axis.set_title(name)
    figure.colorbar(drawn, ax=axes[:2], orientation="horizontal", label="reward", shrink=0.7, ticks=(-1, 0, 1, 2, 3, 4))
    for one, other, won in zip(a[:SHOWN], b[:SHOWN], first[:SHOWN], strict=True):
        low, high = (other, one) if won else (one, other)
        right = truth(high) > truth(low)
        axes[0].annotate("", high, low, arrowprops={"arrowstyle": "->", "color": "#ffffff" if right else COLOURS[1], "lw": 0.9})
    axes[2].contour(across, up, true.reshape(across.shape), levels=6, colors="#b0b0ae", linewidths=1)
    axes[2].scatter(*before.T, s=7, color=COLOURS[7], alpha=0.5, linewidths=0, label="before")
    axes[2].scatter(*after.T, s=7, color=COLOURS[0], alpha=0.6, linewidths=0, label="after DPO")
    axes[2].set_title("answers of the policy")
    axes[2].legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), markerscale=3, ncols=2, frameon=False, columnspacing=0.8)
    for axis in axes:
        axis.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal", xlabel="answer, first number")
        axis.grid(False)
    axes[0].set_ylabel("answer, second number")
    print("mean true reward before, after:", truth(before).mean(), truth(after).mean())
    return as_png(figure)


ANSWERS, COMPARED, FLIPS, SEEDS = 20, 1_000, 0.2, 5
BETAS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


def price() -> bytes:
    """Reward over divergence from the reference, for the strengths with which a policy may be held to it."""
    random = np.random.default_rng(1)
    prior, gain = jnp.asarray(0.7 * random.normal(size=ANSWERS), jnp.float32), jnp.asarray(random.normal(size=ANSWERS))
    reference = jax.nn.softmax(prior)
    spec = lab.Spec(lab.Discrete(1), lab.Discrete(ANSWERS))
    start = TabularPolicy(prior[None])

    def place(chance: jax.Array) -> tuple[float, float]:
        return float(jnp.sum(chance * (jnp.log(chance) - jnp.log(reference)))), float(chance @ gain)

    def judged(seed: int, flips: float) -> lab.Preferences:
        draw = np.random.default_rng(seed)
        a, b = draw.choice(
            ANSWERS, (2, COMPARED), p=np.asarray(reference, np.float64) / float(np.sum(np.asarray(reference, np.float64)))
        )
        won = draw.uniform(size=COMPARED) < 1 / (1 + np.exp(np.asarray(gain)[b] - np.asarray(gain)[a]))
        return lab.Preferences.of(
            np.zeros(COMPARED, np.int32), a, b, (won ^ (draw.uniform(size=COMPARED) < flips)).astype(np.float32), spec=spec
        )

    arms = {
        "DPO": ({}, 0.0),
        "IPO": ({"loss": "ipo"}, 0.0),
        "DPO, 20% of labels flipped": ({}, FLIPS),
        "robust DPO, 20% flipped": ({"labels": "robust", "flips": FLIPS}, FLIPS),
    }
    plt = plotting()
    figure, axes = plt.subplots(figsize=(6.6, 4.4))
    best = [place(jax.nn.softmax(prior + gain / beta)) for beta in np.geomspace(0.04, 30, 80)]
    axes.plot(*zip(*best, strict=True), color="#222222", linewidth=2, label="the most for its price")
    for (name, (settings, flips)), colour, mark in zip(arms.items(), COLOURS, "osD^", strict=False):
        found = []
        for beta in BETAS:
            learner = lab.DPO(beta=beta, batch_size=0, learning_rate=0.03, policy=lab.Tabular(), **settings)
            for seed in range(SEEDS):
                policy = lab.train(learner, judged(seed, flips), steps=600, given={"start": start}).policy()
                found.append(place(jax.nn.softmax(policy.table[0])))
        found = np.array(found).reshape(len(BETAS), SEEDS, 2)
        axes.plot(*found.mean(axis=1).T, mark + "-", color=colour, label=name, markersize=6)
        axes.scatter(*found.reshape(-1, 2).T, s=8, color=colour, alpha=0.35, linewidths=0)
        print(name, found.mean(axis=1).round(2).tolist())
    axes.set(xlabel="divergence from the reference (nats)", ylabel="true reward, mean")
    axes.legend(frameon=False, fontsize=10)
    return as_png(figure)


PICTURES = {"reward": reward, "price": price}
