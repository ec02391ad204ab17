"""Roles: a learner for each role of a game."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import jax
from jaxtyping import PRNGKeyArray, PyTree

from policylab.environments.joint import joint_roles, role_spec
from policylab.environments.seats import seat
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request
from policylab.policies.team import Team


@settings
class Roles(Learner):
    """`learners` by role: each learns from what its role observed, did and got in a game (`Rollout(Joint(game))`, or a `Replay` of it), and
    all act together. Roles may differ in their spaces. Where they are alike and learn alike, `Independent` is faster.

    All have to ask for the same number of steps, since they play together.
    """

    learners: dict[str, Learner] = setting(help="a learner for every role of the game")

    title: ClassVar[str] = "Roles: a learner for each role of a game"

    @property
    def on_policy(self) -> bool:  # ty: ignore[incompatible-property-override]
        """Whether one of them is."""
        return any(learner.on_policy for learner in self.learners.values())

    @property
    def needs(self) -> Mapping[str, Request]:
        """One request, with the fields of all. Raises `BadInput` where they do not ask alike."""
        asked = {role: dict(learner.needs) for role, learner in self.learners.items()}
        requests = {role: next(iter(own.values())) for role, own in asked.items()}
        bare = {role: replace(request, fields=()) for role, request in requests.items()}
        roles = list(bare)
        unlike = [role for role in roles if len(asked[role]) != 1 or bare[role] != bare[roles[0]]]
        if unlike:
            raise BadInput(
                f"the roles play together but {roles[0]!r} asks for {bare[roles[0]]} and {unlike[0]!r} for {asked[unlike[0]]}:"
                " give their learners the same steps and environments"
            )
        fields = tuple(dict.fromkeys(field for request in requests.values() for field in request.fields))
        return {"joint": replace(requests[roles[0]], fields=fields)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Every role's state. Raises `BadInput` where the game's roles are others."""
        roles = joint_roles(spec)
        if set(roles) != set(self.learners):
            raise BadInput(f"the game has the roles {', '.join(roles)} but there are learners for {', '.join(self.learners)}")
        keys = dict(zip(roles, jax.random.split(key, len(roles)), strict=True))
        states = {role: self.learners[role].init(role_spec(spec, role), key=keys[role], given=given) for role in roles}
        return {"roles": states, "spec": replace(spec, statistics={})}

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """Everybody's update; metrics by role."""
        roles, after, metrics = joint_roles(state["spec"]), {}, {}
        for role, k in zip(roles, jax.random.split(key, len(roles)), strict=True):
            own = seat(batch, roles, role)
            after[role], told = self.learners[role].update(state["roles"][role], own, clock=clock, key=k)
            metrics |= {f"{role}/{name}": value for name, value in told.items()}
        return {**state, "roles": after}, metrics

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy` and `explorer` of all together, and whatever else each has learned as "role/name"."""
        roles = joint_roles(state["spec"])
        own = {role: self.learners[role].products(state["roles"][role]) for role in roles}
        acts = lambda role, name: own[role][name if name in own[role] else "policy"]
        teams = {name: Team({role: acts(role, name) for role in roles}, roles) for name in ("policy", "explorer")}
        others = {f"{role}/{name}": thing for role in roles for name, thing in own[role].items() if name not in teams}
        return teams | others
