"""Finite processes whose best values are known exactly: gridworlds, a chain, a river, a random one. The pilot is optimal.

Returns are undiscounted within the time limit, and so are the reference returns: `random` is the uniform policy's exact
expectation and `expert` that of the policy that is optimal under the process's own discount.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from policylab.environment import Environment
from policylab.environments import exact
from policylab.environments.finite import chain, garnet, gridworld, river_swim
from policylab.environments.tabular import Tabular
from policylab.environments.time_limit import TimeLimit
from policylab.policy import Policy
from policylab.tasks.scripted import CHOICE_RECIPES, Scripted

HORIZON = {"gridworld/lake": 200}  # that of Gymnasium's FrozenLake8x8-v1; 100 for the others
_ROOMS = (
    "S....#.....", ".....#.....", "...........", ".....#.....", ".....#.....", "#.####.....", ".....###.##", ".....#.....",
    ".....#.....", "...........", ".....#....G",
)  # fmt: skip
_CLIFF = ("............", "............", "............", "SXXXXXXXXXXG")
_LAKE = ("S.......", "........", "...X....", ".....X..", "...X....", ".XX...X.", ".X..X.X.", "...X...G")
_MAZE = ("S.#.....", ".##.###.", "....#...", ".####.#.", "...#..##", ".#...#..", ".###...#", "...#.#.G")


@cache
def process(name: str) -> Tabular:
    """The process of that task.

    The lake is Gymnasium's FrozenLake 8x8, its actions in Gymnasium's order too, the cliff Sutton and Barto's example 6.6, the
    rooms are those of Sutton, Precup and Singh 1999 with a slip of 1/3; chain and river are described in `environments.finite`.
    """
    match name:
        case "gridworld/rooms":
            return gridworld(_ROOMS, slip=1 / 3, name=name)
        case "gridworld/cliff":
            return gridworld(_CLIFF, step_reward=-1.0, goal_reward=-1.0, pit_reward=-100.0, back_to_start=True, name=name)
        case "gridworld/lake":
            return reversed_actions(gridworld(_LAKE, slip=2 / 3, pit_reward=0.0, name=name))
        case "gridworld/maze":
            return gridworld(_MAZE, step_reward=-1.0, goal_reward=-1.0, name=name)
        case "chain":
            return chain()
        case "riverswim":
            return river_swim()
        case _:
            return garnet()


def reversed_actions(table: Tabular) -> Tabular:
    """The same process with its actions numbered the other way round: left, down, right, up, as the lake has them."""
    transition, reward = table.transition[:, ::-1], table.reward[:, ::-1]
    return replace(table, transition=transition, reward=reward, actions=table.actions[::-1])


class Lookup(Policy):
    """One choice per state."""

    choice: Int[Array, " state"]

    def act(self, observation: Int[Array, ""], memory: PyTree, *, key: PRNGKeyArray) -> tuple[Int[Array, ""], PyTree]:
        """The state's choice."""
        return self.choice[observation], memory


def _horizon(name: str) -> int:
    return HORIZON.get(name, 100)


def _environment(name: str) -> Environment:
    return TimeLimit(process(name), _horizon(name))


def _pilot(name: str) -> Lookup:
    return Lookup(jnp.asarray(exact.optimal_policy(process(name)).argmax(1), jnp.int32))


def load(name: str, title: str) -> Scripted:
    """The task of that name."""
    table = process(name)
    uniform = np.full((table.states, table.choices), 1.0 / table.choices)
    scores = {
        "random": exact.expected_return(table, uniform, _horizon(name)),
        "expert": exact.expected_return(table, exact.optimal_policy(table), _horizon(name)),
    }
    return Scripted(name, title, partial(_environment, name), partial(_pilot, name), CHOICE_RECIPES, 20_000, scores)
