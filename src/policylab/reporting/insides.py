"""What there is to see inside of a policy and of what was learned beside it, as pictures for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.data.recording import Recording
from policylab.environment import Environment
from policylab.environments.hosted import explained
from policylab.errors import BadInput
from policylab.planners.monte_carlo import MonteCarloTreeSearch
from policylab.planners.rerank import Rerank
from policylab.planners.tree import TreeSearch
from policylab.policies.generative import FromNoNoise
from policylab.policy import Policy
from policylab.reporting import drawings
from policylab.reporting.searched import most_visited, named_step, searched
from policylab.runs import Run

_LONGEST = 10_000  # steps of the episode that is played to its middle


@dataclass(frozen=True)
class Picture:
    """A PNG with its heading and one or two sentences below it."""

    title: str
    content: bytes
    caption: str


@dataclass(frozen=True)
class Moment:
    """What a policy saw at some point, and what it carried there in its memory; `where` says in words which point that is."""

    observation: PyTree
    memory: PyTree
    where: str


def insightful(policy: Policy) -> bool:
    """Whether there is something to see inside of a policy at a moment of an episode."""
    own = _within(policy)
    planner = getattr(own, "planner", None)
    planned = isinstance(planner, Policy) and _can(_within(planner), "denoise")
    return (
        planned or _can(own, "denoise") or _can(policy, "candidates") or isinstance(policy, MonteCarloTreeSearch | TreeSearch)
    )


def insides(
    policy: Policy | None, moment: Moment | None, products: Mapping[str, Any] = {}, *, key: PRNGKeyArray
) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    """The pictures, and a sentence for each that could not be drawn: how a policy of noise cleans it, which plans a planner tries, the
    tree of its search, and the archives among the `products`. At most one picture each; most policies have none."""
    found, missing = [], []
    for draw in (_denoising, _plans, _tree):
        try:
            found.append(None if moment is None or policy is None else draw(policy, moment, key))
        except BadInput as reason:
            missing.append(str(reason))
    for name, product in products.items():
        try:
            found.append(_archive(name, product))
        except BadInput as reason:
            missing.append(str(reason))
    return tuple(picture for picture in found if picture is not None), tuple(missing)


def middle_of_an_episode(policy: Policy, environment: Environment, *, seed: int, horizon: int = 0) -> Moment:
    """The moment in the middle of the episode that `policy` plays from the start which `seed` draws."""
    limit = min(horizon or environment.spec.horizon or 1_000, _LONGEST)
    begin, remember, noise = jax.random.split(jax.random.key(seed), 3)

    @jax.jit
    def played(policy: Policy, steps: Array) -> tuple[PyTree, PyTree, Array]:
        """What is seen and carried after so many steps, or after the episode's last one, and how many steps that were."""
        state, observation = environment.reset(begin)

        def going(carry: tuple) -> Array:
            *_, time, ended = carry
            return (time < steps) & ~ended

        def move(carry: tuple) -> tuple:
            state, observation, memory, time, _ = carry
            act_key, step_key = jax.random.split(jax.random.fold_in(noise, time))
            action, memory = policy.act(observation, memory, key=act_key)
            state, step = environment.step(state, action, step_key)
            return state, step.observation, memory, time + 1, jnp.any(step.terminal | step.truncated)

        memory = policy.initial_memory(key=remember)
        carry = (state, observation, memory, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
        _, observation, memory, time, _ = jax.lax.while_loop(going, move, carry)
        return observation, memory, time

    with explained():
        length = int(played(policy, jnp.asarray(limit))[2])
        observation, memory, _ = played(policy, jnp.asarray(length // 2))
    return Moment(observation, memory, f"after {length // 2} of {length} steps of an episode")


def moment_of(recording: Recording, policy: Policy, *, key: PRNGKeyArray) -> Moment:
    """The middle of the longest recorded episode, met without a memory of what came before."""
    longest = int(np.argmax(recording.lengths))
    step = int(np.sum(recording.lengths[:longest]) + recording.lengths[longest] // 2)
    row = int(recording.observation_rows[step])
    observation = jax.tree.map(lambda leaf: jnp.asarray(leaf[row]), recording.observation)
    where = f"at step {recording.lengths[longest] // 2} of a recorded episode of {recording.lengths[longest]}"
    return Moment(observation, policy.initial_memory(key=key), where)


def insides_of(shipped: tuple[str, Run, int] | None, recording: Recording, *, seed: int = 0) -> tuple[Picture, ...]:
    """The pictures for the policy (method, run, seed) that `solve` names, in the middle of a recorded episode; none without one."""
    if shipped is None:
        return ()
    _, run, number = shipped
    products, key = run.products(seed=number), jax.random.key(seed)
    policy = products["policy"]
    return insides(policy, moment_of(recording, policy, key=key), products, key=key)[0]


def _within(policy: Any) -> Any:
    """The policy that draws the actions, without what chooses among them or fixes their noise."""
    while isinstance(policy, Rerank | FromNoNoise):
        policy = policy.policy if isinstance(policy, Rerank) else policy.generative
    return policy


def _maker_of_plans(policy: Any, moment: Moment) -> tuple[Any, PyTree]:
    """Who turns noise into actions, and what that one is shown: a receding horizon shows its planner the last observations."""
    policy, seen = _within(policy), getattr(moment.memory, "seen", None)
    if not isinstance(getattr(policy, "planner", None), Policy) or seen is None:
        return policy, moment.observation
    now = spaces.flatten(policy.observation_space, moment.observation)
    first = moment.memory.taken == 0
    return _within(policy.planner), jnp.where(first, now, jnp.concatenate([seen[1:], now[None]]))


def _can(policy: Any, method: str) -> bool:
    return isinstance(getattr(policy, method, None), Callable)


def _denoising(policy: Policy, moment: Moment, key: PRNGKeyArray) -> Picture | None:
    own, observation = _maker_of_plans(policy, moment)
    if not _can(own, "denoise"):
        return None
    if own is not _within(policy):
        return Picture(
            "From noise to a plan",
            drawings.denoising(own, observation, samples=60, key=key),
            f"60 draws of noise on their way to plans of several actions, {moment.where}, in units of half the action's range. Bundles "
            "at the end are several ways to go on from there.",
        )
    return Picture(
        "From noise to an action",
        drawings.denoising(own, observation, key=key),
        f"300 draws of noise on their way to actions, {moment.where}, in units of half the action's range. Several heaps at the "
        "end are several ways to go on from there.",
    )


def _plans(policy: Policy, moment: Moment, key: PRNGKeyArray) -> Picture | None:
    if not _can(policy, "candidates"):
        return None
    return Picture(
        "The plans that were tried",
        drawings.plans(policy, moment.observation, moment.memory, key=key),
        f"Where the planner's first plans would lead {moment.where}, in the first two observed numbers: the better the darker.",
    )


def _tree(policy: Policy, moment: Moment, key: PRNGKeyArray) -> Picture | None:
    if isinstance(policy, TreeSearch):
        return _tree_of_steps(policy, moment, key)
    if not isinstance(policy, MonteCarloTreeSearch):
        return None
    search = jax.jit(lambda policy, observation, key: policy.search(observation, key=key))
    space = policy.environment.spec.action
    names = space.labels if isinstance(space, spaces.Discrete) else ()
    return Picture(
        "The tree of one search",
        drawings.tree(search(policy, moment.observation, key), actions=tuple(map(str, names))),
        f"How the simulations were spent {moment.where}: nodes are as large as they were visited.",
    )


def _tree_of_steps(policy: TreeSearch, moment: Moment, key: PRNGKeyArray) -> Picture:
    search = jax.jit(lambda p, seen, key: p.search(seen, p.environment.at(seen), key=key))
    tree = jax.device_get(search(policy, moment.observation, key))
    shown = most_visited(tree)
    many, all_of_them = int(shown.count), int(tree.count)
    which = f"all {many} nodes" if many == all_of_them else f"the {many} most visited of {all_of_them:,} nodes"
    return Picture(
        "The tree of one search",
        searched(shown, lambda tree, node: named_step(policy.environment, tree, node)),
        f"What was tried {moment.where}, {which}, each with its value, the brighter the better, and its visits. Ends have a black border.",
    )


def _archive(name: str, product: Any) -> Picture | None:
    """Of what quality-diversity kept, if that is what `product` is: rows with a view of what they did and their fitness."""
    if isinstance(product, Mapping) and {"elites", "occupied"} <= set(product):
        rows, filled = product["elites"], product["occupied"]
    else:
        rows, filled = getattr(product, "tried", None), getattr(product, "filled", None)
    view, fitness = getattr(rows, "view", None), getattr(rows, "fitness", None)
    if view is None or fitness is None or filled is None:
        return None
    there = np.asarray(filled).reshape(-1)
    seen = np.asarray(view).reshape(len(there), -1)[there]
    if not there.any() or seen.shape[1] < 2:
        raise BadInput(f"the {name} holds {int(there.sum())} members with {seen.shape[1]} numbers each: nothing to draw")
    return Picture(
        f"The {name}",
        drawings.archive(seen[:, :2], np.asarray(fitness).reshape(-1)[there]),
        "Each dot is a policy that was kept: where it got to, in the first two numbers that are kept of its episodes, and what it earned.",
    )
