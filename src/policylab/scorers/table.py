"""Critics over numbered states: one row of values per state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.policies.categorical import discrete_of
from policylab.policies.tabular import TabularPolicy
from policylab.scorer import Scorer

_NEVER = -100.0  # nats: a probability that float32 cannot tell from 0, so that entropies stay finite


class TableValue(Scorer):
    """Q(s, a) = entries[s, a]."""

    entries: Float[Array, "state choice"]

    def values(self, observation: Int[Array, ""]) -> Float[Array, " choice"]:
        """Q(s, .) for one state."""
        return self.entries[observation]

    def scores(self, observation: Int[Array, ""], action: Int[Array, ""]) -> Float[Array, " part"]:
        """Q(s, a), as one part."""
        return self.entries[observation, action][None]


def table_shape(spec: Spec, learner: str) -> tuple[int, int]:
    """How many states and choices there are. Raises `BadInput` unless both spaces are discrete."""
    choices = discrete_of(spec, learner).n
    if not isinstance(spec.observation, spaces.Discrete):
        raise BadInput(
            f"{learner} keeps a table of numbered states but observations are {spaces.describe(spec.observation)}: "
            "number the states, or choose a learner with networks such as DQN"
        )
    return spec.observation.n, choices


def greedy(
    table: Float[Array, "state choice"], allowed: Bool[Array, "state choice"], epsilon: Float[Array, ""] | float = 0.0
) -> TabularPolicy:
    """The allowed choice with the highest value (the first of equals), and with probability `epsilon` any choice.

    In a state without an allowed choice all are.
    """
    allowed = allowed | ~allowed.any(axis=1, keepdims=True)
    best = jax.nn.one_hot(jnp.argmax(jnp.where(allowed, table, -jnp.inf), axis=1), table.shape[1])
    return TabularPolicy(jnp.maximum(jnp.log((1.0 - epsilon) * best + epsilon / table.shape[1]), _NEVER))


def best_value(
    table: Float[Array, "*batch choice"], allowed: Bool[Array, "*batch choice"], otherwise: Float[Array, ""] | float
) -> Float[Array, "*batch"]:
    """max_a Q(s, a) over the allowed choices; `otherwise` where there is none."""
    best = jnp.max(jnp.where(allowed, table, -jnp.inf), axis=-1)
    return jnp.where(allowed.any(axis=-1), best, otherwise)
