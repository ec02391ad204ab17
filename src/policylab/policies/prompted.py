"""A policy of skills that is told what to do afterwards: reach a goal, or gain a reward (Park, Kreiman and Levine 2024)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from policylab.policy import Policy


class Prompted(Policy):
    """Acts by `policy`, which observes `{"observation": s, "skill": z}`, with z a direction in the space of `encoder`.

    Towards a goal g, z = (phi(g) - phi(s)) / ||phi(g) - phi(s)||, anew at every step; along a skill, z is that skill. `part` names the
    part of the observation that is the state, `into` the part that tells the goal; where none does ("") the policy carries its goal.
    """

    policy: Policy
    encoder: Any  # phi: a state -> a vector
    goal: PyTree[Array]
    skill: Float[Array, " dimension"]
    seeking: Bool[Array, ""]
    part: str = eqx.field(static=True, default="")
    into: str = eqx.field(static=True, default="")

    def towards(self, goal: PyTree[Array]) -> Prompted:
        """The same policy with a goal: a state."""
        return replace(self, goal=goal, seeking=jnp.asarray(True))

    def along(self, skill: Float[Array, " dimension"]) -> Prompted:
        """The same policy with a skill of length 1."""
        return replace(self, skill=skill, seeking=jnp.asarray(False))

    def rewarded(self, states: PyTree[Array], rewards: Float[Array, " row"]) -> Prompted:
        """The same policy with the skill for a reward, told by examples: least squares of the rewards on phi(s) - mean phi, made a
        direction (section 5.2, with the features of the authors' code for zero-shot rewards)."""
        phi = jax.vmap(self.encoder)(states)
        centred, wanted = phi - phi.mean(0), rewards - rewards.mean()
        spread = centred.T @ centred
        ridge = 1e-4 * jnp.trace(spread) / len(spread) * jnp.eye(len(spread))
        skill = jnp.linalg.solve(spread + ridge, centred.T @ wanted)
        return self.along(skill / jnp.maximum(jnp.linalg.norm(skill), 1e-6))

    def direction(self, observation: PyTree) -> Float[Array, " dimension"]:
        """z for one observation."""
        state = observation[self.part] if self.part else observation
        way = self.encoder(observation[self.into] if self.into else self.goal) - self.encoder(state)
        return jnp.where(self.seeking, way / jnp.maximum(jnp.linalg.norm(way), 1e-6), self.skill)

    def initial_memory(self, *, key: PRNGKeyArray) -> PyTree:
        """The policy's."""
        return self.policy.initial_memory(key=key)

    def mode(self) -> Prompted:
        """With the deterministic version of the policy."""
        return replace(self, policy=self.policy.mode())

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """The policy's action."""
        state = observation[self.part] if self.part else observation
        return self.policy.act({"observation": state, "skill": self.direction(observation)}, memory, key=key)
