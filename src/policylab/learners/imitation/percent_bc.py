"""%BC: behaviour cloning on the best share of the data (Chen et al. 2021, arXiv 2106.01345, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from policylab.hyperparameters import setting, settings
from policylab.learner import Request, Steps
from policylab.learners.imitation.bc import BC

Share = float  # a static number, unlike other settings: it decides what is drawn, not what is computed


@settings
class PercentBC(BC):
    r"""Behaviour cloning on the share `best` of the steps, those from the episodes with the highest returns.

    The share is static (another share is another program) and counts steps, so that the episode at its edge is cut. 10% is
    the share that Chen et al. and later work compare with.
    """

    best: Share = setting(
        0.1, "the share of the steps that is cloned, from the episodes with the highest return", above=0.0, high=1.0
    )

    title: ClassVar[str] = "Behaviour cloning of the best episodes"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Steps of the best episodes."""
        return {"steps": Steps(self.batch_size, best=self.best)}
