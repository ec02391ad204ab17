"""Members: many copies of one learner, in one program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Each, Learner, Request, Sometimes, Steps
from policylab.learners.online.ppo import PPO
from policylab.policies.population import Population


@settings
class Members(Learner):
    """`count` copies of `learner`, which differ in their first parameters and their random numbers, vmapped. Its policy and its explorer are
    a `Population`: a source that acts lets every member act for itself, and batches gain a `member` axis in front, of which each member
    learns from its own part. Where the source gives one batch (a dataset, a replay that all of them fill), all members learn from it.

    Metrics are means over the members. An on-policy learner is refused one batch for all, of which it can learn nothing.
    """

    learner: Learner = setting(PPO(), "who is copied")
    count: int = setting(8, "members", low=1)

    title: ClassVar[str] = "Members: many copies of a learner"

    @property
    def on_policy(self) -> bool:  # ty: ignore[incompatible-property-override]
        """As the learner."""
        return self.learner.on_policy

    @property
    def needs(self) -> Mapping[str, Request]:
        """What the learner needs."""
        return self.learner.needs

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Every member's state, leaves [member, ...]; all get what was given."""
        begin = lambda k: self.learner.init(spec, key=k, given=given)
        return {"members": jax.vmap(begin)(jax.random.split(key, self.count))}

    def update(
        self, state: dict[str, PyTree], batch: Any, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """Every member's update. Raises `BadInput` where an on-policy learner gets one batch for all."""
        own = self._own(batch)
        if self.on_policy and not own:
            raise BadInput(
                f"members of {type(self.learner).__name__} learn only from what each does itself: give them lab.Rollout(environment)"
            )
        one = lambda state, batch, k: self.learner.update(state, batch, clock=clock, key=k)
        keys = jax.random.split(key, self.count)
        members, metrics = jax.vmap(one, in_axes=(0, 0 if own else None, 0))(state["members"], batch, keys)
        return {"members": members}, {name: averaged(value) for name, value in metrics.items()}

    def _own(self, batch: Any) -> bool:
        """Whether the batch has a member axis: one axis more than what was asked for."""
        name, request = next(iter(self.needs.items()))
        reward = (batch[name] if isinstance(batch, dict) else batch).reward
        return reward.ndim > (1 if isinstance(request, Steps) else 2)

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy` and `explorer`, as populations."""
        inner = jax.vmap(self.learner.products)(state["members"])
        return {name: Population(inner[name]) for name in ("policy", "explorer") if name in inner}


def averaged(metric: Any) -> Any:
    """A metric of many members as one: the mean over those that have it."""
    if isinstance(metric, Sometimes):
        present = jnp.sum(metric.present)
        value = jnp.sum(jnp.where(metric.present, metric.value, 0.0)) / jnp.maximum(present, 1)
        return Sometimes(value, present > 0)
    return jnp.mean(metric.values if isinstance(metric, Each) else metric)
