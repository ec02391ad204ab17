"""Receding horizons: plan many steps from the last observations, play a few, plan again (Chi et al. 2023, arXiv 2303.04137, section 2.3)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Statistics, Window
from policylab.policies.continuous import box_of
from policylab.policies.diffusion import Diffusion
from policylab.policies.windowed import Windowed
from policylab.policy import Form, Policy


class Course(eqx.Module):
    """The last observations, the newest last, the plan that is being played, in environment units, and the steps taken."""

    seen: Float[Array, "past observation"]
    plan: Float[Array, "step action"]
    taken: Int[Array, ""]


class RecedingPolicy(Policy):
    """`planner` sees the last `past` observations as one and answers with the next `horizon` actions as one, of which `played` are done.

    Before as many steps have been seen, the first observation stands in for those before it.
    """

    planner: Policy
    observation_space: spaces.Space = eqx.field(static=True)
    action_space: spaces.Box = eqx.field(static=True)
    seen: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    played: int = eqx.field(static=True)

    def initial_memory(self, *, key: PRNGKeyArray) -> Course:
        """Nothing seen, nothing planned."""
        sizes = spaces.size(self.observation_space), spaces.size(self.action_space)
        return Course(jnp.zeros((self.seen, sizes[0])), jnp.zeros((self.horizon, sizes[1])), jnp.zeros((), jnp.int32))

    def act(self, observation: PyTree, memory: Course, *, key: PRNGKeyArray) -> tuple[PyTree, Course]:
        """The next action of the plan; a new plan after every `played` steps."""
        flat = spaces.flatten(self.observation_space, observation)
        seen = jnp.where(memory.taken == 0, flat, jnp.concatenate([memory.seen[1:], flat[None]]))
        place = memory.taken % self.played
        plan = jax.lax.cond(place == 0, lambda: self._plan(seen, key), lambda: memory.plan)
        return spaces.unflatten(self.action_space, plan[place]), Course(seen, plan, memory.taken + 1)

    def _plan(self, seen: Float[Array, "past observation"], key: PRNGKeyArray) -> Float[Array, "step action"]:
        memory_key, act_key = jax.random.split(key)
        plan, _ = self.planner.act(seen, self.planner.initial_memory(key=memory_key), key=act_key)
        return plan

    def imitation_loss(self, window: Window, *, key: PRNGKeyArray) -> Float[Array, " time"]:
        """The planner's loss on the actions from the present on, at every valid step of the window. After the end of an episode its last
        action is repeated, before its beginning the first observation, as the authors do."""
        time = window.valid.shape[0]
        if time != self.seen - 1 + self.horizon:
            raise BadInput(
                f"plans of {self.horizon} actions after {self.seen} observations are fitted to windows of "
                f"{self.seen - 1 + self.horizon} steps, not of {time}: ask for past={self.seen - 1}, future={self.horizon}"
            )
        observation = jax.vmap(lambda o: spaces.flatten(self.observation_space, o))(window.observation)
        action = jax.vmap(lambda a: spaces.flatten(self.action_space, a))(window.action)
        step, now = jnp.arange(time), self.seen - 1
        there = jnp.where(window.valid, step, now)
        nearest = jnp.clip(step, jnp.min(there), jnp.max(there))
        put = lambda leaf: leaf[None]
        present = jax.tree.map(lambda leaf: leaf[now : now + 1], window)
        one = replace(
            present, observation=put(observation[nearest[: self.seen]]), action=put(action[nearest[now:]]),
            next_observation=put(observation[nearest[: self.seen]]), memory=None, extra={},
        )  # fmt: skip
        return self.planner.imitation_loss(one, key=key)[0] * window.valid * window.valid[now]

    def mode(self) -> Policy:
        """The policy whose plans are the planner's mode."""
        return replace(self, planner=self.planner.mode())


@dataclass(frozen=True)
class Receding(Windowed):
    """Any form for actions that are numbers, made one that plans `horizon` steps after `seen` observations and plays `played` of them.

    The inner form is given all of these steps as one observation [seen, observation] and one action [horizon, action]. Numbers of steps
    are Diffusion Policy's; its plans begin at the first of the observed steps, here they begin now.
    """

    policy: Form = field(default=Diffusion())
    seen: int = 2
    horizon: int = 16
    played: int = 8

    @property
    def past(self) -> int:
        """The observations before the present one."""
        return self.seen - 1

    @property
    def future(self) -> int:
        """The whole plan."""
        return self.horizon

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> RecedingPolicy:
        """Raises `BadInput` unless actions are a Box, and there are steps to see, plan and play."""
        space = box_of(spec, "Receding")
        if self.seen < 1 or not 1 <= self.played <= self.horizon:
            raise BadInput(
                f"Receding sees {self.seen} steps, plans {self.horizon} and plays {self.played}: see at least 1, and play between 1 and all"
            )
        planner = self.policy.build(self.planning(spec, space), key=key)
        return RecedingPolicy(planner, spec.observation, space, self.seen, self.horizon, self.played)

    def planning(self, spec: Spec, space: spaces.Box) -> Spec:
        """What the inner form is told: the spec of several steps as one."""
        low, high = (bound.reshape(-1) for bound in space.bounds())
        rows = lambda bound: tuple(float(x) for x in bound) * self.horizon
        wide: dict[str, Any] = {"observation": self.seen, "action": self.horizon}
        statistics: dict[str, Statistics] = {
            name: jax.tree.map(lambda leaf, n=wide[name]: jnp.tile(leaf, n), value)
            for name, value in spec.statistics.items()
            if name in wide
        }
        return replace(
            spec, observation=spaces.Box((self.seen, spaces.size(spec.observation))),
            action=spaces.Box((self.horizon, spaces.size(space)), rows(low), rows(high)), statistics=statistics,
        )  # fmt: skip
