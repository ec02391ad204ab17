"""Independent learners for several players (IPPO: de Witt et al. 2020, arXiv 2011.09533), each for itself or all with one network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from policylab import spaces
from policylab.environments.joint import joint_roles, one_player
from policylab.environments.seats import players
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request
from policylab.learners.online.ppo import PPO
from policylab.policies.team import Alike


@settings
class Independent(Learner):
    """`learner`, which asks for windows, for every player of a game (`Rollout(Joint(game))`): each learns from what it observed, did and
    got itself, as if the others were part of the process. Transitions have a leading player axis, and all players learn in one program.

    With `share` there is one learner for all, which sees {"observation": own, "player": number} and learns from everybody's experience,
    as the published IPPO does; without, every player has networks of its own. Players must be alike. What a player does after it left the
    game counts nowhere; leaving ends its process. (A player that leaves alone because its own clock ran out counts as ended, too.)
    """

    learner: Learner = setting(PPO(), "who learns for each player; it asks for windows")
    share: bool = setting(True, "whether all players have one network, which is told whose turn it is")

    title: ClassVar[str] = "Independent learners for several players"
    uses: ClassVar[tuple[str, ...]] = ("reward",)
    on_policy: ClassVar[bool] = True

    @property
    def needs(self) -> Mapping[str, Request]:
        """What the learner needs."""
        return self.learner.needs

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """One state, or one per player."""
        own = one_player(spec)
        count = len(joint_roles(spec))
        if self.share:
            seen = spaces.Composite((("observation", own.observation), ("player", spaces.Discrete(count))))
            state = self.learner.init(replace(own, observation=seen), key=key, given=given)
        else:
            state = jax.vmap(lambda k: self.learner.init(own, key=k, given=given))(jax.random.split(key, count))
        return {"learner": state, "spec": replace(spec, statistics={})}

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """The learner's update for everybody; metrics are means over the players."""
        windows = players(batch, joint_roles(state["spec"]))
        count = windows.reward.shape[0]
        if self.share:
            number = jnp.broadcast_to(jnp.arange(count)[:, None, None], windows.reward.shape)
            name = lambda observation: {"observation": observation, "player": number}
            windows = replace(windows, observation=name(windows.observation), next_observation=name(windows.next_observation))
            flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), windows)
            learner, metrics = self.learner.update(state["learner"], flat, clock=clock, key=key)
            return {**state, "learner": learner}, metrics
        one = lambda state, window, k: self.learner.update(state, window, clock=clock, key=k)
        learner, metrics = jax.vmap(one)(state["learner"], windows, jax.random.split(key, count))
        return {**state, "learner": learner}, {name: jnp.mean(value) for name, value in metrics.items()}

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy` and `explorer` of all players together: they act on joint observations."""
        roles = joint_roles(state["spec"])
        inner = self.learner.products(state["learner"])
        return {name: Alike(inner[name], roles, self.share) for name in ("policy", "explorer") if name in inner}
