"""Bradley-Terry reward models: one score per answer (Bradley and Terry 1952; Christiano et al. 2017, arXiv 1706.03741)."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.experience import Spec
from policylab.learner import Pairs, Request
from policylab.networks.frozen import Normaliser, observation_normaliser
from policylab.networks.reading import Network, network_for
from policylab.scorers.comparing import Comparing
from policylab.scorers.fitted import FittedForm


class BradleyTerryReward(Comparing):
    r"""P(a wins | x) = sigma(r(x, a) - r(x, b)); r is a perceptron of the observation and the answer."""

    network: Network
    normaliser: Normaliser
    observation_space: spaces.Space = eqx.field(static=True)
    action_space: spaces.Space = eqx.field(static=True)

    def scores(self, observation: PyTree, action: PyTree) -> Float[Array, " part"]:
        """r(x, a), as one part."""
        state = self.normaliser(spaces.flatten(self.observation_space, observation))
        return self.network(jnp.concatenate([state, spaces.flatten(self.action_space, action)]))


@dataclass(frozen=True)
class BradleyTerry(FittedForm):
    """A perceptron's score of an answer to an observation; scores of different observations are not comparable."""

    width: int = 256
    depth: int = 2
    activation: str = "relu"
    layer_norm: bool = False
    normalise: bool = True

    def request(self, count: int) -> Request:
        """Preference pairs."""
        return Pairs(count)

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> BradleyTerryReward:
        """For any spaces; discrete ones are read as one-hot."""
        network = network_for(
            spec.observation, 1, beside=spaces.size(spec.action), width=self.width, depth=self.depth, activation=self.activation,
            layer_norm=self.layer_norm, key=key,
        )  # fmt: skip
        return BradleyTerryReward(network, observation_normaliser(spec, enabled=self.normalise), spec.observation, spec.action)
