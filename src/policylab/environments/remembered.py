"""Remembered: observations with the past of their episode beside them."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.environment import Environment, Step
from policylab.experience import Spec


class Past(eqx.Module):
    """The state of the environment inside, and what was observed since its reset: rows from the first on, `seen` where filled."""

    inner: PyTree[Array]
    rows: Float[Array, "time size"]
    seen: Bool[Array, " time"]


class Remembered(Environment):
    """Observations become {"observation": ..., "past": [steps, size], "seen": [steps]}: the flattened observations of the episode from its
    reset to now, in order, and 1 where there is one. After `steps` of them the oldest are forgotten. Whoever reads the past (an encoder
    of histories, a transformer) needs no memory of its own.
    """

    environment: Environment
    steps: int = eqx.field(static=True)

    @property
    def spec(self) -> Spec:
        """The environment's, with the past."""
        own = self.environment.spec
        rows = spaces.Box((self.steps, spaces.size(own.observation)))
        seen = spaces.Box((self.steps,), 0.0, 1.0)
        together = spaces.Composite((("observation", own.observation), ("past", rows), ("seen", seen)))
        return dataclasses.replace(own, observation=together, statistics={})

    def _shown(self, observation: PyTree, past: Past) -> PyTree:
        return {"observation": observation, "past": past.rows, "seen": past.seen.astype(jnp.float32)}

    def reset(self, key: PRNGKeyArray) -> tuple[Past, PyTree]:
        """A past of one."""
        inner, observation = self.environment.reset(key)
        flat = spaces.flatten(self.environment.spec.observation, observation)
        past = Past(inner, jnp.zeros((self.steps, flat.size)).at[0].set(flat), jnp.arange(self.steps) < 1)
        return past, self._shown(observation, past)

    def step(self, state: Past, action: PyTree, key: PRNGKeyArray) -> tuple[Past, Step]:
        """One more."""
        inner, step = self.environment.step(state.inner, action, key)
        flat = spaces.flatten(self.environment.spec.observation, step.observation)
        full = state.seen.all()
        rows = jnp.where(full, jnp.roll(state.rows, -1, axis=0), state.rows)
        place = jnp.where(full, self.steps - 1, state.seen.sum())
        past = Past(inner, rows.at[place].set(flat), state.seen.at[place].set(True))
        return past, dataclasses.replace(step, observation=self._shown(step.observation, past))
