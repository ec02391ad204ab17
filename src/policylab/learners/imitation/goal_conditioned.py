"""Goal-conditioned learning from data without goals: any learner of steps or windows, with hindsight goals in its observations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Goals, Learner, Request
from policylab.learners.imitation.bc import BC
from policylab.policies.aimed import Aimed
from policylab.policy import Policy


class Hindsight:
    """How goals enter observations: into the part `into`, or, where that is "", as "goal" beside "observation".

    `part` is what of an observation states a goal, "" all of it (as in `Goals`).
    """

    def __init__(self, part: str = "", into: str = ""):
        self.part, self.into = part, into

    def spec(self, spec: Spec) -> Spec:
        """What a policy with goals sees; goals have the statistics of what states them. Raises `BadInput` if `part` or `into` is no
        part of the observation, or they differ in size."""
        parts = dict(spec.observation.parts) if isinstance(spec.observation, spaces.Composite) else {}
        for name in (self.part, self.into):
            if name and name not in parts:
                there = ", ".join(parts) or "no named parts"
                raise BadInput(f"goals name the part {name!r} but the observation has {there}: name one of its parts")
        goal = parts[self.part] if self.part else spec.observation
        if self.into and spaces.size(parts[self.into]) != spaces.size(goal):
            raise BadInput(
                f"goals of {spaces.describe(goal)} do not fit into {self.into!r}, {spaces.describe(parts[self.into])}"
            )
        both = (("observation", spec.observation), ("goal", goal))
        known = spec.statistics.get("observation")
        if known is None:
            return spec if self.into else replace(spec, observation=spaces.Composite(both))
        states = place_of(spec.observation, self.part)
        if self.into:
            target = place_of(spec.observation, self.into)
            known = jax.tree.map(lambda leaf: leaf.at[target].set(leaf[states]), known)
            return replace(spec, statistics={**spec.statistics, "observation": known})
        known = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[states]]), known)
        return replace(spec, observation=spaces.Composite(both), statistics={**spec.statistics, "observation": known})

    def batch(self, batch: Window) -> Window:
        """The batch as its goals tell it: they are seen, each step costs 1, but the goal's own, where the episode ends."""
        goal, reached = batch.extra["goal"], batch.extra["reached"]
        return replace(
            batch,
            observation=self._observed(batch.observation, goal),
            next_observation=self._observed(batch.next_observation, goal),
            reward=jnp.where(reached, 0.0, -1.0),
            terminal=reached,
            truncated=batch.truncated & ~reached,
        )

    def _observed(self, observation: PyTree, goal: PyTree) -> PyTree:
        return {**observation, self.into: goal} if self.into else {"observation": observation, "goal": goal}

    def start(self, spec: Spec) -> PyTree:
        """A goal to begin with, all zeros; None where observations tell the goal."""
        observation = self.spec(spec).observation
        if self.into or not isinstance(observation, spaces.Composite):
            return None
        return spaces.zeros(dict(observation.parts)["goal"])

    def policy(self, policy: Policy, goal: PyTree) -> Policy:
        """The policy for observations as they come: with this goal, where they do not tell one."""
        return policy if self.into else Aimed(policy, goal)


def place_of(space: spaces.Space, part: str) -> slice:
    """Where a named part stands in the flattened observation; "" is everything."""
    if not part:
        return slice(None)
    assert isinstance(space, spaces.Composite)
    names = [name for name, _ in space.parts]
    ends = list(itertools.accumulate((spaces.size(inner) for _, inner in space.parts), initial=0))
    return slice(ends[names.index(part)], ends[names.index(part) + 1])


@settings
class GoalConditioned(Learner):
    """`learner` with goals in its observations, out of data that have neither goals nor rewards (hindsight; Andrychowicz et al. 2017).

    Around `BC` it is goal-conditioned behaviour cloning (GCSL, Ghosh et al. 2021, with goals from the future), around `IQL`
    goal-conditioned IQL: the reward is -1 per step and 0 at the goal, which is terminal, so that values are minus discounted times.
    `part` names the part of the observation that states a goal, such as `achieved_goal`, and `into` the part that tells the policy its
    goal, such as `desired_goal`. Where observations tell no goal, `into` is "", and the policy is an `Aimed` one: it carries its goal,
    and `policy.towards(goal)` is the same policy with another.
    """

    learner: Learner = setting(BC(), "what learns; it must ask for steps or windows")
    current: float = setting(0.2, "share of goals that are the step's own observation", low=0.0, high=1.0)
    future: float = setting(0.5, "share of goals from later in the episode", low=0.0, high=1.0)
    random: float = setting(0.3, "share of goals from anywhere in the data", low=0.0, high=1.0)
    ahead: str = setting("geometric", "how far ahead future goals lie: geometric, or uniform over the rest of the episode")
    discount: float = setting(0.99, "chance of each further step to a geometric goal", above=0.0, below=1.0)
    part: str = setting("", "the part of the observation that states a goal; empty: all of it")
    into: str = setting("", "the part of the observation that tells the goal; empty: none does")

    title: ClassVar[str] = "Goal-conditioned learning in hindsight"

    @property
    def _hindsight(self) -> Hindsight:
        return Hindsight(self.part, self.into)

    @property
    def needs(self) -> Mapping[str, Request]:
        """What the learner needs, with goals."""
        # `ahead` is plain text here; whoever draws the goals checks the word and names the two that there are.
        goals = Goals(self.current, self.future, self.random, self.ahead, self.discount, self.part)  # ty: ignore[invalid-argument-type]
        return {name: replace(request, goals=goals) for name, request in self.learner.needs.items()}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """The learner's state for observations with goals."""
        view = self._hindsight
        return {"learner": self.learner.init(view.spec(spec), key=key, given=given), "goal": view.start(spec)}

    def update(self, state: dict[str, PyTree], batch: Any, *, clock: Clock, key: PRNGKeyArray) -> tuple[dict, dict[str, Any]]:
        """The learner's update on the batch as its goals tell it."""
        seen = self._hindsight.batch
        batch = seen(batch) if isinstance(batch, Window) else {name: seen(part) for name, part in batch.items()}
        learned, metrics = self.learner.update(state["learner"], batch, clock=clock, key=key)
        return {"learner": learned, "goal": state["goal"]}, metrics

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """The learner's; its policies act on observations as they come, everything else on those with goals."""
        made = self.learner.products(state["learner"])
        aimed = lambda product: self._hindsight.policy(product, state["goal"]) if isinstance(product, Policy) else product
        return {name: aimed(product) for name, product in made.items()}
