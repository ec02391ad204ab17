"""A deterministic policy with noise on its actions, to explore."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.policies.deterministic import DeterministicPolicy
from policylab.policy import Policy


class Noisy(Policy):
    """clip(pi(s) + noise * N(0, 1), -1, 1), the noise and the bounds in units of half the action range."""

    policy: DeterministicPolicy
    noise: Float[Array, ""]

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """A noisy action in environment units."""
        unit = self.policy.unit_action(observation)
        unit = jnp.clip(unit + self.noise * jax.random.normal(key, unit.shape), -1.0, 1.0)
        return spaces.unflatten(self.policy.action_space, self.policy.scaler.to_environment(unit)), memory

    def mode(self) -> Policy:
        """The policy without noise."""
        return self.policy
