"""Exact values of finite decision processes by linear algebra, in float64."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from policylab.environments.tabular import Tabular
from policylab.errors import BadInput

States = Float[np.ndarray, " state"]
Table = Float[np.ndarray, "state action"]


def tables(process: Tabular) -> tuple[Float[np.ndarray, "state action state"], Table]:
    """Probabilities of going on to each state (0 for terminal ones, where nothing follows) and expected rewards [s, a]."""
    transition = np.asarray(process.transition, np.float64)
    transition = transition / transition.sum(2, keepdims=True)  # float32 rows add up to 1 only nearly
    reward = (transition * np.asarray(process.reward, np.float64)).sum(2)
    return transition * ~np.asarray(process.terminal), reward


def policy_value(process: Tabular, policy: Table) -> States:
    """V of a policy given as probabilities [s, a]: the solution of V = r_pi + gamma P_pi V.

    Raises `BadInput` for probabilities that do not add up to 1, and for a discount of 1 where the policy may never end.
    """
    onward, reward = tables(process)
    policy = _checked(process, policy)
    matrix = np.eye(process.states) - process.discount * np.einsum("sa,sat->st", policy, onward)
    if process.discount >= 1.0 and np.linalg.cond(matrix) > 1e12:
        raise BadInput(f"{process.name} without discount may go on for ever under this policy: choose a discount below 1")
    return np.linalg.solve(matrix, np.sum(policy * reward, axis=1))


def action_value(process: Tabular, value: States) -> Table:
    """Q(s, a) = r(s, a) + gamma E[V(s')], with 0 after a terminal state."""
    onward, reward = tables(process)
    return reward + process.discount * onward @ value


def optimal_values(process: Tabular) -> Table:
    """Q* by policy iteration (Howard 1960), each policy evaluated exactly; it ends when no state can improve."""
    if process.discount >= 1.0:
        raise BadInput("exact optimal values need a discount below 1: use with_discount(0.99)")
    choice = np.zeros(process.states, np.int64)
    while True:
        values = action_value(process, policy_value(process, deterministic(choice, process.choices)))
        better = values.max(1) > values[np.arange(process.states), choice] + 1e-12 * (1.0 + np.abs(values).max())
        if not better.any():
            return values
        choice = np.where(better, values.argmax(1), choice)


def optimal_policy(process: Tabular) -> Table:
    """A deterministic optimal policy [s, a]; among equal actions the first."""
    values = optimal_values(process)
    near = values >= values.max(1, keepdims=True) - 1e-9 * (1.0 + np.abs(values).max())
    return deterministic(near.argmax(1), process.choices)


def deterministic(choice: Int[np.ndarray, " state"], choices: int) -> Table:
    """The policy that takes `choice[s]`, as probabilities."""
    return np.eye(choices)[choice]


def start_value(process: Tabular, policy: Table) -> float:
    """The expected discounted return from the start."""
    return float(_initial(process) @ policy_value(process, policy))


def occupancy(process: Tabular, policy: Table) -> Table:
    """d(s, a) = (1 - gamma) sum_t gamma^t P(s_t = s, a_t = a): the discounted share of time, 0 after the end."""
    onward, _ = tables(process)
    policy = _checked(process, policy)
    matrix = np.eye(process.states) - process.discount * np.einsum("sa,sat->st", policy, onward)
    visits = np.linalg.solve(matrix.T, _initial(process))
    return (1.0 - process.discount) * visits[:, None] * policy


def expected_return(process: Tabular, policy: Table, horizon: int) -> float:
    """The expected undiscounted return of episodes cut after `horizon` steps."""
    onward, reward = tables(process)
    policy = _checked(process, policy)
    value = np.zeros(process.states)
    for _ in range(horizon):
        value = np.sum(policy * (reward + onward @ value), axis=1)
    return float(_initial(process) @ value)


def best_return(process: Tabular, horizon: int) -> float:
    """The largest expected undiscounted return within `horizon` steps, by backward induction (the policy may watch the clock)."""
    onward, reward = tables(process)
    value = np.zeros(process.states)
    for _ in range(horizon):
        value = (reward + onward @ value).max(1)
    return float(_initial(process) @ value)


def _initial(process: Tabular) -> States:
    initial = np.asarray(process.initial, np.float64)
    return initial / initial.sum()


def _checked(process: Tabular, policy: Table) -> Table:
    policy = np.asarray(policy, np.float64)
    if policy.shape != (process.states, process.choices) or (policy < 0).any() or not np.allclose(policy.sum(1), 1.0):
        raise BadInput(
            f"a policy of {process.name} is a table of probabilities with {process.states} rows and {process.choices} columns,"
            " each row adding up to 1"
        )
    return policy
