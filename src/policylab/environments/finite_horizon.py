"""Values of episodes of a fixed length in a finite process, by backward induction; compiled, for policies that watch the clock."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from policylab.environments.tabular import Tabular

Table = Float[Array, "state choice"]


def _backed_up(process: Tabular, value: Float[Array, " state"]) -> Table:
    """Q(s, a) = E[ r + V(s') ], with V 0 after a terminal state."""
    goal = process.reward + jnp.where(process.terminal, 0.0, value)
    return jnp.sum(process.transition * goal, axis=-1)


def start_value(process: Tabular, policy: Float[Array, "time state choice"]) -> Float[Array, ""]:
    """The expected undiscounted return of an episode of `time` steps under the policy (probabilities)."""

    def back(value: Float[Array, " state"], choices: Table) -> tuple[Float[Array, " state"], None]:
        return jnp.sum(choices * _backed_up(process, value), axis=-1), None

    value, _ = jax.lax.scan(back, jnp.zeros(process.states), policy, reverse=True)
    return jnp.sum(process.initial * value)


def best_policy(process: Tabular, horizon: int) -> Float[Array, "time state choice"]:
    """The deterministic policy with the highest expected return in episodes of `horizon` steps (the first of equal choices)."""

    def back(value: Float[Array, " state"], _: None) -> tuple[Float[Array, " state"], Table]:
        values = _backed_up(process, value)
        return values.max(axis=-1), jax.nn.one_hot(values.argmax(axis=-1), process.choices)

    return jax.lax.scan(back, jnp.zeros(process.states), None, length=horizon, reverse=True)[1]


def softened(process: Tabular, horizon: int, temperature: Float[Array, ""] | float) -> Float[Array, "time state choice"]:
    """softmax(Q*_h(s, .) / temperature): a policy that prefers what is best and often errs; the temperature is in units of return."""

    def back(value: Float[Array, " state"], _: None) -> tuple[Float[Array, " state"], Table]:
        values = _backed_up(process, value)
        return values.max(axis=-1), jax.nn.softmax(values / temperature)

    return jax.lax.scan(back, jnp.zeros(process.states), None, length=horizon, reverse=True)[1]
