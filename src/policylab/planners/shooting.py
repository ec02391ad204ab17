"""Model predictive control by random shooting, and what the planners that refine their plans share with it."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.environment import Environment
from policylab.errors import BadInput
from policylab.networks.frozen import action_scaler
from policylab.planners.imagination import Imagined, imagine, require_imaginable
from policylab.policies.continuous import box_of
from policylab.policy import Policy


def number(value: Any) -> Float[Array, ""]:
    """A traced float32 leaf."""
    return jnp.asarray(value, jnp.float32)


def require_within(planner: Any, name: str, *, low: float = -np.inf, above: float = -np.inf, below: float = np.inf) -> None:
    """Raise `BadInput` where this setting leaves its range; while a program is being compiled its value is not known."""
    value = getattr(planner, name)
    if isinstance(value, Tracer) or not isinstance(value, np.ndarray | jax.Array):
        return
    if not np.all((np.asarray(value) >= low) & (np.asarray(value) > above) & (np.asarray(value) < below)):
        bounds = [
            f"at least {low:g}" * (low > -np.inf),
            f"above {above:g}" * (above > -np.inf),
            f"below {below:g}" * (below < np.inf),
        ]
        raise BadInput(
            f"{type(planner).__name__}.{name} is {float(np.min(value)):g}: choose a value {' and '.join(filter(None, bounds))}"
        )


class RandomShooting(Policy):
    """Draws `population` plans of `horizon` uniformly random actions, plays each in `environment` and takes the first action of
    the best (Nagabandi et al. 2018, arXiv 1708.02596, section IV.C).

    `particles` plays per plan are averaged where the environment is random; `value` (from an observation to a number) judges
    what comes after the horizon; `discount` is per step. `mode()` uses the same random numbers at every call. Choices and named
    parts work as well as torques. Raises `BadInput` for environments that are stepped on the host.
    """

    environment: Environment
    value: Any = None
    discount: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    horizon: int = eqx.field(static=True, default=20)
    population: int = eqx.field(static=True, default=1000)
    particles: int = eqx.field(static=True, default=1)
    fixed: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        require_imaginable(self.environment, type(self).__name__)
        for name in ("horizon", "population", "particles"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise BadInput(
                    f"{type(self).__name__}.{name} is {value!r}: horizon, population and particles are whole numbers from 1 on"
                )

    def mode(self) -> Policy:
        """The same planner with the same random numbers at every step."""
        return dataclasses.replace(self, fixed=True)

    def imagine(self, observation: PyTree, plans: PyTree, *, key: PRNGKeyArray) -> Imagined:
        """What these plans (leaves [plan, horizon, ...], in environment units) would give."""
        return imagine(
            self.environment, observation, plans, key=key, particles=self.particles, discount=self.discount, value=self.value
        )

    def candidates(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Imagined]:
        """Plans as `act` tries them and what they would give: to choose from, to look at, or to draw."""
        draw, noise = jax.random.split(self.key(key))
        keys = jax.random.split(draw, (self.population, self.horizon))
        plans = jax.vmap(jax.vmap(lambda k: spaces.sample(self.environment.spec.action, key=k)))(keys)
        return plans, self.imagine(observation, plans, key=noise)

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """The first action of the best plan."""
        plans, imagined = self.candidates(observation, memory, key=key)
        best = jnp.argmax(imagined.returns)
        return jax.tree.map(lambda leaf: leaf[best, 0], plans), memory

    def key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """The caller's key, or always the same one for the mode."""
        return jax.random.key(0) if self.fixed else key


class Refining(RandomShooting):
    """Shooting whose memory is the plan so far, [horizon, size] in units of half the action's range, shifted by one per step.

    Raises `BadInput` unless actions are a bounded Box.
    """

    def __check_init__(self) -> None:
        space = self.environment.spec.action
        if not isinstance(space, spaces.Box) or not space.bounded:
            raise BadInput(
                f"{type(self).__name__} refines bounded continuous actions, and these are {spaces.describe(space)}:"
                " use RandomShooting for choices, or bound the space"
            )

    def initial_memory(self, *, key: PRNGKeyArray) -> Float[Array, "horizon size"]:
        """No action, at the centre of the range."""
        return jnp.zeros((self.horizon, spaces.size(self.environment.spec.action)))

    def in_units(self, plans: Float[Array, "*plan horizon size"]) -> PyTree:
        """Plans in environment units."""
        space = box_of(self.environment.spec, type(self).__name__)
        scaler = action_scaler(space, None)
        flat = plans.reshape(-1, plans.shape[-1])
        actions = jax.vmap(lambda u: spaces.unflatten(space, scaler.to_environment(u)))(flat)
        return actions.reshape(*plans.shape[:-1], *actions.shape[1:])

    def follow(self, plan: Float[Array, "horizon size"]) -> tuple[PyTree, Float[Array, "horizon size"]]:
        """The first action of a plan, and the rest of it, with a pause at its end."""
        return self.in_units(plan[:1])[0], jnp.concatenate([plan[1:], jnp.zeros_like(plan[:1])])
