"""Hindsight: what was reached later serves as a goal (Andrychowicz et al. 2017, arXiv 1707.01495; shares as Park et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.learner import Goals, Request, Steps, Windows


def require_goals(request: Request, spec: Spec, *, name: str) -> None:
    """Raise `BadInput` unless goals can be drawn for this request (asked for as `name`); nothing to check where it wants none."""
    goals = request.goals
    if goals is None:
        return
    if not (isinstance(request, Windows) or (isinstance(request, Steps) and request.n == 1)):
        raise BadInput(f"{name!r} wants goals with {type(request).__name__}: ask for Windows, or for Steps with n=1")
    shares = (goals.current, goals.future, goals.random)
    if min(shares) < 0.0 or not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
        raise BadInput(f"the shares of goals of {name!r} are {shares}: give numbers from 0 on that add up to 1")
    if goals.ahead not in ("geometric", "uniform"):
        raise BadInput(f"Goals.ahead is {goals.ahead!r}: choose geometric or uniform")
    if not 0.0 < goals.discount < 1.0:
        raise BadInput(f"Goals.discount is {goals.discount}: choose a value above 0 and below 1")
    parts = dict(spec.observation.parts) if isinstance(spec.observation, spaces.Composite) else {}
    if goals.part and goals.part not in parts:
        there = ", ".join(parts) or "no named parts"
        raise BadInput(
            f"Goals.part is {goals.part!r} but the observation has {there}: name one of its parts, or leave it empty"
        )


def goal_rows(
    goals: Goals, rows: Int[Array, " batch"], final: Int[Array, " batch"], anywhere: Int[Array, " batch"], *, key: PRNGKeyArray
) -> Int[Array, " batch"]:
    """The row of the goal of each of `rows`: itself, a later one up to `final` (the last observation of its episode), or `anywhere`.

    A geometric goal lies k steps ahead with probability (1 - discount) discount^(k - 1), those beyond the end at the end.
    """
    which, how_far = jax.random.split(key)
    share = jax.random.uniform(how_far, rows.shape)  # in [0, 1)
    if goals.ahead == "geometric":
        ahead = jnp.floor(jnp.log1p(-share) / math.log(goals.discount)).astype(rows.dtype)
    else:
        ahead = jnp.floor(share * (final - rows)).astype(rows.dtype)
    later = jnp.minimum(rows + 1 + ahead, final)
    kind = jax.random.uniform(which, rows.shape)
    return jnp.where(kind < goals.current, rows, jnp.where(kind < goals.current + goals.future, later, anywhere))


def last_step(request: Request, rows: Int[Array, " batch"], last: Int[Array, " batch"]) -> Int[Array, " batch"]:
    """The row of the last step of each window around `rows`, that ends with `last`, the last step of the episode, at the latest."""
    return jnp.minimum(rows + request.future - 1, last) if isinstance(request, Windows) else rows


def with_goals(
    batch: Window, request: Request, rows: Int[Array, " batch"], found: Int[Array, " batch"], goal: PyTree[Array]
) -> Window:
    """The batch of steps or windows drawn around `rows` with `goal`, one for each, that stands in the rows `found`."""
    if isinstance(request, Windows):
        time = jnp.arange(-request.past, request.future)
        goal = jax.tree.map(lambda leaf: jnp.repeat(leaf[:, None], len(time), axis=1), goal)
        reached = batch.valid & (found[:, None] == rows[:, None] + time)
    else:
        reached = found == rows
    return replace(batch, extra={**batch.extra, "goal": goal, "reached": reached})


def goal_of(goals: Goals, observation: PyTree[Array]) -> PyTree[Array]:
    """What of an observation states a goal: the named part, or all of it."""
    return observation[goals.part] if goals.part else observation
