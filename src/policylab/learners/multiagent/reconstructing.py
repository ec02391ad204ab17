"""Agent modelling by reconstruction: the encoder of histories learns to foretell what will be seen, instead of telling histories apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.experience import Spec
from policylab.hyperparameters import settings
from policylab.learners.multiagent.clam import CLAM
from policylab.networks.histories import HistoryEncoder
from policylab.networks.mlp import MLP
from policylab.networks.optimisation import descend, trained
from policylab.policies.recognising import now_and_length


@settings
class Reconstructing(CLAM):
    r"""CLAM with its contrast exchanged for a decoder, after LIAM (Papoudakis et al. 2021, arXiv 2006.09447), of the player's own
    observations, since nothing of the others is seen:

        min_f,g E_k[ sum_t seen_t || g(f(view B_k))_t - o_t ||^2 / sum_t seen_t ]

    where view B is the history that is cut short and masked as in CLAM, and the target is the whole of it.
    """

    title: ClassVar[str] = "Agent modelling by reconstruction"

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """CLAM's state with a decoder beside the encoder."""
        first, second = jax.random.split(key)
        state = CLAM.init(self, spec, key=first, given=given)
        present, length = now_and_length(spec.observation)
        decoder = MLP(self.size, length * spaces.size(present), width=2 * self.width, depth=1, activation="gelu", key=second)
        pair = {"encoder": state["encoder"].model, "decoder": decoder}
        return {**state, "encoder": trained(pair, optax.adam(self.encoder_rate))}

    def _contrasted(self, encoder: Any, past: Array, seen: Array, key: PRNGKeyArray) -> tuple[Any, tuple[Array, Array]]:
        past, seen, _, short = self.views(past, seen, key)

        def loss(model: dict[str, Any]) -> tuple[Array, Array]:
            told = jax.vmap(lambda rows, mask: model["decoder"](model["encoder"](rows, mask)))(past, short)
            error = jnp.sum(((told.reshape(past.shape) - past) ** 2).sum(2) * seen) / seen.sum()
            return error, jnp.zeros(())

        encoder, error, found = descend(encoder, loss, optax.adam(self.encoder_rate))
        return encoder, (error, found)

    def encoding(self, trained: dict[str, Any]) -> HistoryEncoder:
        """The encoder beside the decoder."""
        return trained["encoder"]
