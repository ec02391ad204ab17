"""CQL for listed choices (Kumar et al. 2020, arXiv 2006.04779, equation 4)."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from policylab.experience import Window
from policylab.hyperparameters import setting, settings
from policylab.learners.offline.dqn import DQN


@settings
class DiscreteCQL(DQN):
    r"""Double DQN plus weight * E[ log sum_a exp Q(s, a) - Q(s, a_data) ], which lowers the values of choices the data do not hold."""

    weight: float = setting(1.0, "alpha of the conservative term", low=0.0)

    title: ClassVar[str] = "Conservative Q-learning for choices"

    def extra_loss(self, values: Float[Array, "batch choice"], batch: Window) -> Float[Array, ""]:
        """The conservative term."""
        taken = jnp.take_along_axis(values, batch.action[:, None], axis=-1)[:, 0]
        return self.weight * jnp.mean(jax.nn.logsumexp(values, axis=-1) - taken)
