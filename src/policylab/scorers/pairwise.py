"""Pairwise preference models: a network that reads both answers at once (Jiang et al. 2023, arXiv 2306.02561)."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import Unsupported
from policylab.experience import Preference, Spec
from policylab.learner import Pairs, Request
from policylab.networks.frozen import Normaliser, observation_normaliser
from policylab.networks.reading import Network, network_for
from policylab.scorers.fitted import FittedForm, FittedScorer


class PairwiseModel(FittedScorer):
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

    def prefer(self, observation: PyTree, a: PyTree, b: PyTree, *, key: PRNGKeyArray) -> Float[Array, "4"]:
        """Probabilities of (a wins, tie, a loses, abstains); there are no ties."""
        win = jax.nn.sigmoid(self.compare(observation, a, b))
        return jnp.stack([win, jnp.zeros(()), 1.0 - win, jnp.zeros(())])

    def losses(self, batch: Preference, *, key: PRNGKeyArray) -> Float[Array, " batch"]:
        """Cross-entropy of the label, in nats."""
        log_odds = jax.vmap(self.compare)(batch.observation, batch.a, batch.b)
        return -batch.p * jax.nn.log_sigmoid(log_odds) - (1.0 - batch.p) * jax.nn.log_sigmoid(-log_odds)


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
