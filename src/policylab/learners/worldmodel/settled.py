"""Learning in a world that is finished: the second of two stages, of which the first learned the world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request
from policylab.learners.online.sac import SAC


@settings
class Settled(Learner):
    """`agent` beside the `world` that it is given, which stays as it is; its source is an `Imagined` (or `Dreamed`) around real experience:

        train([Stage(EnsembleDynamics(), log, 20_000), Stage(Settled(SAC()), Imagined(log), 50_000)])

    Each seed learns in the world of its own seed. For both in one stage, or a world that goes on learning, see `Dyna`.
    """

    agent: Learner = setting(SAC(), "who learns from what is imagined")

    title: ClassVar[str] = "Learning in a given world"
    takes: ClassVar[tuple[str, ...]] = ("world",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """What the agent needs."""
        return self.agent.needs

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """The agent's state and the world. Raises `BadInput` where none is given."""
        if "world" not in given:
            raise BadInput(
                'Settled learns in a world that it is given: train one in a stage before, or give given={"world": world}'
            )
        return {"agent": self.agent.init(spec, key=key), "world": given["world"]}

    def update(
        self, state: dict[str, PyTree], batch: Any, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict]:
        """The agent's."""
        agent, metrics = self.agent.update(state["agent"], batch, clock=clock, key=key)
        return {**state, "agent": agent}, metrics

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """What the agent offers, and `world`."""
        return {"world": state["world"]} | self.agent.products(state["agent"])
