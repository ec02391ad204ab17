"""Deterministic policies: one action for every observation."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.experience import Spec, Window
from policylab.networks.frozen import Normaliser, Scaler, action_scaler, observation_normaliser
from policylab.networks.reading import Network, network_for
from policylab.policies.continuous import box_of
from policylab.policy import Form, Policy


class DeterministicPolicy(Policy):
    """a = centre + half_range * tanh(f((s - mean) / std)), in environment units."""

    network: Network
    normaliser: Normaliser
    scaler: Scaler
    observation_space: spaces.Space = eqx.field(static=True)
    action_space: spaces.Box = eqx.field(static=True)

    def unit_action(self, observation: PyTree) -> Float[Array, " size"]:
        """The action in [-1, 1] per dimension, flattened."""
        return jnp.tanh(self.network(self.normaliser(spaces.flatten(self.observation_space, observation))))

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """The action in environment units; the key is not used."""
        return spaces.unflatten(self.action_space, self.scaler.to_environment(self.unit_action(observation))), memory

    def imitation_loss(self, window: Window, *, key: PRNGKeyArray) -> Float[Array, " time"]:
        """Mean over action dimensions of the squared error, in units of half the action range (as TD3+BC's BC term)."""
        flat = jax.vmap(lambda a: self.scaler.to_unit(spaces.flatten(self.action_space, a)))(window.action)
        return jnp.mean((jax.vmap(self.unit_action)(window.observation) - flat) ** 2, axis=-1)

    def features(self, observation: PyTree) -> Float[Array, " feature"]:
        """The last hidden layer."""
        return self.network.hidden(self.normaliser(spaces.flatten(self.observation_space, observation)))


def smoothed_actions(
    policy: DeterministicPolicy,
    observation: PyTree,
    *,
    noise: Float[Array, ""] | float,
    clip: Float[Array, ""] | float,
    key: PRNGKeyArray,
) -> PyTree:
    """TD3's target policy smoothing (Fujimoto et al. 2018, equation 14): clip(pi(s) + clip(noise * N(0, 1), -clip, clip)), for a
    batch of observations; noise and clip in units of half the action range.
    """

    def one(observation: PyTree, noise_sample: Float[Array, " size"]) -> PyTree:
        unit = policy.unit_action(observation) + jnp.clip(noise * noise_sample, -clip, clip)
        return spaces.unflatten(policy.action_space, policy.scaler.to_environment(jnp.clip(unit, -1.0, 1.0)))

    rows = jax.tree.leaves(observation)[0].shape[0]
    return jax.vmap(one)(observation, jax.random.normal(key, (rows, spaces.size(policy.action_space))))


@dataclass(frozen=True)
class Deterministic(Form):
    """A tanh perceptron: `depth` hidden layers of `width`; observations normalised by the data's mean and std if `normalise`."""

    width: int = 256
    depth: int = 2
    activation: str = "relu"
    layer_norm: bool = False
    normalise: bool = True

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> DeterministicPolicy:
        """Raises `BadInput` unless actions are a Box."""
        space = box_of(spec, "Deterministic")
        network = network_for(
            spec.observation,
            spaces.size(space),
            width=self.width,
            depth=self.depth,
            activation=self.activation,
            layer_norm=self.layer_norm,
            key=key,
        )
        return DeterministicPolicy(
            network,
            observation_normaliser(spec, enabled=self.normalise),
            action_scaler(space, spec.statistics.get("action")),
            spec.observation,
            space,
        )
