"""Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from policylab.experience import Window


def advantages(
    window: Window,
    value: Float[Array, " time"],
    next_value: Float[Array, " time"],
    *,
    discount: Float[Array, ""] | float,
    trace: Float[Array, ""] | float,
) -> Float[Array, " time"]:
    r"""delta_t = r_t + gamma (1 - terminal_t) V(s'_t) - V(s_t);  A_t = delta_t + gamma lambda A_{t+1} within an episode (equation 16).

    `value` is V of `observation`, `next_value` of `next_observation`, the one before any reset: the sum stops where an episode ends, and a
    truncated step (or the last of the window) is still credited with what V expects after it. 0 on padding. `trace` is lambda: 1 gives
    the whole return minus V, 0 one step of it.
    """
    delta = window.reward + discount**window.duration * window.continues * next_value - value
    delta = jnp.where(window.valid, delta, 0.0)
    goes_on = window.valid & ~(window.terminal | window.truncated)
    decay = discount**window.duration * trace * goes_on

    def back(later: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        here = step[0] + step[1] * later
        return here, here

    return jax.lax.scan(back, jnp.zeros(()), (delta, decay), reverse=True)[1]
