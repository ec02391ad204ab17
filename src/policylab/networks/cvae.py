"""Conditional variational autoencoder: which vectors in [-1, 1] go with a condition (Sohn, Lee and Yan 2015)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from policylab.networks.mlp import MLP


class ConditionalVAE(eqx.Module):
    """q(z | condition, x) = N(mean, exp(log_std)^2) and a decoder tanh(f(condition, z)), for one sample; `log_std` in [-4, 15].

    Sizes and the bounds of `log_std` are those of BCQ (Fujimoto, Meger and Precup 2019), which offline methods have copied since.
    """

    encoder: MLP
    decoder: MLP

    def __init__(self, condition: int, size: int, *, latent: int, width: int = 750, depth: int = 2, key: PRNGKeyArray):
        encoder_key, decoder_key = jax.random.split(key)
        self.encoder = MLP(condition + size, 2 * latent, width=width, depth=depth, key=encoder_key)
        self.decoder = MLP(condition + latent, size, width=width, depth=depth, key=decoder_key)

    @property
    def latent(self) -> int:
        """Numbers in z."""
        return self.encoder.layers[-1].bias.shape[-1] // 2

    def encode(
        self, condition: Float[Array, " condition"], x: Float[Array, " size"]
    ) -> tuple[Float[Array, " latent"], Float[Array, " latent"]]:
        """Mean and log standard deviation of z."""
        mean, log_std = jnp.split(self.encoder(jnp.concatenate([condition, x])), 2)
        return mean, jnp.clip(log_std, -4.0, 15.0)

    def decode(self, condition: Float[Array, " condition"], z: Float[Array, " latent"]) -> Float[Array, " size"]:
        """x in [-1, 1] per dimension."""
        return jnp.tanh(self.decoder(jnp.concatenate([condition, z])))

    def reconstruct(
        self, condition: Float[Array, " condition"], x: Float[Array, " size"], noise: Float[Array, " latent"]
    ) -> tuple[Float[Array, " size"], Float[Array, ""]]:
        """x encoded and decoded again with z = mean + std * noise, and the divergence to N(0, 1) as a mean over latent dimensions."""
        mean, log_std = self.encode(condition, x)
        divergence = -0.5 * jnp.mean(1.0 + 2.0 * log_std - mean**2 - jnp.exp(2.0 * log_std))
        return self.decode(condition, mean + jnp.exp(log_std) * noise), divergence
