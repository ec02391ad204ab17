"""IDQL: implicit Q-learning as an actor-critic method with diffusion policies (Hansen-Estruch et al. 2023, arXiv 2304.10573)."""

from __future__ import annotations

from typing import Any, ClassVar

from jaxtyping import PyTree

from policylab.hyperparameters import setting, settings
from policylab.learners.offline.iql import IQL
from policylab.planners.rerank import Rerank
from policylab.policies.diffusion import Diffusion
from policylab.policy import Form


@settings
class IDQL(IQL):
    r"""IQL's critics, and beside them a clone of the behaviour that no critic weights: of its samples the best is taken.

    critics: as IQL with expectile tau                                       (equations 2 and 3)
    policy:  min E[ imitation_loss(s, a) ]                                   (equation 10: a diffusion model of all actions)
    acting:  a_1 ... a_N ~ policy, then argmax_i min_j Q_j(s, a_i)           (algorithm 2 with deterministic selection)

    With a `temperature` of 0 IQL's weights are all 1, which is the second line. Defaults are the paper's for MuJoCo locomotion, but for
    the denoiser, a perceptron of 3 x 256 instead of a residual network with dropout.
    """

    temperature: float = setting(0.0, "beta of weights in the imitation; 0 weights all actions equally", low=0.0)
    samples: int = setting(64, "N, the actions of which the best is taken", low=1)
    policy: Form = setting(Diffusion(training="ddpm", levels=5, sampler="ancestral"), "the form of the behaviour policy")

    title: ClassVar[str] = "Implicit diffusion Q-learning"

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy` (re-ranked by the critic), `behaviour` and `explorer` (its samples as they come), `critic`, `value`."""
        made = IQL.products(self, state)
        behaviour = made["policy"]
        return {**made, "policy": Rerank(behaviour, made["critic"], samples=self.samples), "behaviour": behaviour}
