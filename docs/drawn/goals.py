"""The pictures of docs/goals.md: what HILP takes for a distance, and where its skills lead."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policylab as lab
from policylab.claims.representation.hilp import INNER, SPIRAL, STEPS, data, learners, spiral, steps_between
from policylab.reporting.figures import as_png, plotting
from policylab.tasks.maze import Maze

FINE = 20  # points along a cell's side
LIMIT = 100  # steps of a flight


def distances() -> bytes:
    """Three ways to be far from the goal: as the crow flies, along the corridor, and as HILP has learned from aimless play."""
    products = lab.train(learners("hilp"), data(), steps=STEPS).products(seed=0)
    half, free = len(SPIRAL) / 2, np.array([list(row) for row in SPIRAL]) != "#"
    goal = jnp.asarray(Maze(SPIRAL).centre(INNER), jnp.float32)
    line = (np.arange(len(SPIRAL) * FINE) + 0.5) / FINE - half
    across, up = np.meshgrid(line, line)
    places = np.stack([across, up], axis=-1).reshape(-1, 2).astype(np.float32)
    inside = free[np.floor(half - up).astype(int), np.floor(across + half).astype(int)]
    centres, between = steps_between()
    from_goal = between[Maze(SPIRAL).cells().index(INNER)]
    nearest = np.argmin(np.linalg.norm(places[:, None] - centres, axis=-1), axis=1)
    phi = jax.jit(lambda encoder: jax.vmap(encoder)(jnp.asarray(places)) - encoder(goal))(products["encoder"])
    fields = {
        "straight line (m)": np.linalg.norm(places - np.asarray(goal), axis=-1),
        "cells along the corridor": from_goal[nearest],
        "HILP's distance, from play": np.linalg.norm(phi, axis=-1),
    }
    arrived = arrivals(products["policy"])
    plt = plotting()
    figure, axes = plt.subplots(2, 2, figsize=(7.6, 8.4), sharex=True, sharey=True, layout="constrained")
    fields["flights that arrive here (%)"] = 100 * arrived[nearest]
    for axis, (name, field) in zip(axes.ravel(), fields.items(), strict=True):
        shown = np.where(inside, field.reshape(inside.shape), np.nan)
        axis.set_facecolor("#55585c")
        edges, share = (-half, half, -half, half), "%" in name
        drawn = axis.imshow(
            shown, origin="lower", extent=edges, cmap="viridis" if share else "cividis", vmin=0, vmax=100 if share else None
        )
        figure.colorbar(drawn, ax=axis, orientation="horizontal", shrink=0.9, pad=0.02)
        if not share:
            axis.plot(*np.asarray(goal), "*", color="#ffffff", markeredgecolor="#222222", markersize=15)
        axis.set(title=name, xticks=(-4, -2, 0, 2, 4), yticks=(-4, -2, 0, 2, 4))
        axis.grid(False)
    figure.supxlabel("x (m)")
    figure.supylabel("y (m)")
    return as_png(figure)


def arrivals(policy: Any) -> np.ndarray:
    """For every cell the share of flights from all other cells that arrive there within 100 steps."""
    world, centres = spiral(), jnp.asarray(steps_between()[0])

    def arrives(start: jax.Array, goal: jax.Array, key: jax.Array) -> jax.Array:
        acting = policy.towards(goal).mode()

        def step(seen: dict, key: jax.Array) -> tuple[dict, jax.Array]:
            after, told = world.step(seen, acting.act(seen, None, key=key)[0], key)
            return after, told.info["success"]

        return jax.lax.scan(step, {"observation": start, "goal": goal}, jax.random.split(key, LIMIT))[1].max()

    key = jax.random.key(1)
    told = jax.jit(jax.vmap(jax.vmap(arrives, in_axes=(0, None, None)), in_axes=(None, 0, None)))(centres, centres, key)
    told = np.array(told)
    np.fill_diagonal(told, np.nan)
    print("of all flights", np.nanmean(told))
    return np.nanmean(told, axis=1)


PICTURES = {"distances": distances}
