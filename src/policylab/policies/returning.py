"""A policy that is asked for a return and keeps account of what is left of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.networks.frozen import Frozen, Normaliser
from policylab.policy import Policy


class Promise(Frozen):
    """The return asked for, and the number that returns are divided by before the network sees them."""

    target: Float[Array, ""]
    scale: Float[Array, ""]


class Returning(Policy):
    """A policy of `conditioned_spec` that is told the return still to come: the promised `target` at the start, then less by the reward
    that each action is expected to bring. It is expected, by a network r(s, a), since policies do not see rewards."""

    policy: Any  # None only while a learner holds policy and rewards apart
    reward: Any
    normaliser: Normaliser
    promise: Promise
    observation_space: spaces.Space = eqx.field(static=True)
    action_space: spaces.Space = eqx.field(static=True)

    def initial_memory(self, *, key: PRNGKeyArray) -> tuple[PyTree, Float[Array, ""]]:
        """The inner policy's, and the whole target."""
        return self.policy.initial_memory(key=key), self.promise.target

    def expected(self, observation: PyTree, action: PyTree) -> Float[Array, ""]:
        """r(s, a), in the units of the rewards."""
        seen = self.normaliser(spaces.flatten(self.observation_space, observation))
        return self.reward(jnp.concatenate([seen, spaces.flatten(self.action_space, action)]))[0]

    def act(
        self, observation: PyTree, memory: tuple[PyTree, Float[Array, ""]], *, key: PRNGKeyArray
    ) -> tuple[PyTree, tuple[PyTree, Float[Array, ""]]]:
        """The inner policy's action for what is left of the target."""
        inner, left = memory
        action, inner = self.policy.act(
            {"observation": observation, "condition": (left / self.promise.scale)[None]}, inner, key=key
        )
        return action, (inner, left - self.expected(observation, action))

    def mode(self) -> Policy:
        """The same with the inner policy's mode."""
        return replace(self, policy=self.policy.mode())
