"""Rounds of a learner on its own answers: who answers stays the same for a while, then catches up (Xiong et al. 2024, arXiv 2312.11456)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Array, PRNGKeyArray

from policylab.experience import Spec
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request
from policylab.learners.preference.dpo import DPO
from policylab.networks.optimisation import select
from policylab.policies.anchoring import as_kept, kept


@settings
class Iterated(Learner):
    """`learner` with an explorer that is its policy as it was at the last multiple of `every` updates; around `DPO` on `Comparisons` it is
    iterative DPO. With `follow` the learner's reference becomes that policy, too, at the beginning of each iteration.
    """

    learner: Learner = setting(DPO(), "what learns; its state has the parts `policy` and `reference`")
    every: int = setting(200, "updates of one iteration", low=1)
    follow: bool = setting(False, "whether the reference is renewed as well, instead of staying what it was at the start")

    title: ClassVar[str] = "Iterations of a learner of preferences"
    takes: ClassVar[tuple[str, ...]] = ("start", "reference")

    @property
    def needs(self) -> Mapping[str, Request]:
        """What the learner needs."""
        return self.learner.needs

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, Any]:
        """The learner's state, and its policy as the first iterate."""
        inner = self.learner.init(spec, key=key, given=given)
        if self.follow and inner["reference"] is None:  # what follows is no longer what the policy carries inside
            inner = {**inner, "reference": inner["policy"].model}
        return {"learner": inner, "iterate": kept(inner["policy"].model)}

    def update(
        self, state: dict[str, Any], batch: Any, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """The learner's update; at the end of an iteration its policy becomes the iterate."""
        inner, metrics = self.learner.update(state["learner"], batch, clock=clock, key=key)
        over = (clock.step + 1) % self.every == 0
        iterate = select(over, kept(inner["policy"].model), state["iterate"])
        if self.follow:
            inner = {**inner, "reference": select(over, inner["policy"].model, inner["reference"])}
        return {"learner": inner, "iterate": iterate}, metrics

    def products(self, state: dict[str, Any]) -> dict[str, Any]:
        """The learner's, but for the `explorer`, which is the iterate."""
        products = self.learner.products(state["learner"])
        return {**products, "explorer": as_kept(state["iterate"], products["policy"])}
