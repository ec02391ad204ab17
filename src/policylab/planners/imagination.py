"""What plans would give: many action sequences played out from one observation, in an environment that can be put there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.environment import Environment
from policylab.errors import BadInput

Value = Callable[[PyTree], Float[Array, ""]]


class Imagined(eqx.Module):
    """`returns[plan]` are discounted and averaged over particles; `observation` leaves are [plan, particle, horizon + 1, ...]."""

    returns: Float[Array, " plan"]
    observation: PyTree[Array]


def imagine(
    environment: Environment,
    observation: PyTree,
    plans: PyTree[Array],
    *,
    key: PRNGKeyArray,
    particles: int = 1,
    discount: Float[Array, ""] | float = 1.0,
    value: Any = None,
) -> Imagined:
    """Play every plan (leaves [plan, horizon, ...], in environment units) from `environment.at(observation)`.

    All plans meet the same noise, particle by particle (common random numbers). Nothing is earned after a terminal step; the
    last observation of a plan that is still going is worth `value(observation)` where a value is given. A plan whose return is
    not a number, as a learned world may produce far from its data, counts as minus infinity.
    """
    horizon = jax.tree.leaves(plans)[0].shape[1]
    start = environment.at(observation)

    def play(plan: PyTree, noise: PRNGKeyArray) -> tuple[Array, PyTree]:
        def move(carry: tuple, moment: tuple) -> tuple[tuple, PyTree]:
            state, _, weight = carry
            action, time = moment
            state, step = environment.step(state, action, jax.random.fold_in(noise, time))
            going = weight * (1.0 - step.terminal.astype(jnp.float32))
            return (state, step.observation, discount * going), (weight * step.reward, step.observation)

        (_, last, weight), (rewards, seen) = jax.lax.scan(move, (start, observation, jnp.ones(())), (plan, jnp.arange(horizon)))
        total = jnp.sum(rewards) + (0.0 if value is None else weight * value(last))
        return total, jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), observation, seen)

    noises = jax.random.split(key, particles)
    totals, seen = jax.vmap(lambda plan: jax.vmap(lambda noise: play(plan, noise))(noises))(plans)
    returns = jnp.mean(totals, axis=1)
    return Imagined(jnp.where(jnp.isnan(returns), -jnp.inf, returns), seen)


def require_imaginable(environment: Environment, planner: str) -> None:
    """Raise `BadInput` unless states can be stored, set and stepped inside the compiled program."""
    if environment.hosted:
        raise BadInput(
            f"{planner} needs an environment that it can put into any state, and {environment.spec.environment or 'this one'} is"
            " stepped on the host: plan in a learned world, or in one of the compiled environments"
        )
