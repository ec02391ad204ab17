"""A point among walls that has to reach a goal, which it is told: mazes and rooms of square cells, drawn as text."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt8

from policylab.environment import Environment, Step
from policylab.environments.drawing import AGENT, FLOOR, GOAL, WALL, Canvas
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.spaces import Box, Composite

_CHECKED = 4  # places on the way of a step where it may meet a wall

Situation = dict[str, Float[Array, "2"]]


def _numbers(value: object) -> Float[Array, "..."]:
    return jnp.asarray(value, jnp.float32)


class Walled(Environment):
    """A point in the plane among walls: `rows` of text, `#` a wall, everything else free; cells are 1 m wide, the origin is the middle.

    An action in [-1, 1]^2 is a velocity (`gain` metres per second at most), to which the world adds Gaussian noise of standard
    deviation `noise` (metres per step). A step that would enter a wall slides along it; with `deadly` it ends the episode. The
    observation is the place and the goal, `{"observation": [x, y], "goal": [x, y]}`. Episodes start at one of `starts` and aim at
    one of `goals`, both drawn uniformly and then moved by up to `jitter` metres along each axis; `pairs` lists which start goes with
    which goal where not all do. The reward is -1 per step and 0 on arrival within `radius`, which ends the episode with
    `info["success"]`. A free flight has no goal: `radius` 0 never ends it.

    It sets no time limit: put `TimeLimit(Walled.of(rows), 100)`.
    """

    free: Bool[Array, "row column"]
    starts: Float[Array, "start 2"]
    goals: Float[Array, "goal 2"]
    pairs: Int[Array, "pair 2"]
    radius: Float[Array, ""] = eqx.field(converter=_numbers, default=0.4)
    jitter: Float[Array, ""] = eqx.field(converter=_numbers, default=0.25)
    gain: Float[Array, ""] = eqx.field(converter=_numbers, default=4.0)
    noise: Float[Array, ""] = eqx.field(converter=_numbers, default=0.0)
    seconds: Float[Array, ""] = eqx.field(converter=_numbers, default=0.05)
    deadly: bool = eqx.field(static=True, default=False)

    @staticmethod
    def of(rows: tuple[str, ...], *, starts: str = ".rg", goals: str = ".rg", deadly: bool = False, **numbers: float) -> Walled:
        """From text: episodes start in cells of the kinds `starts` and aim at those of `goals`, never at the cell they start in.

        Raises `BadInput` where rows differ in length or the text is not walled in.
        """
        cells = np.array([list(row) for row in rows]) if len({len(row) for row in rows}) == 1 else np.zeros((0, 0))
        if cells.size == 0 or not all((edge == "#").all() for edge in (cells[0], cells[-1], cells[:, 0], cells[:, -1])):
            raise BadInput("the rows of a walled plane must be equally long and have walls (#) all around")
        free = cells != "#"
        ends = [np.argwhere(np.isin(cells, list(kinds)) & free) for kinds in (starts, goals)]
        pairs = [(i, j) for i, a in enumerate(ends[0]) for j, b in enumerate(ends[1]) if (a != b).any()]
        if not pairs:
            raise BadInput(f"no cell of the kinds {starts!r} differs from all of the kinds {goals!r}: episodes cannot start")
        centres = [_centre(jnp.asarray(free), jnp.asarray(cell)) for cell in ends]
        return Walled(jnp.asarray(free), *centres, jnp.asarray(pairs, jnp.int32), deadly=deadly, **numbers)

    @property
    def spec(self) -> Spec:
        """Place and goal in metres, two actions."""
        height, width = self.free.shape
        place = Box((2,), (-width / 2, -height / 2), (width / 2, height / 2))
        return Spec(
            Composite((("observation", place), ("goal", place))), Box((2,), -1.0, 1.0), units=(("observation", "m"),),
            environment="walled plane",
        )  # fmt: skip

    def reset(self, key: PRNGKeyArray) -> tuple[Situation, Situation]:
        """A start and a goal that goes with it."""
        pair_key, *keys = jax.random.split(key, 3)
        start, goal = self.pairs[jax.random.randint(pair_key, (), 0, len(self.pairs))]
        moved = lambda centre, k: centre + self.jitter * jax.random.uniform(k, (2,), minval=-1.0, maxval=1.0)
        state = {"observation": moved(self.starts[start], keys[0]), "goal": moved(self.goals[goal], keys[1])}
        return state, state

    def step(self, state: Situation, action: Float[Array, "2"], key: PRNGKeyArray) -> tuple[Situation, Step]:
        """Explicit Euler; the key draws the noise."""
        place = state["observation"]
        move = self.seconds * self.gain * jnp.clip(action, -1.0, 1.0) + self.noise * jax.random.normal(key, (2,))
        blocked = lambda way: ~self._open(place, place + way)
        touched = blocked(move)
        along = (
            jnp.where(blocked(move * jnp.array([1.0, 0.0])), 0.0, move[0]),
            jnp.where(blocked(move * jnp.array([0.0, 1.0])), 0.0, move[1]),
        )
        slid = jnp.stack(along)
        slid = jnp.where(blocked(slid), 0.0, slid)  # a corner is not cut
        place = place + jnp.where(touched, 0.0 if self.deadly else slid, move)
        lost = touched & self.deadly
        arrived = (jnp.linalg.norm(place - state["goal"]) < self.radius) & ~lost
        state = {"observation": place, "goal": state["goal"]}
        info = {"success": arrived.astype(jnp.float32), "touched": touched.astype(jnp.float32)}
        return state, Step(state, jnp.where(arrived, 0.0, -1.0), arrived | lost, jnp.zeros((), bool), info=info)

    def at(self, observation: Situation) -> Situation:
        """The observation is the state."""
        return observation

    def picture(self, observation: PyTree) -> UInt8[np.ndarray, "height width 3"]:
        """Walls, goal and point."""
        height, width = self.free.shape
        canvas = Canvas(-width / 2, -height / 2, width / 2, height / 2)
        canvas.rectangle((-width / 2, -height / 2), (width / 2, height / 2), WALL)
        for cell in np.argwhere(np.asarray(self.free)):
            x, y = (float(number) for number in _centre(self.free, jnp.asarray(cell)))
            canvas.rectangle((x - 0.5, y - 0.5), (x + 0.5, y + 0.5), FLOOR)
        for name, radius, colour in (("goal", float(self.radius), GOAL), ("observation", 0.15, AGENT)):
            canvas.circle((float(observation[name][0]), float(observation[name][1])), radius, colour)
        return canvas.pixels()

    def _open(self, begin: Float[Array, "2"], end: Float[Array, "2"]) -> Bool[Array, ""]:
        """Whether the straight way from `begin` to `end`, less than a cell long, is free of walls."""
        places = begin + (jnp.arange(1, _CHECKED + 1) / _CHECKED)[:, None] * (end - begin)
        height, width = self.free.shape
        row, column = jnp.floor(height / 2 - places[:, 1]).astype(int), jnp.floor(places[:, 0] + width / 2).astype(int)
        return jnp.all(self.free[row, column])


def _centre(free: Bool[Array, "row column"], cell: Int[Array, "*cell 2"]) -> Float[Array, "*cell 2"]:
    """The centre in metres of (row, column)."""
    height, width = free.shape
    return jnp.stack([cell[..., 1] + 0.5 - width / 2, height / 2 - cell[..., 0] - 0.5], axis=-1)
