"""MOPO: model-based offline policy optimisation (Yu et al. 2020, arXiv 2005.13239)."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import PyTree

from policylab.hyperparameters import setting, settings
from policylab.learner import Learner
from policylab.learners.online.sac import SAC
from policylab.learners.worldmodel.dyna import Dyna
from policylab.learners.worldmodel.ensemble import EnsembleDynamics
from policylab.worlds.pessimistic import Pessimistic


@settings
class MOPO(Dyna):
    r"""MBPO on logged data, in a world that pays less where it is unsure (algorithm 2, equation 4):

        r~(s, a) = r^(s, a) - penalty * max_i | sigma_i(s, a) |

    The world is fitted first and then left alone; SAC learns from rollouts of `horizon` steps that branch from logged states, 5% of each
    batch being logged. Both `horizon` (1 or 5) and `penalty` (0.5 to 5 in the paper, in units of the reward) have to fit the data. sigma
    is in standard deviations of the data here, so that no observation's unit decides. Use it on `Imagined(dataset)`.
    """

    agent: Learner = setting(SAC(entropy_per_action=-1.0), "who learns from imagined transitions")
    dynamics: Learner = setting(EnsembleDynamics(), "how the world is learned from logged ones")
    horizon: int = setting(5, "steps of a rollout in the world", low=1)
    fit_share: float = setting(0.2, "share of the updates at the start that fit the world alone", low=0.0, below=1.0)
    fit_every: int = setting(0, "updates between those of the world afterwards; 0 leaves it as it is", low=0)
    penalty: float = setting(1.0, "lambda, reward per unit of uncertainty", low=0.0)

    title: ClassVar[str] = "Model-based offline policy optimisation"
    actions: ClassVar[str] = "continuous"

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """As ever, with the world that pays less where it is unsure."""
        products = Dyna.products(self, state)
        return products | {"world": Pessimistic(products["world"], jnp.asarray(self.penalty, jnp.float32))}
