"""Pairwise preference models: a network that reads both answers at once (Jiang et al. 2023, arXiv 2306.02561)."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import Unsupported
from policylab.experience import Spec
from policylab.learner import Pairs, Request
from policylab.networks.frozen import Normaliser, observation_normaliser
from policylab.networks.reading import Network, network_for
from policylab.scorers.comparing import Comparing
from policylab.scorers.fitted import FittedForm


class PairwiseModel(Comparing):
    r"""P(a wins | x) = sigma(f(x, a, b) - f(x, b, a)): antisymmetric, any preference, and two passes for every pair of answers."""

    network: Network
    normaliser: Normaliser
    observation_space: spaces.Space = eqx.field(static=True)
    action_space: spaces.Space = eqx.field(static=True)

    def compare(self, observation: PyTree, a: PyTree, b: PyTree) -> Float[Array, ""]:
        """The log-odds that a wins."""
        state = self.normaliser(spaces.flatten(self.observation_space, observation))
        first, second = spaces.flatten(self.action_space, a), spaces.flatten(self.action_space, b)
        return (
            self.network(jnp.concatenate([state, first, second]))[0] - self.network(jnp.concatenate([state, second, first]))[0]
        )

    def scores(self, observation: PyTree, action: PyTree) -> Float[Array, " part"]:
        """There is none: an answer is better or worse than another."""
        raise Unsupported("a pairwise preference model compares answers: use prefer or compare")


@dataclass(frozen=True)
class Pairwise(FittedForm):
    """A perceptron of an observation and two answers."""

    width: int = 256
    depth: int = 2
    activation: str = "relu"
    layer_norm: bool = False
    normalise: bool = True

    def request(self, count: int) -> Request:
        """Preference pairs."""
        return Pairs(count)

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> PairwiseModel:
        """For any spaces; discrete ones are read as one-hot."""
        network = network_for(
            spec.observation, 1, beside=2 * spaces.size(spec.action), width=self.width, depth=self.depth,
            activation=self.activation, layer_norm=self.layer_norm, key=key,
        )  # fmt: skip
        return PairwiseModel(network, observation_normaliser(spec, enabled=self.normalise), spec.observation, spec.action)
