"""MBPO: model-based policy optimisation (Janner et al. 2019, arXiv 1906.08253)."""

from __future__ import annotations

from typing import ClassVar

from policylab.hyperparameters import setting, settings
from policylab.learner import Learner
from policylab.learners.online.sac import SAC
from policylab.learners.worldmodel.dyna import Dyna
from policylab.learners.worldmodel.ensemble import EnsembleDynamics
from policylab.learners.worldmodel.rescaled import Rescaled


@settings
class MBPO(Dyna):
    """SAC on short rollouts in a probabilistic ensemble, branched from real states (algorithm 2):

        repeat: fit p(s', r | s, a) on the real data; act once in the environment; branch k-step rollouts of pi in p from real
        states; many updates of SAC, 95% of each batch imagined

    k may grow over the run (`horizon` to `longest`), as in the paper's table. Use it on `Imagined(Replay(environment, updates=20))`: 20
    updates for every step in the environment. The paper fits the ensemble to convergence every 250 steps, with early stopping; here it
    goes on by a gradient step at every `fit_every`-th update, from where it was.
    """

    agent: Learner = setting(SAC(), "who learns from imagined transitions")
    dynamics: Learner = setting(EnsembleDynamics(), "how the world is learned from real ones")

    title: ClassVar[str] = "Model-based policy optimisation"
    actions: ClassVar[str] = "continuous"

    @property
    def fitter(self) -> Learner:
        """The dynamics, in the scales of what has been seen so far."""
        return Rescaled(self.dynamics)
