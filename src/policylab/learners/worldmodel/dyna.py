"""Dyna: a world is learned from real experience and an agent from what it would do there (Sutton 1991, "Dyna, an integrated architecture")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Steps
from policylab.learners.online.sac import SAC
from policylab.learners.worldmodel.ensemble import EnsembleDynamics
from policylab.networks.periodic import where_due
from policylab.world import Branched


@settings
class Dyna(Learner):
    """Any learner of a world beside any learner of transitions, in one run.

    For a share `fit_share` of the updates only the world is fitted. From then on the agent learns at every update, and the world goes on
    at every `fit_every`-th (0: it stays as it is). Its source is an `Imagined` around the real experience: the agent's transitions
    come mostly from rollouts of its own explorer in `products["world"]`.
    """

    agent: Learner = setting(SAC(), "who learns from imagined transitions")
    dynamics: Learner = setting(EnsembleDynamics(), "how the world is learned from real ones")
    horizon: int = setting(1, "steps of a rollout in the world", low=1)
    longest: int = setting(0, "steps to which rollouts grow over the run; 0 leaves them as they are", low=0)
    real: float = setting(0.05, "share of real transitions in the agent's batches", low=0.0, high=1.0)
    fit_share: float = setting(0.05, "share of the updates at the start that fit the world alone", low=0.0, below=1.0)
    fit_every: int = setting(4, "updates between those of the world afterwards; 0 leaves it as it is", low=0)

    title: ClassVar[str] = "Dyna: learning in a learned world"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Imagined transitions for the agent under its own name for them, and real ones for the `world`."""
        (wanted,) = self.fitter.needs.values()
        return {name: self.branched(request) for name, request in self.agent.needs.items()} | {"world": wanted}

    @property
    def fitter(self) -> Learner:
        """Who fits the world; extensions may put something around `dynamics`."""
        return self.dynamics

    def branched(self, request: Request) -> Request:
        """What the agent asks for, to be imagined."""
        if not isinstance(request, Steps) or request.n != 1 or request.best != 1.0:
            raise BadInput(
                f"{type(self.agent).__name__} asks for {request}, and only single transitions are imagined: choose an agent such as SAC"
            )
        return Branched(
            request.count, request.fields, request.goals, self.horizon, self.longest, float(self.real), float(self.fit_share)
        )  # fmt: skip

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Both learners' states."""
        agent_key, world_key = jax.random.split(key)
        return {"agent": self.agent.init(spec, key=agent_key), "dynamics": self.fitter.init(spec, key=world_key)}

    def update(
        self, state: dict[str, PyTree], batch: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """The world, the agent or both, as the clock says."""
        agent_key, world_key = jax.random.split(key)
        start = jnp.ceil(self.fit_share * clock.total).astype(jnp.int32)
        alone = clock.step < start
        due = alone | ((clock.step % self.fit_every == 0) if self.fit_every else False)
        real = self.real_batch(state, batch["world"])
        fit = lambda part: self.fitter.update(part, real, clock=clock, key=world_key)
        dynamics, fitted = where_due(due, fit, state["dynamics"])
        own = {name: part for name, part in batch.items() if name != "world"}
        inner = Clock(clock.step - start, clock.total - start)
        learn = lambda part: self.agent.update(
            part, own if len(own) > 1 else next(iter(own.values())), clock=inner, key=agent_key
        )
        agent, learned = where_due(~alone, learn, state["agent"])
        return {"agent": agent, "dynamics": dynamics}, {**{f"world_{name}": m for name, m in fitted.items()}, **learned}

    def real_batch(self, state: dict[str, PyTree], batch: Window) -> Window:
        """What the world is fitted to; extensions add to it what the agent knows."""
        return batch

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """What the agent offers, and `world`."""
        return self.fitter.products(state["dynamics"]) | self.agent.products(state["agent"])
