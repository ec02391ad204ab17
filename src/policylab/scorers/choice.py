"""Critics over listed choices: expected values, or quantiles of the return."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.experience import Spec
from policylab.networks.frozen import Normaliser, observation_normaliser
from policylab.networks.reading import Network, network_for
from policylab.policies.categorical import discrete_of
from policylab.scorer import Scorer


class ChoiceValue(Scorer):
    """Q(s, .) of all choices at once; with `quantiles` > 1 that many equally likely returns of each choice, whose mean is Q.

    With `dueling`, Q(s, a) = V(s) + A(s, a) - mean over choices of A(s, .) (Wang et al. 2016, arXiv 1511.06581, equation 9); value and
    advantages are outputs of one perceptron here, whose last hidden layer they share.
    """

    network: Network
    normaliser: Normaliser
    observation_space: spaces.Space = eqx.field(static=True)
    choices: int = eqx.field(static=True)
    count: int = eqx.field(static=True)
    dueling: bool = eqx.field(static=True)

    def __init__(
        self,
        spec: Spec,
        *,
        quantiles: int = 1,
        dueling: bool = False,
        width: int = 256,
        depth: int = 2,
        activation: str = "relu",
        layer_norm: bool = False,
        normalise: bool = True,
        key: PRNGKeyArray,
    ):
        self.choices, self.count, self.dueling = discrete_of(spec, "ChoiceValue").n, quantiles, dueling
        self.observation_space = spec.observation
        self.normaliser = observation_normaliser(spec, enabled=normalise)
        self.network = network_for(
            spec.observation,
            (self.choices + dueling) * quantiles,
            width=width,
            depth=depth,
            activation=activation,
            layer_norm=layer_norm,
            key=key,
        )

    def quantiles(self, observation: PyTree) -> Float[Array, "choice quantile"]:
        """The returns at probabilities (i + 1/2) / quantiles."""
        flat = self.network(self.normaliser(spaces.flatten(self.observation_space, observation)))
        table = flat.reshape(-1, self.count)
        if not self.dueling:
            return table
        advantage = table[1:]
        return table[0] + advantage - jnp.mean(advantage, axis=0)

    def values(self, observation: PyTree) -> Float[Array, " choice"]:
        """Q(s, .) for one sample."""
        return jnp.mean(self.quantiles(observation), axis=-1)

    def scores(self, observation: PyTree, action: Int[Array, ""]) -> Float[Array, " part"]:
        """Q(s, a), as one part."""
        return self.values(observation)[action][None]
