"""Play among walls: pilots that wander from place to place, and what they log."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab.data.recording import Recording
from policylab.environment import unroll
from policylab.environments.walled import Walled
from policylab.policy import Policy


class Wanderer(Policy):
    """Flies from stop to stop: at one, the next is drawn among its neighbours, and one of the ways that lead there.

    `stops` are places, way k from stop i is `ways[i, k]`: the number of the next stop, and `points[i, k]` the places to fly over on
    the way, the last of them the stop itself. `noise` is the standard deviation of the disturbance of its actions, `near` how close
    (in metres) it comes to a point before it turns to the next,
    `reach` how many metres a full step is long. It starts from the stop nearest to where it is.
    """

    stops: Float[Array, "stop 2"]
    ways: Int[Array, "stop way"]
    points: Float[Array, "stop way point 2"]
    noise: Array
    near: Array
    reach: Array

    def initial_memory(self, *, key: PRNGKeyArray) -> dict[str, Array]:
        """The stop that it left (-1: none yet), the way it took and the point it flies to."""
        return {"stop": jnp.asarray(-1), "way": jnp.asarray(0), "point": jnp.asarray(0)}

    def act(self, observation: PyTree, memory: dict[str, Array], *, key: PRNGKeyArray) -> tuple[Float[Array, "2"], dict]:
        """A full step towards the next point, a shorter one where that is nearer, in shares of a full step."""
        place = observation["observation"]
        draw, disturb = jax.random.split(key)
        last = self.points.shape[2] - 1
        begun = memory["stop"] >= 0
        arrived = begun & (jnp.linalg.norm(self.points[memory["stop"], memory["way"], memory["point"]] - place) < self.near)
        renew = ~begun | (arrived & (memory["point"] == last))
        here = jnp.where(
            begun, self.ways[memory["stop"], memory["way"]], jnp.argmin(jnp.linalg.norm(self.stops - place, axis=1))
        )
        stop = jnp.where(renew, here, memory["stop"])
        way = jnp.where(renew, jax.random.randint(draw, (), 0, self.ways.shape[1]), memory["way"])
        point = jnp.where(renew, 0, jnp.minimum(memory["point"] + arrived, last))
        heading = self.points[stop, way, point] - place
        action = heading / jnp.maximum(jnp.linalg.norm(heading), self.reach) + self.noise * jax.random.normal(disturb, (2,))
        return jnp.clip(action, -1.0, 1.0), {"stop": stop, "way": way, "point": point}


def played(policy: Policy, environment: Walled, *, episodes: int, length: int, seed: int, name: str = "") -> Recording:
    """Reward-free play: places and actions of `episodes` flights of at most `length` steps; the pilots did not care for the goals that were shown."""
    play = jax.jit(lambda key: unroll(policy, environment, episodes=episodes, horizon=length, key=key))
    flown: Any = jax.device_get(play(jax.random.key(seed)))
    lengths = np.asarray(flown.lengths, np.int64)
    cut = lambda leaf, more: np.concatenate([leaf[i, : n + more] for i, n in enumerate(lengths)])
    ends = np.zeros(lengths.sum(), bool)
    ends[np.cumsum(lengths) - 1] = True
    terminal = cut(flown.terminal, 0)
    observation = {part: cut(leaf, 1) for part, leaf in flown.observation.items()}
    return Recording(observation, cut(flown.action, 0), None, terminal, ends & ~terminal, lengths, environment.spec, name=name)
