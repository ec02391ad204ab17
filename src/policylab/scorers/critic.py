"""Critics: learned values of actions and states, as Scorers."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.networks.frozen import Normaliser, Scaler, action_scaler, observation_normaliser
from policylab.networks.mlp import Ensemble
from policylab.networks.reading import Network, network_for
from policylab.scorer import Scorer


class ActionValue(Scorer):
    """Q(s, a) for continuous actions: an ensemble of perceptrons on the normalised observation and the action in units of half its range."""

    networks: Ensemble
    normaliser: Normaliser
    scaler: Scaler
    observation_space: spaces.Space = eqx.field(static=True)
    action_space: spaces.Box = eqx.field(static=True)

    def __init__(
        self,
        spec: Spec,
        *,
        members: int = 2,
        width: int = 256,
        depth: int = 2,
        activation: str = "relu",
        layer_norm: bool = False,
        normalise: bool = True,
        key: PRNGKeyArray,
    ):
        if not isinstance(spec.action, spaces.Box):
            raise BadInput(f"ActionValue is for continuous actions but these are {spaces.describe(spec.action)}")
        self.observation_space, self.action_space = spec.observation, spec.action
        self.normaliser = observation_normaliser(spec, enabled=normalise)
        self.scaler = action_scaler(spec.action, spec.statistics.get("action"))
        build = lambda k: network_for(
            spec.observation, 1, beside=spaces.size(spec.action), width=width, depth=depth, activation=activation,
            layer_norm=layer_norm, key=k,
        )  # fmt: skip
        self.networks = Ensemble.of(build, members, key=key)

    def values(self, observation: PyTree, action: PyTree) -> Float[Array, " members"]:
        """Every member's Q(s, a) for one sample, action in environment units."""
        return self.networks(self._inputs(observation, action))[:, 0]

    def _inputs(self, observation: PyTree, action: PyTree) -> Float[Array, " input"]:
        state = self.normaliser(spaces.flatten(self.observation_space, observation))
        unit = self.scaler.to_unit(spaces.flatten(self.action_space, action))
        return jnp.concatenate([state, unit])

    def first_value(self, observation: PyTree, action: PyTree) -> Float[Array, ""]:
        """The first member's Q(s, a) for one sample, without computing the others."""
        member = jax.tree.map(lambda leaf: leaf[0], self.networks.members)
        return member(self._inputs(observation, action))[0]

    def scores(self, observation: PyTree, action: PyTree) -> Float[Array, " part"]:
        """The ensemble's minimum, as one part."""
        return jnp.min(self.values(observation, action), keepdims=True)


class StateValue(eqx.Module):
    """V(s): a perceptron on the normalised observation."""

    network: Network
    normaliser: Normaliser
    observation_space: spaces.Space = eqx.field(static=True)

    def __init__(
        self,
        spec: Spec,
        *,
        width: int = 256,
        depth: int = 2,
        activation: str = "relu",
        layer_norm: bool = False,
        normalise: bool = True,
        key: PRNGKeyArray,
    ):
        self.observation_space = spec.observation
        self.normaliser = observation_normaliser(spec, enabled=normalise)
        self.network = network_for(
            spec.observation, 1, width=width, depth=depth, activation=activation, layer_norm=layer_norm, key=key
        )

    def __call__(self, observation: PyTree) -> Float[Array, ""]:
        """V(s) for one sample."""
        return self.network(self.normaliser(spaces.flatten(self.observation_space, observation)))[0]
