"""Categorical policies over a discrete action space."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.networks.frozen import Normaliser, observation_normaliser
from policylab.networks.reading import Network, network_for
from policylab.policy import Form, Policy


class CategoricalPolicy(Policy):
    """p(a | s) = softmax(f((s - mean) / std))_a."""

    network: Network
    normaliser: Normaliser
    observation_space: spaces.Space = eqx.field(static=True)

    def action_logits(self, observation: PyTree) -> Float[Array, " choice"]:
        """Unnormalised log-probabilities for one observation."""
        return self.network(self.normaliser(spaces.flatten(self.observation_space, observation)))

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[Int[Array, ""], PyTree]:
        """A sampled choice."""
        return jax.random.categorical(key, self.action_logits(observation)).astype(jnp.int32), memory

    def sample(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Float[Array, ""], PyTree]:
        """A sampled choice and its log-probability."""
        logits = jax.nn.log_softmax(self.action_logits(observation))
        action = jax.random.categorical(key, logits).astype(jnp.int32)
        return action, logits[action], memory

    def logits(self, window: Window) -> Float[Array, "time choice"]:
        """Unnormalised log-probabilities for every step."""
        return jax.vmap(self.action_logits)(window.observation)

    def log_probs(self, window: Window) -> Float[Array, "time part"]:
        """One part: the choice. 0 where padded."""
        logits = jax.nn.log_softmax(self.logits(window))
        return jnp.take_along_axis(logits, window.action[:, None], axis=-1) * window.valid[:, None]

    def entropy(self, observation: PyTree) -> Float[Array, ""]:
        """In nats."""
        logits = jax.nn.log_softmax(self.action_logits(observation))
        return -jnp.sum(jnp.exp(logits) * logits)

    def mode(self) -> Policy:
        """The policy that plays the likeliest choice."""
        return CategoricalMode(self)

    def features(self, observation: PyTree) -> Float[Array, " feature"]:
        """The last hidden layer."""
        return self.network.hidden(self.normaliser(spaces.flatten(self.observation_space, observation)))


class CategoricalMode(Policy):
    """The likeliest choice of a categorical policy as a deterministic policy."""

    categorical: CategoricalPolicy

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[Int[Array, ""], PyTree]:
        """The likeliest choice."""
        return jnp.argmax(self.categorical.action_logits(observation)).astype(jnp.int32), memory


def discrete_of(spec: Spec, form: str) -> spaces.Discrete:
    """The action space of `spec` if it is discrete; otherwise one sentence on which form to choose instead."""
    if isinstance(spec.action, spaces.Discrete):
        return spec.action
    instead = "Gaussian or Deterministic" if isinstance(spec.action, spaces.Box) else "Product, with one form per part"
    raise BadInput(f"the form {form} is for discrete actions but these are {spaces.describe(spec.action)}: use {instead}")


@dataclass(frozen=True)
class Categorical(Form):
    """A perceptron's softmax over the choices."""

    width: int = 256
    depth: int = 2
    activation: str = "relu"
    layer_norm: bool = False
    normalise: bool = True

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> CategoricalPolicy:
        """Raises `BadInput` unless actions are discrete."""
        space = discrete_of(spec, "Categorical")
        network = network_for(
            spec.observation,
            space.n,
            width=self.width,
            depth=self.depth,
            activation=self.activation,
            layer_norm=self.layer_norm,
            key=key,
        )
        return CategoricalPolicy(network, observation_normaliser(spec, enabled=self.normalise), spec.observation)
