"""A time limit around an environment: the only place that sets `truncated`."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree, UInt8

from policylab.environment import Environment, Step
from policylab.errors import BadInput
from policylab.experience import Spec


class Timed(eqx.Module):
    """The state of the environment inside and the steps taken since its reset."""

    inner: PyTree
    taken: Int[Array, ""]


class TimeLimit(Environment):
    """Ends episodes after `steps` steps: `truncated` is set on the last one unless the process itself ends with it.

    Hosted environments bring a limit of their own; a shorter one may be put around them. Raises `BadInput` for a limit below 1.
    """

    environment: Environment
    steps: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        if self.steps < 1:
            raise BadInput(f"a time limit of {self.steps} steps leaves no episode: choose at least 1")

    @property
    def spec(self) -> Spec:
        """The environment's, with this horizon if it is the shorter one."""
        own = self.environment.spec
        return dataclasses.replace(own, horizon=min(self.steps, own.horizon or self.steps))

    @property
    def hosted(self) -> bool:
        """As the environment inside."""
        return self.environment.hosted

    @property
    def restorable(self) -> bool:
        """As the environment inside."""
        return self.environment.restorable

    def reset(self, key: PRNGKeyArray) -> tuple[Timed, PyTree]:
        """A fresh state, no steps taken."""
        state, observation = self.environment.reset(key)
        return Timed(state, jnp.zeros((), jnp.int32)), observation

    def step(self, state: Timed, action: PyTree, key: PRNGKeyArray) -> tuple[Timed, Step]:
        """One step of the environment inside, and one on the clock."""
        inner, step = self.environment.step(state.inner, action, key)
        taken = state.taken + 1
        late = (taken >= self.steps) & ~jnp.any(step.terminal)
        return Timed(inner, taken), dataclasses.replace(step, truncated=step.truncated | late)

    def renew(self, state: Timed, observation: PyTree, ended: Bool[Array, ""], key: PRNGKeyArray) -> tuple[Timed, PyTree]:
        """A fresh episode and a fresh clock where `ended`."""
        inner, observation = self.environment.renew(state.inner, observation, ended, key)
        return Timed(inner, jnp.where(ended, 0, state.taken)), observation

    def at(self, observation: PyTree) -> Timed:
        """The state that shows `observation`, with the whole time left."""
        return Timed(self.environment.at(observation), jnp.zeros((), jnp.int32))

    def picture(self, observation: PyTree) -> UInt8[np.ndarray, "height width 3"]:
        """As the environment inside draws it."""
        return self.environment.picture(observation)
