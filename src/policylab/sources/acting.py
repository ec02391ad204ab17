"""Acting: copies of an environment and the policy that moves them, which all online sources share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PRNGKeyArray, PyTree

from policylab.environment import Environment
from policylab.errors import BadInput
from policylab.experience import Window
from policylab.fingerprints import fingerprint
from policylab.networks.optimisation import select
from policylab.policy import Policy


class Actors(eqx.Module):
    """Copies of an environment in the middle of their episodes; leaves [environment, ...]."""

    state: PyTree[Array]
    observation: PyTree[Array]
    memory: PyTree[Array]


def explorer_of(products: Mapping[str, Any]) -> Policy:
    """Who collects: `explorer`, else `policy`. Raises `BadInput` where there is neither."""
    explorer = products.get("explorer", products.get("policy"))
    if explorer is None:
        raise BadInput(
            f"an online source needs someone who acts, but the learner offers only {', '.join(products) or 'nothing'}"
        )
    return explorer


def memories(policy: Policy, count: int, *, key: PRNGKeyArray) -> PyTree[Array]:
    """`count` fresh memories of `policy`."""
    return jax.vmap(lambda k: policy.initial_memory(key=k))(jax.random.split(key, count))


def begin(environment: Environment, policy: Policy, count: int, *, key: PRNGKeyArray) -> Actors:
    """`count` fresh episodes."""
    reset_key, memory_key = jax.random.split(key)
    state, observation = jax.vmap(environment.reset)(jax.random.split(reset_key, count))
    return Actors(state, observation, memories(policy, count, key=memory_key))


def move(
    environment: Environment,
    policy: Policy,
    actors: Actors,
    *,
    key: Key[Array, "*environment_purpose"],
    log_prob: bool = False,
    notes: Callable[[PyTree], dict[str, PyTree]] | None = None,
) -> tuple[Actors, Window]:
    """One step of every copy, as transitions [environment]; episodes that ended begin anew, with a fresh memory.

    `next_observation` is the one that the step led to, before any reset. With `log_prob` the acting policy's log-probability
    of each action stands in `extra["log_prob"]`; `notes` says what else to store there, from the policy's memory after it acted.
    Whoever moves many times in a row may give the `move_keys` of each time's key instead, which are then made all at once.
    """

    def one(state: PyTree, observation: PyTree, memory: PyTree, keys: Key[Array, " purpose"]) -> tuple[Actors, Window]:
        act_key, step_key, reset_key, memory_key = keys
        extra = {}
        if log_prob:
            action, extra["log_prob"], memory = policy.sample(observation, memory, key=act_key)
        else:
            action, memory = policy.act(observation, memory, key=act_key)
        if notes is not None:
            extra |= notes(memory)
        state, following, step = environment.step_and_renew(state, action, step_key, reset_key)
        ended = step.terminal | step.truncated
        row = Window(
            observation, action, step.reward, step.observation, step.terminal, step.truncated,
            jnp.ones((), bool), jnp.ones((), jnp.int32), extra=extra,
        )  # fmt: skip
        return Actors(state, following, select(ended, policy.initial_memory(key=memory_key), memory)), row

    keys = key if key.ndim else move_keys(key, jax.tree.leaves(actors.observation)[0].shape[0])
    return jax.vmap(one)(actors.state, actors.observation, actors.memory, keys)


def move_keys(key: PRNGKeyArray, count: int) -> Key[Array, "environment purpose"]:
    """The keys [environment, purpose] of one `move` of `count` copies."""
    return jax.vmap(lambda one: jax.random.split(one, 4))(jax.random.split(key, count))


def require_one_player(environment: Environment, source: str) -> None:
    """Raise `BadInput` for environments of several players, whose steps are no single transition."""
    if len(environment.spec.roles) > 1:
        raise BadInput(
            f"{source} rolls out one player but the environment has {len(environment.spec.roles)}: give one role's view"
        )


def identity(source: Any, environment: Environment, *settings: int | bool) -> str:
    """A fingerprint of an online source: its arrays, its kind of environment, its spec and its own settings."""
    words = repr((type(environment).__name__, environment.spec.to_json(), settings)).encode()
    return fingerprint({"arrays": jax.tree.leaves(source), "words": np.frombuffer(words, np.uint8)})
