"""RAVL: reach-aware value learning, pessimism for states that rollouts only reach at their end (Sims, Lu and Teh 2024, arXiv 2402.12527)."""

from __future__ import annotations

from typing import ClassVar

from policylab.hyperparameters import setting, settings
from policylab.learner import Learner
from policylab.learners.offline.edac import EDAC
from policylab.learners.worldmodel.dyna import Dyna
from policylab.learners.worldmodel.ensemble import EnsembleDynamics


@settings
class RAVL(Dyna):
    r"""Rollouts of k steps from logged states end in states that are bootstrapped from but never learned at, because no rollout goes on
    from them: edge-of-reach states. Nothing corrects a critic there, the policy seeks out its errors, and values run away even if the
    world is without any error. RAVL is MBPO on logged data without a penalty on the world's rewards, with many critics instead:

        y = r + gamma (1 - terminal) ( min_j Qbar_j(s', a') - alpha log pi(a' | s') ),   a' ~ pi(. | s')         (equation 1, section 5)

    plus EDAC's diversity: members that never learned at a state disagree there, and their minimum is low. The critics' standard
    deviation tells such states from others. Use it on `Imagined(dataset)`; settings are those of the authors' code, where the number of
    critics, `diversity` and `horizon` are chosen per dataset.
    """

    agent: Learner = setting(EDAC(), "who learns from imagined transitions")
    dynamics: Learner = setting(EnsembleDynamics(), "how the world is learned from logged ones")
    horizon: int = setting(5, "k, steps of a rollout in the world", low=1)
    fit_share: float = setting(0.2, "share of the updates at the start that fit the world alone", low=0.0, below=1.0)
    fit_every: int = setting(0, "updates between those of the world afterwards; 0 leaves it as it is", low=0)

    title: ClassVar[str] = "Reach-aware value learning"
    actions: ClassVar[str] = "continuous"
