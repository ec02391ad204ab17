"""A point among walls where only a few discs are worth anything: rewards that search by reward never meets."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from policylab.environment import Environment, Step
from policylab.environments.walled import Walled
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.spaces import Box


class Discs(Environment):
    """The plane of a `Walled`, its goals left out: the observation is the place (x, y), the reward of a step 0 everywhere but in the discs.

    `discs` are rows (x, y, radius). In a disc a step gives 1 at the centre, falling linearly to 0 at its edge; where discs overlap
    the larger reward counts. Nothing ends an episode: put `TimeLimit(Discs(...), 50)`. Raises `BadInput` for discs without a radius.
    """

    plane: Walled
    discs: Float[Array, "disc 3"]

    @staticmethod
    def of(
        rows: tuple[str, ...], discs: tuple[tuple[float, float, float], ...], *, gain: float = 4.0, noise: float = 0.0
    ) -> Discs:
        """From the text of the walls (`Walled.of`) with the starts marked `r`; gain and noise are those of the plane."""
        if any(radius <= 0 for _, _, radius in discs):
            raise BadInput(f"the discs {discs} must have radii above 0: give (x, y, radius)")
        plane = Walled.of(rows, starts="r", goals=".", radius=0.0, jitter=0.0, gain=gain, noise=noise)
        return Discs(plane, jnp.asarray(discs, jnp.float32))

    @property
    def spec(self) -> Spec:
        """2 observed numbers in metres, 2 actions."""
        inner = self.plane.spec
        half = tuple(edge / 2 for edge in self.plane.free.shape[::-1])
        low = tuple(-edge for edge in half)
        return Spec(Box((2,), low, half), inner.action, units=(("observation", "m"),), environment="discs among walls")

    def reset(self, key: PRNGKeyArray) -> tuple[dict[str, Float[Array, "2"]], Float[Array, "2"]]:
        """One of the starts."""
        state, observation = self.plane.reset(key)
        return state, observation["observation"]

    def worth(self, place: Float[Array, "2"]) -> Float[Array, " disc"]:
        """What a step that ends at `place` gives, disc by disc."""
        distance = jnp.linalg.norm(place - self.discs[:, :2], axis=-1)
        return jnp.maximum(1.0 - distance / self.discs[:, 2], 0.0)

    def step(
        self, state: dict[str, Float[Array, "2"]], action: Float[Array, "2"], key: PRNGKeyArray
    ) -> tuple[dict[str, Float[Array, "2"]], Step]:
        """One step in the plane. `info["worth"]` is the reward disc by disc."""
        state, step = self.plane.step(state, action, key)
        worth = self.worth(step.observation["observation"])
        no = jnp.zeros((), bool)
        return state, Step(step.observation["observation"], worth.max(), no, no, info={"worth": worth})

    def at(self, observation: Float[Array, "2"]) -> dict[str, Float[Array, "2"]]:
        """The plane's state at this place."""
        return self.plane.at({"observation": observation, "goal": jnp.zeros(2)})

    def picture(self, observation: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
        """The plane with the point."""
        return self.plane.picture({"observation": observation, "goal": np.full(2, np.inf)})
