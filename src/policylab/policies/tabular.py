"""Tabular policies: one row of logits per numbered state."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.policies.categorical import discrete_of
from policylab.policy import Form, Policy


class TabularPolicy(Policy):
    """p(a | s) = softmax(table[s])_a."""

    table: Float[Array, "state choice"]

    def act(self, observation: Int[Array, ""], memory: PyTree, *, key: PRNGKeyArray) -> tuple[Int[Array, ""], PyTree]:
        """A sampled choice."""
        return jax.random.categorical(key, self.table[observation]).astype(jnp.int32), memory

    def sample(
        self, observation: Int[Array, ""], memory: PyTree, *, key: PRNGKeyArray
    ) -> tuple[Int[Array, ""], Float[Array, ""], PyTree]:
        """A sampled choice and its log-probability."""
        action, memory = self.act(observation, memory, key=key)
        return action, jax.nn.log_softmax(self.table[observation])[action], memory

    def logits(self, window: Window) -> Float[Array, "time choice"]:
        """The rows of the states seen."""
        return self.table[window.observation]

    def log_probs(self, window: Window) -> Float[Array, "time part"]:
        """One part: the choice. 0 where padded."""
        logits = jax.nn.log_softmax(self.logits(window))
        return jnp.take_along_axis(logits, window.action[:, None], axis=-1) * window.valid[:, None]

    def entropy(self, observation: Int[Array, ""]) -> Float[Array, ""]:
        """In nats."""
        logits = jax.nn.log_softmax(self.table[observation])
        return -jnp.sum(jnp.exp(logits) * logits)

    def mode(self) -> Policy:
        """The policy that plays the likeliest choice of every state (the first of equals)."""
        return TabularMode(self)


class TabularMode(Policy):
    """The likeliest choice of a tabular policy as a deterministic policy."""

    tabular: TabularPolicy

    def act(self, observation: Int[Array, ""], memory: PyTree, *, key: PRNGKeyArray) -> tuple[Int[Array, ""], PyTree]:
        """The likeliest choice."""
        return jnp.argmax(self.tabular.table[observation]).astype(jnp.int32), memory


@dataclass(frozen=True)
class Tabular(Form):
    """All logits 0 at the start: the uniform policy."""

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> TabularPolicy:
        """Raises `BadInput` unless observations and actions are both discrete; the key is not used."""
        choices = discrete_of(spec, "Tabular").n
        if not isinstance(spec.observation, spaces.Discrete):
            raise BadInput(
                f"the form Tabular is for numbered states but observations are {spaces.describe(spec.observation)}: use Categorical"
            )
        return TabularPolicy(jnp.zeros((spec.observation.n, choices)))
