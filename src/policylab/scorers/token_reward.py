"""Token rewards that are learned from outcomes alone (OREAL, Lyu et al. 2025, arXiv 2502.06781, section 3.3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from policylab.experience import Tokens
from policylab.networks.mlp import Linear
from policylab.policies.generation import answered, joined
from policylab.policies.language import LanguagePolicy
from policylab.scorer import Scorer


class TokenReward(Scorer):
    r"""P(right) = sigma( 1/T sum_t w_t ), w_t = u . h_t + b from the decoder's last vector at the t-th of T tokens of an answer.

    `scores` are the terms w_t / T, so that `score` is the log-odds of being right.
    """

    trunk: LanguagePolicy
    head: Linear

    def weights(self, observation: Tokens, action: Tokens) -> Float[Array, "*batch part"]:
        """w of every written token, 0 elsewhere; batches of prompts and answers need no `vmap`."""
        each = (self.trunk.hidden(joined(observation, action)) @ self.head.weight)[..., 0] + self.head.bias[0]
        return answered(each.astype(jnp.float32), observation, action)

    def scores(self, observation: Tokens, action: Tokens) -> Float[Array, " part"]:
        """w_t / T."""
        return self.weights(observation, action) / jnp.maximum(jnp.sum(action.kind == 2), 1)


def token_reward(trunk: LanguagePolicy) -> TokenReward:
    """A token reward on a language model, 0 of every token at the start."""
    width = trunk.network.architecture.width
    return TokenReward(trunk, Linear(jnp.zeros((width, 1)), jnp.zeros(1)))


def likely_right(weights: Float[Array, "*batch part"]) -> Float[Array, "*batch part"]:
    """max(2 sigma(w) - 1, 0): how much a token counts where an answer is imitated."""
    return jnp.maximum(2.0 * jax.nn.sigmoid(weights) - 1.0, 0.0)


def likely_wrong(weights: Float[Array, "*batch part"]) -> Float[Array, "*batch part"]:
    """max(1 - 2 sigma(w), 0): how much a token counts where an answer is pushed down."""
    return jnp.maximum(1.0 - 2.0 * jax.nn.sigmoid(weights), 0.0)
