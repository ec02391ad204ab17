"""A policy that first chooses which future it wants, among latent ones, and then acts it out."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.networks.frozen import Normaliser
from policylab.networks.reading import Network
from policylab.policy import Policy

DRAWS = 100  # from the prior, as in the released code of Dichotomy of Control


class LatentFuture(Policy):
    """z = argmax V(s, z) over the latents that occur among 100 draws from the prior p(z | s); then an action of pi(. | s, z).

    With `held` the latent is chosen at the start of an episode and kept, else anew at every step. `mode` acts by the mode of pi
    and counts the latents whose probability is at least 1/100. A latent that is likely but has the lower value is never chosen.
    """

    policy: Policy
    prior: Network
    value: Network
    normaliser: Normaliser
    space: spaces.Space = eqx.field(static=True)
    held: bool = eqx.field(static=True, default=False)
    drawn: bool = eqx.field(static=True, default=True)

    def initial_memory(self, *, key: PRNGKeyArray) -> tuple[PyTree, Int[Array, ""]]:
        """That of the policy inside, and no latent yet (-1)."""
        return self.policy.initial_memory(key=key), -jnp.ones((), jnp.int32)

    def values(self, observation: PyTree) -> Float[Array, " latent"]:
        """V(s, .): the return that each latent promises."""
        return self.value(self._read(observation))

    def likely(self, observation: PyTree) -> Bool[Array, " latent"]:
        """The latents with a prior probability of at least 1/100."""
        return jax.nn.softmax(self.prior(self._read(observation))) >= 1.0 / DRAWS

    def promised(self, observation: PyTree) -> Float[Array, ""]:
        """The highest value among likely latents: the return that the policy expects of itself."""
        return jnp.max(jnp.where(self.likely(observation), self.values(observation), -jnp.inf))

    def _read(self, observation: PyTree) -> Float[Array, " size"]:
        return self.normaliser(spaces.flatten(self.space, observation))

    def _best(self, observation: PyTree, key: PRNGKeyArray) -> Int[Array, ""]:
        possible = self.likely(observation)
        if self.drawn:
            draws = jax.random.categorical(key, self.prior(self._read(observation)), shape=(DRAWS,))
            possible = jnp.zeros_like(possible).at[draws].set(True)
        return jnp.argmax(jnp.where(possible, self.values(observation), -jnp.inf)).astype(jnp.int32)

    def act(
        self, observation: PyTree, memory: tuple[PyTree, Int[Array, ""]], *, key: PRNGKeyArray
    ) -> tuple[PyTree, tuple[PyTree, Int[Array, ""]]]:
        """An action for the chosen latent."""
        choose, play = jax.random.split(key)
        inner, latent = memory
        best = self._best(observation, choose)
        latent = jnp.where(latent < 0, best, latent) if self.held else best
        action, inner = self.policy.act({"observation": observation, "condition": latent}, inner, key=play)
        return action, (inner, latent)

    def mode(self) -> Policy:
        """The same without draws."""
        return LatentFuture(self.policy.mode(), self.prior, self.value, self.normaliser, self.space, self.held, False)
