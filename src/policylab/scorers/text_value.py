"""Values of unfinished texts: a language model with a number at the last token."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from policylab.experience import Tokens
from policylab.networks.mlp import Linear
from policylab.policies.language import LanguagePolicy


class TextValue(eqx.Module):
    """V(text) = w . h + b, h the decoder's last vector at the last token: prompt and steps so far. Also the value of a `TreeSearch`."""

    trunk: LanguagePolicy
    head: Linear

    def __call__(self, observation: Tokens) -> Float[Array, ""]:
        """One text."""
        return self.trunk.features(observation) @ self.head.weight[:, 0] + self.head.bias[0]


def text_value(trunk: LanguagePolicy) -> TextValue:
    """A value on a trained language model, 0 of every text at the start."""
    width = trunk.network.architecture.width
    return TextValue(trunk, Linear(jnp.zeros((width, 1)), jnp.zeros(1)))
