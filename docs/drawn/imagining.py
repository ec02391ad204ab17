"""The picture of docs/imagining.md: what learned worlds foretell, and how far that holds."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import policylab as lab
from policylab.environments.pendulum import SECONDS, Pendulum
from policylab.reporting.figures import COLOURS, as_png, plotting

HORIZON, DRAWS, STARTS = 60, 30, 100
SIZES = (200, 5_000)  # real steps
UPDATES = 12_000


def world(steps: int) -> lab.World:
    """An ensemble that has seen so many steps, four fifths of them random."""
    rows = lab.load_task("pendulum").dataset("mixed", steps=20_000).select(np.arange(steps // 200))
    learner = lab.EnsembleDynamics(lab.DynamicsEnsemble(members=5, elites=5, width=64, depth=2))
    return lab.train(learner, lab.Dataset.of(rows), steps=UPDATES).products(seed=0)["world"]


def angle(observation: jax.Array) -> jax.Array:
    """From upright, in radians."""
    return jnp.arctan2(observation[..., 1], observation[..., 0])


def apart(a: jax.Array, b: jax.Array) -> jax.Array:
    """The smaller of the two ways from one angle to another, with its sign."""
    return (a - b + jnp.pi) % (2 * jnp.pi) - jnp.pi


@jax.jit
def foretold(learned: lab.World, actions: jax.Array, start: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The real angles [time] and the imagined ones [draw, time] under the same actions."""
    real = lambda state, action: (Pendulum().step(state, action, key)[0],) * 2
    truth = jax.lax.scan(real, Pendulum().at(start), actions)[1][:, 0]

    def imagine(key: jax.Array) -> jax.Array:
        def step(state: jax.Array, row: tuple) -> tuple[jax.Array, jax.Array]:
            after = learned.step(state, *row)[0]
            return after, angle(after)

        return jax.lax.scan(step, start, (actions, jax.random.split(key, len(actions))))[1]

    return (truth + jnp.pi) % (2 * jnp.pi) - jnp.pi, jax.vmap(imagine)(jax.random.split(key, DRAWS))


def imagined() -> bytes:
    """Fans of imagined pendulums beside the real one, and how error and spread grow with the horizon."""
    held = lab.load_task("pendulum").dataset("mixed", steps=20_000)
    random = np.random.default_rng(0)
    rows = zip(held.episodes - 1 - random.integers(40, size=STARTS), random.integers(200 - HORIZON, size=STARTS), strict=True)
    first = held.starts
    # Rows of actions, and of observations, of which an episode has one more.
    begin = [(first[episode] + time, first[episode] + episode + time) for episode, time in rows]
    starts = jnp.asarray(np.stack([held.observation[row] for _, row in begin]))
    actions = jnp.asarray(np.stack([held.action[row : row + HORIZON] for row, _ in begin]))
    keys = jax.random.split(jax.random.key(0), STARTS)
    found = {n: jax.vmap(foretold, in_axes=(None, 0, 0, 0))(world(n), actions, starts, keys) for n in SIZES}
    plt = plotting()
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 3.9), layout="constrained", width_ratios=(1, 1, 1.15))
    seconds = SECONDS * np.arange(1, HORIZON + 1)
    error = lambda n: jnp.median(jnp.abs(apart(found[n][1], found[n][0][:, None])), axis=1)  # of every start, over its draws
    order = np.argsort(np.asarray(error(SIZES[0])[:, HORIZON // 2]))
    one = int(order[len(order) // 2])  # neither an easy start nor a hard one for the world of the fewest steps
    for axis, steps in zip(axes, (SIZES[0], SIZES[-1]), strict=False):
        truth, fan = (np.cos(np.asarray(x[one])) for x in found[steps])
        axis.plot(seconds, fan.T, color=COLOURS[0], alpha=0.3, linewidth=1)
        axis.plot(seconds, truth, color="#222222", linewidth=2.2)
        axis.set(title=f"world of {steps:,} steps", xlabel="seconds ahead")
    for axis in axes[:2]:
        axis.set_ylim(-1.1, 1.15)
        axis.plot([], [], color=COLOURS[0], label=f"{DRAWS} imagined")
        axis.plot([], [], color="#222222", linewidth=2.2, label="real")
    axes[0].set_ylabel("height of the tip (m; 1 is upright)")
    for steps, colour in zip(SIZES, COLOURS[1:3], strict=True):
        fan = found[steps][1]
        middle = jnp.arctan2(jnp.sin(fan).mean(1), jnp.cos(fan).mean(1))
        spread = jnp.median(jnp.abs(apart(fan, middle[:, None])), axis=1)
        axes[2].plot(
            seconds, np.degrees(np.median(error(steps), axis=0)), color=colour, linewidth=2, label=f"world of {steps:,} steps"
        )
        axes[2].plot(seconds, np.degrees(np.median(spread, axis=0)), color=colour, linewidth=1.5, linestyle=":")
    axes[2].plot([], [], color="#222222", linewidth=1.5, linestyle=":", label="spread of the fan")
    axes[2].set(title="error in the angle", xlabel="seconds ahead", yscale="log", ylabel="degrees, median")
    axes[2].legend(frameon=False, fontsize=10, loc="lower right")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
    return as_png(figure)


PICTURES = {"imagined": imagined}
