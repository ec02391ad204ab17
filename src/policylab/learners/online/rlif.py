"""RLIF: reinforcement learning whose only reward is that a human took over (Luo et al. 2024, arXiv 2311.12996)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from jaxtyping import PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Request, Steps
from policylab.learners.online.rlpd import RLPD


@settings
class RLIF(RLPD):
    r"""RLPD on rewards of its own (algorithm 1):

        r_t = -1 where the learner acted at t and the expert takes over at t + 1, else 0

    The environment's rewards are not read. What the expert does when it acts is data like any other, so the learner may become better than
    the expert: it learns what not to be stopped at. Its source is an `Intervention`, usually blended with prior data:

        Blend((dataset, Intervention(environment, expert=..., rule=...)), absent=("before_takeover",))

    Settings are those of the authors' code: 10 critics with 3 layers, of which 2 make the target, no entropy in it, one update of everything
    per step. With few rewards to see, `keep="own"` in the source leaves the expert's own steps out, as that code mostly does.
    """

    depth: int = setting(3, "hidden layers of the critics", low=1)
    policy_period: int = setting(1, "updates of the critics per update of the policy", low=1)
    entropy_backup: bool = setting(False, "whether the target values entropy to come")

    title: ClassVar[str] = "Reinforcement learning from interventions"
    uses: ClassVar[tuple[str, ...]] = ()

    @property
    def needs(self) -> Mapping[str, Request]:
        """Transitions that say whether a take-over followed. Raises `BadInput` for returns of several steps."""
        if self.n != 1:
            raise BadInput(f"RLIF.n is {self.n}, but its rewards are made of single steps: leave it at 1")
        return {"transitions": Steps(self.batch_size, fields=("before_takeover",))}

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """An update of RLPD, on the take-overs."""
        blame = batch.extra["before_takeover"].astype(batch.reward.dtype)
        return RLPD.update(self, state, replace(batch, reward=-blame), clock=clock, key=key)
