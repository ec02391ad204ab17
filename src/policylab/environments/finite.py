"""Builders of finite decision processes: gridworlds from text, chain, river swim, random ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policylab.environments.tabular import Tabular
from policylab.errors import BadInput

MOVES = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}


def gridworld(
    rows: Sequence[str],
    *,
    slip: float = 0.0,
    step_reward: float = 0.0,
    goal_reward: float = 1.0,
    pit_reward: float = -1.0,
    discount: float = 0.99,
    back_to_start: bool = False,
    name: str = "gridworld",
) -> Tabular:
    """A grid: `#` wall, `S` start (several: drawn uniformly), `G` goal, `X` pit, anything else free. States are the free cells,
    row by row; actions are up, right, down, left.

    With probability `slip` the move goes to one of the two sides instead; whoever meets a wall or the edge stays. Entering a
    cell gives `goal_reward`, `pit_reward` or `step_reward`. Goals end the episode; pits do too, or put the agent back to the
    start (`back_to_start`). Raises `BadInput` for rows of unequal length, or no start or goal.
    """
    rows = tuple(rows)
    if len({len(row) for row in rows}) != 1:
        raise BadInput("the rows of a gridworld must be equally long")
    cells = [(i, j) for i, row in enumerate(rows) for j, kind in enumerate(row) if kind != "#"]
    kinds = np.array([rows[i][j] for i, j in cells])
    for kind, word in (("S", "start"), ("G", "goal")):
        if kind not in kinds:
            raise BadInput(f"the gridworld has no {word}: mark one with {kind}")
    number = {cell: state for state, cell in enumerate(cells)}
    transition = np.zeros((len(cells), len(MOVES), len(cells)))
    directions = list(MOVES.values())
    for state, (i, j) in enumerate(cells):
        for action in range(4):
            for turn, share in ((0, 1.0 - slip), (1, slip / 2), (3, slip / 2)):
                down, right = directions[(action + turn) % 4]
                transition[state, action, number.get((i + down, j + right), state)] += share
    entering = np.where(kinds == "G", goal_reward, np.where(kinds == "X", pit_reward, step_reward))
    reward = np.broadcast_to(entering, transition.shape).copy()
    initial = (kinds == "S") / np.sum(kinds == "S")
    terminal = kinds == "G"
    if back_to_start:
        # The fall's reward stays; the agent is put back: probability of a pit becomes probability of the starts.
        pits = transition[:, :, kinds == "X"].sum(2)
        onward = np.where(kinds == "X", 0.0, transition)
        fallen = pits[..., None] * initial
        total = onward + fallen
        reward = np.divide(onward * reward + fallen * pit_reward, total, out=np.zeros_like(total), where=total > 0)
        transition = total
    else:
        terminal = terminal | (kinds == "X")
    return Tabular.of(
        transition, reward, initial, discount=discount, terminal=terminal, success=kinds == "G", name=name,
        actions=tuple(MOVES), layout=rows,
    )  # fmt: skip


def chain(states: int = 10, *, slip: float = 0.0, discount: float = 0.99, small: float = 0.01) -> Tabular:
    """A chain from left to right: only the right end is worth 1 per step, leaving to the left gives `small` at once.

    Action 1 goes right (with probability `slip` left), action 0 goes back to the first state and gives `small` (after Strens
    2000, "A Bayesian Framework for Reinforcement Learning"). Greedy short-sighted policies stay at the left. It never ends.
    """
    transition, reward = np.zeros((states, 2, states)), np.zeros((states, 2))
    for state in range(states):
        transition[state, 0, 0] = 1.0
        transition[state, 1, min(state + 1, states - 1)] += 1.0 - slip
        transition[state, 1, 0] += slip
    reward[:, 0] = small
    reward[-1, 1] = 1.0
    return Tabular.of(transition, reward, np.eye(states)[0], discount=discount, name=f"chain-{states}", actions=("back", "on"))


def river_swim(states: int = 6, *, discount: float = 0.95) -> Tabular:
    """RiverSwim (Strehl and Littman 2008) with the numbers of Osband, Russo and Van Roy 2013: a swimmer at the left bank, where
    going left is worth 5/1000; being carried to the right end is worth 1 per step there.

    Swimming right goes on with 0.35, holds with 0.6 and drifts back with 0.05; at the left bank it starts with 0.6, at the
    right end it holds with 0.6. Swimming left always succeeds. It never ends.
    """
    transition, reward = np.zeros((states, 2, states)), np.zeros((states, 2))
    for state in range(states):
        transition[state, 0, max(state - 1, 0)] = 1.0
    transition[0, 1, :2] = 0.4, 0.6
    for state in range(1, states - 1):
        transition[state, 1, state - 1 : state + 2] = 0.05, 0.6, 0.35
    transition[-1, 1, -2:] = 0.4, 0.6
    reward[0, 0], reward[-1, 1] = 5 / 1000, 1.0
    initial = np.eye(states)[0]
    return Tabular.of(transition, reward, initial, discount=discount, name=f"river-swim-{states}", actions=("left", "right"))


def garnet(
    states: int = 20, actions: int = 4, branching: int = 5, *, discount: float = 0.95, sparsity: float = 0.0, seed: int = 0
) -> Tabular:
    """A random process (Garnet: Archibald, McKinnon and Thomas 1995; Bhatnagar et al. 2009). Every state and action leads to
    `branching` random states with probabilities cut from a stick; rewards are uniform in [0, 1], a share `sparsity` of them 0.
    """
    if not 1 <= branching <= states:
        raise BadInput(f"a random process of {states} states cannot branch into {branching}: choose 1 to {states}")
    rng = np.random.default_rng(seed)
    transition = np.zeros((states, actions, states))
    for state in range(states):
        for action in range(actions):
            cuts = np.sort(np.concatenate([[0.0, 1.0], rng.random(branching - 1)]))
            transition[state, action, rng.choice(states, branching, replace=False)] = np.diff(cuts)
    reward = rng.random((states, actions)) * (rng.random((states, actions)) >= sparsity)
    initial = np.full(states, 1.0 / states)
    return Tabular.of(transition, reward, initial, discount=discount, name=f"garnet-{states}-{actions}-{branching}-{seed}")
