"""Finite decision processes whose values are known exactly: ground truth for learners and estimators."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from policylab.environment import Environment, Step
from policylab.environments.drawing import AGENT, DANGER, FLOOR, GOAL, START, WALL, Canvas
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.spaces import Discrete


class Tabular(Environment):
    """A process given by its tables. The observation is the state's number.

    `transition[s, a, s']` is a probability, `reward[s, a, s']` what the step gives, `initial[s]` the probability of starting in
    s; entering a state with `terminal[s]` ends the episode. `discount` is that of the exact values. `success[s]` marks states
    that count as success (none: nothing is reported). `layout` draws gridworlds, `succeeds` is whether
    any state counts as success. It sets no time limit.
    """

    transition: Float[Array, "state action state"]
    reward: Float[Array, "state action state"]
    initial: Float[Array, " state"]
    terminal: Bool[Array, " state"]
    success: Bool[Array, " state"]
    discount: float = eqx.field(static=True)
    name: str = eqx.field(static=True, default="tabular")
    actions: tuple[str, ...] = eqx.field(static=True, default=())
    layout: tuple[str, ...] = eqx.field(static=True, default=())
    succeeds: bool = eqx.field(static=True, default=False)

    @staticmethod
    def of(
        transition: np.ndarray,
        reward: np.ndarray,
        initial: np.ndarray,
        *,
        discount: float,
        terminal: np.ndarray | None = None,
        success: np.ndarray | None = None,
        name: str = "tabular",
        actions: tuple[str, ...] = (),
        layout: tuple[str, ...] = (),
    ) -> Tabular:
        """A process from NumPy tables; `reward` may be [s, a] or [s, a, s'].

        Raises `BadInput` for tables whose shapes disagree, or rows of probabilities that are negative or do not add up to 1.
        """
        transition, initial = np.asarray(transition, np.float64), np.asarray(initial, np.float64)
        if transition.ndim != 3 or transition.shape[0] != transition.shape[2] or initial.shape != transition.shape[:1]:
            raise BadInput(
                f"transitions of shape {transition.shape} and starts of shape {initial.shape} do not belong together:"
                " give [state, action, state] and [state]"
            )
        states, choices, _ = transition.shape
        wrong = np.argwhere(~np.isclose(transition.sum(2), 1.0) | (transition < 0).any(2))
        if len(wrong):
            state, action = wrong[0]
            raise BadInput(f"the probabilities after state {state} and action {action} are negative or do not add up to 1")
        if (initial < 0).any() or not np.isclose(initial.sum(), 1.0):
            raise BadInput(
                f"the starting probabilities add up to {initial.sum():g}, or some are negative: make them add up to 1"
            )
        reward = np.asarray(reward, np.float64)
        if reward.shape not in ((states, choices), (states, choices, states)):
            raise BadInput(f"rewards of shape {reward.shape} do not belong to {states} states and {choices} actions")
        table = np.broadcast_to(reward[..., None] if reward.ndim == 2 else reward, transition.shape)
        flags = [np.zeros(states, bool) if flag is None else np.asarray(flag, bool) for flag in (terminal, success)]
        return Tabular(
            jnp.asarray(transition, jnp.float32), jnp.asarray(table, jnp.float32), jnp.asarray(initial, jnp.float32),
            jnp.asarray(flags[0]), jnp.asarray(flags[1]), float(discount), name, actions, layout, bool(flags[1].any()),
        )  # fmt: skip

    @property
    def states(self) -> int:
        """How many states there are."""
        return self.transition.shape[0]

    @property
    def choices(self) -> int:
        """How many actions there are."""
        return self.transition.shape[1]

    @property
    def spec(self) -> Spec:
        """The number of the state, the number of the action."""
        return Spec(Discrete(self.states), Discrete(self.choices, self.actions), environment=self.name)

    def reset(self, key: PRNGKeyArray) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """A state drawn from `initial`."""
        state = jax.random.categorical(key, jnp.log(self.initial)).astype(jnp.int32)
        return state, state

    def step(self, state: Int[Array, ""], action: Int[Array, ""], key: PRNGKeyArray) -> tuple[Int[Array, ""], Step]:
        """A successor drawn from the table."""
        following = jax.random.categorical(key, jnp.log(self.transition[state, action])).astype(jnp.int32)
        info = {"success": self.success[following].astype(jnp.float32)} if self.succeeds else {}
        step = Step(following, self.reward[state, action, following], self.terminal[following], jnp.zeros((), bool), info=info)
        return following, step

    def at(self, observation: Int[Array, ""]) -> Int[Array, ""]:
        """The observation is the state."""
        return observation

    def with_discount(self, discount: float) -> Tabular:
        """The same process under another discount."""
        return dataclasses.replace(self, discount=float(discount))

    def picture(self, observation: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
        """The gridworld with its agent; a process without layout as a row of its states, ten to a line, the present one filled."""
        if self.layout:
            return self._grid(int(observation))
        columns = min(10, self.states)
        canvas = Canvas(-0.1, -float(-(-self.states // columns)) - 0.1, columns + 0.1, 0.1)
        for state in range(self.states):
            centre = (state % columns + 0.5, -(state // columns) - 0.5)
            canvas.circle(centre, 0.42, WALL)
            canvas.circle(centre, 0.38, AGENT if state == int(observation) else FLOOR)
        return canvas.pixels()

    def _grid(self, state: int) -> UInt8[np.ndarray, "height width 3"]:
        height, width = len(self.layout), len(self.layout[0])
        canvas = Canvas(-0.1, -height - 0.1, width + 0.1, 0.1)
        canvas.rectangle((-0.1, -height - 0.1), (width + 0.1, 0.1), WALL)
        colours = {"G": GOAL, "X": DANGER, "S": START}
        free = [(i, j) for i, row in enumerate(self.layout) for j, kind in enumerate(row) if kind != "#"]
        for i, j in free:
            canvas.rectangle((j + 0.02, -i - 0.02), (j + 0.98, -i - 0.98), colours.get(self.layout[i][j], FLOOR))
        i, j = free[state]
        canvas.circle((j + 0.5, -i - 0.5), 0.36, "#ffffff")
        canvas.circle((j + 0.5, -i - 0.5), 0.3, AGENT)
        return canvas.pixels()
