"""Drawings of what methods do inside: noise that becomes actions, plans that a planner tries, the tree of a search, an archive."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.reporting.figures import COLOURS, as_png, plotting

_PANELS = 6  # of a denoising
_LARGEST_TREE = 400  # nodes that can be told apart


def denoising(
    policy: Any, observation: PyTree, *, samples: int = 300, parts: tuple[int, int] = (0, 1), key: PRNGKeyArray
) -> bytes:
    """A PNG: what `samples` draws of noise look like on their way to actions, from the first level to the last; two `parts` of the
    action, in units of half its range. Of an action with a single part the ways of all draws are shown from left to right; of plans,
    whose action space is [step, part], the first of `parts` step by step.

    `policy` is one that denoises: `Diffusion`, `Flow`, or several composed. Raises `BadInput` for others, and for parts that the action
    does not have.
    """
    if not callable(getattr(policy, "denoise", None)):
        raise BadInput(f"{type(policy).__name__} does not denoise: draw a policy of the form Diffusion or Flow")
    size = policy.noise_space.shape[0]
    space = getattr(policy, "action_space", None)
    if isinstance(space, spaces.Box) and len(space.shape) == 2:
        levels, seen = denoised(policy, observation, jax.random.normal(key, (samples, size)))
        return _bundles(levels, np.asarray(seen).reshape(*seen.shape[:2], *space.shape)[..., parts[0]], parts[0])
    if size == 1 and parts == (0, 1):
        return _ways(*denoised(policy, observation, jax.random.normal(key, (samples, 1))))
    if max(parts) >= size:
        raise BadInput(f"the action has {size} part{'s' * (size > 1)}: choose two of them with parts=(i, j)")
    levels, seen = denoised(policy, observation, jax.random.normal(key, (samples, size)))
    shown = np.unique(np.linspace(0, len(levels) - 1, _PANELS).round().astype(int))
    plt = plotting()
    figure, axes = plt.subplots(1, len(shown), figsize=(2.1 * len(shown), 2.5), sharex=False, sharey=False, squeeze=False)
    for number, (axis, level) in enumerate(zip(axes[0], shown, strict=True)):
        points = np.asarray(seen[level])[:, list(parts)]
        axis.scatter(points[:, 0], points[:, 1], s=5, color=COLOURS[0], alpha=0.4, linewidths=0)
        reach = max(1.1, float(np.quantile(np.abs(points), 0.99)))
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=f"noise {float(levels[level]):.2g}")
        axis.set_xlabel(f"action {parts[0]}")
        if number == 0:
            axis.set_ylabel(f"action {parts[1]}")
    figure.tight_layout()
    return as_png(figure)


def _bundles(levels: Float[np.ndarray, " level"], plans: Float[np.ndarray, "level sample step"], part: int) -> bytes:
    """A PNG: every plan as a line over its steps, in a panel for each of some levels."""
    shown = np.unique(np.linspace(0, len(levels) - 1, _PANELS).round().astype(int))
    plt = plotting()
    figure, axes = plt.subplots(1, len(shown), figsize=(2.1 * len(shown), 2.5), squeeze=False)
    for number, (axis, level) in enumerate(zip(axes[0], shown, strict=True)):
        axis.plot(plans[level].T, color=COLOURS[0], alpha=0.25, linewidth=0.9)
        reach = max(1.1, float(np.quantile(np.abs(plans[level]), 0.99)))
        axis.set(ylim=(-reach, reach), title=f"noise {float(levels[level]):.2g}", xlabel="step of the plan")
        if number == 0:
            axis.set_ylabel(f"action {part}")
    figure.tight_layout()
    return as_png(figure)


def _ways(levels: Float[np.ndarray, " level"], seen: Float[Array, "level sample one"]) -> bytes:
    """A PNG: one line per draw, from the most noise on the left to none on the right, where a histogram says how they end."""
    # Noise of a level that dwarfs every action would leave nothing to see, so that each level is shown in its own units.
    values = np.asarray(seen)[..., 0] / np.sqrt(1.0 + np.asarray(levels)[:, None] ** 2)
    plt = plotting()
    figure, (axes, ends) = plt.subplots(1, 2, figsize=(6.4, 3.4), width_ratios=(4, 1), sharey=True)
    axes.plot(np.arange(len(levels)), values, color=COLOURS[0], alpha=0.15, linewidth=0.8)
    shown = np.unique(np.linspace(0, len(levels) - 1, _PANELS).round().astype(int))
    axes.set_xticks(shown, [f"{float(levels[level]):.2g}" for level in shown], fontsize=10)
    reach = max(1.1, float(np.quantile(np.abs(values), 0.99)))
    axes.set(xlabel="noise", ylabel="action 0 / √(1 + noise²)", ylim=(-reach, reach))
    ends.hist(values[-1], bins=np.linspace(-reach, reach, 61), orientation="horizontal", color=COLOURS[1])
    ends.set(xlabel="draws")
    figure.tight_layout()
    return as_png(figure)


def denoised(
    policy: Any, observation: PyTree, noise: Float[Array, "sample action"]
) -> tuple[Float[np.ndarray, " level"], Float[Array, "level sample action"]]:
    """The levels of noise, from the largest to 0, and the samples at each of them, by Euler's method."""
    levels = getattr(
        policy, "levels", None
    )  # a number of steps for flows, the levels themselves for diffusion; composed ones have sigma
    if isinstance(levels, int):
        times = jnp.linspace(0.0, 1.0, levels + 1)
        move = lambda x, now, after: x + (after - now) * policy.velocity(observation, x, now)
        first, shown, steps = noise, 1.0 - np.asarray(times), (times[:-1], times[1:])
    else:
        sigma = policy.sigma if levels is None else levels.sigma
        move = lambda x, now, after: x + (after - now) * (x - policy.denoise(observation, x, now)) / now
        first, shown, steps = sigma[0] * noise, np.asarray(sigma), (sigma[:-1], sigma[1:])

    def step(x: Array, level: tuple[Array, Array]) -> tuple[Array, Array]:
        x = jax.vmap(lambda one: move(one, *level))(x)
        return x, x

    seen = jax.jit(lambda first, steps: jax.lax.scan(step, first, steps)[1])(first, steps)
    return shown, jnp.concatenate([first[None], seen])


def plans(
    planner: Any,
    observation: PyTree,
    memory: PyTree = None,
    *,
    parts: tuple[int, int] = (0, 1),
    most: int = 200,
    key: PRNGKeyArray,
) -> bytes:
    """A PNG: where the plans that a planner tries first would lead, in two `parts` of the flattened observation, the better the darker;
    the best one thick. For planners with `candidates`: random shooting, the cross-entropy method, path integrals; `memory` is theirs
    in the middle of an episode."""
    if not callable(getattr(planner, "candidates", None)):
        raise BadInput(f"{type(planner).__name__} tries no listed plans: draw RandomShooting, CrossEntropy or PathIntegral")
    memory = planner.initial_memory(key=key) if memory is None else memory
    _, imagined = jax.jit(lambda planner, observation, memory, key: planner.candidates(observation, memory, key=key))(
        planner, observation, memory, key
    )
    space = planner.environment.spec.observation
    flat = jax.vmap(jax.vmap(lambda o: spaces.flatten(space, o)))(jax.tree.map(lambda leaf: leaf[:, 0], imagined.observation))
    paths, returns = np.asarray(flat)[..., list(parts)], np.asarray(imagined.returns)
    order = np.argsort(returns)[-most:]
    shade = np.linspace(0.08, 0.6, len(order))
    plt = plotting()
    figure, axes = plt.subplots()
    for alpha, plan in zip(shade, order, strict=True):
        axes.plot(paths[plan, :, 0], paths[plan, :, 1], color=COLOURS[0], alpha=alpha, linewidth=0.8)
    best = paths[order[-1]]
    axes.plot(best[:, 0], best[:, 1], color=COLOURS[1], linewidth=2.5, label=f"best, return {returns[order[-1]]:.3g}")
    axes.plot(*best[0], "o", color="#222222", markersize=7, label="now")
    axes.set(xlabel=f"observation {parts[0]}", ylabel=f"observation {parts[1]}")
    axes.legend(frameon=False)
    return as_png(figure)


def tree(search: Any, *, actions: tuple[str, ...] = ()) -> bytes:
    """A PNG of the tree of one search (`MonteCarloTreeSearch.search`): nodes as large as they were visited and coloured by their value
    for the player who moves there; the choices that lead to the first ones are named."""
    grown = search.tree
    children = np.asarray(grown.children_index)
    if children.ndim != 2:
        raise BadInput(
            f"these are {children.shape[0]} searches: draw one of them, as in jax.tree.map(lambda leaf: leaf[0], search)"
        )
    visits, values = np.asarray(grown.node_visits), np.asarray(grown.node_values)
    if int((visits > 0).sum()) > _LARGEST_TREE:
        raise BadInput(
            f"a tree of {int((visits > 0).sum())} nodes cannot be read: search with at most {_LARGEST_TREE} simulations"
        )
    place = placed(children)
    plt = plotting()
    figure, axes = plt.subplots(figsize=(8.0, 4.6))
    for parent, row in enumerate(children):
        for choice, child in enumerate(row):
            if child < 0 or parent not in place or child not in place:
                continue
            (x, y), (to_x, to_y) = place[parent], place[child]
            axes.plot((x, to_x), (-y, -to_y), color="#b0b0ae", linewidth=0.4 + 2.5 * visits[child] / visits[0], zorder=1)
            if parent == 0:
                name = actions[choice] if actions else str(choice)
                axes.annotate(name, (to_x, -to_y), (0, 9), textcoords="offset points", fontsize=10, ha="center")
    nodes = sorted(place)
    spots = np.array([place[node] for node in nodes])
    size = 12.0 + 260.0 * visits[nodes] / visits[0]
    drawn = axes.scatter(
        spots[:, 0], -spots[:, 1], s=size, c=values[nodes], cmap="cividis", zorder=2, edgecolors="white", linewidths=0.5
    )
    figure.colorbar(drawn, ax=axes, label="value for the player to move", shrink=0.8)
    axes.set_axis_off()
    return as_png(figure)


def placed(children: Int[np.ndarray, "node choice"]) -> dict[int, tuple[float, float]]:
    """A place (across, depth) for every node below the root: leaves side by side, parents over the middle of their children."""
    place: dict[int, tuple[float, float]] = {}
    free = 0

    def put(node: int, depth: int) -> float:
        nonlocal free
        below = [put(int(child), depth + 1) for child in children[node] if child >= 0]
        across = float(np.mean(below)) if below else float(free)
        free += not below
        place[node] = (across, float(depth))
        return across

    put(0, 0)
    return place


def archive(
    descriptor: Float[np.ndarray, "member number"],
    fitness: Float[np.ndarray, " member"],
    *,
    names: tuple[str, str] = ("0", "1"),
) -> bytes:
    """A PNG: what the members of an archive do (two numbers each) and how well, the best on top."""
    descriptor, fitness = np.asarray(descriptor), np.asarray(fitness)
    if descriptor.ndim != 2 or descriptor.shape[1] != 2 or len(descriptor) != len(fitness) or not len(fitness):
        raise BadInput(
            f"an archive is drawn from [member, 2] descriptors and [member] fitness, not {descriptor.shape} and {fitness.shape}"
        )
    order = np.argsort(fitness, kind="stable")
    plt = plotting()
    figure, axes = plt.subplots()
    drawn = axes.scatter(*descriptor[order].T, c=fitness[order], s=18, cmap="cividis", linewidths=0)
    figure.colorbar(drawn, ax=axes, label="fitness")
    axes.set(xlabel=f"descriptor {names[0]}", ylabel=f"descriptor {names[1]}", title=f"{len(fitness):,} members")
    return as_png(figure)
