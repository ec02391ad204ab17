"""Gaussian policies: state-dependent spread or not, squashed or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.experience import Spec, Window
from policylab.networks.frozen import Normaliser, Scaler, action_scaler, observation_normaliser
from policylab.networks.reading import Network, network_for
from policylab.policies.continuous import box_of, normal_log_density
from policylab.policy import Form, Policy

_EDGE = 1.0 - 1e-6  # a logged action on the bound has no finite pre-image under tanh


class GaussianPolicy(Policy):
    """u ~ Normal(mean(s), std), a = centre + half_range * g(u); densities are per environment unit.

    `squash` "sample": g = tanh on the sample (as SAC); "mean": tanh on the mean only, samples clipped to the bounds when acting,
    the density that of the unclipped normal (as IQL and AWAC); "none": no bound at all.
    """

    network: Network
    free_log_std: Float[Array, " size"] | None
    normaliser: Normaliser
    scaler: Scaler
    observation_space: spaces.Space = eqx.field(static=True)
    action_space: spaces.Box = eqx.field(static=True)
    squash: str = eqx.field(static=True)
    log_std_range: tuple[float, float] = eqx.field(static=True)

    def distribution(self, observation: PyTree) -> tuple[Float[Array, " size"], Float[Array, " size"]]:
        """Mean and log standard deviation of u."""
        output = self.network(self.normaliser(spaces.flatten(self.observation_space, observation)))
        if self.free_log_std is None:
            mean, log_std = jnp.split(output, 2)
        else:
            mean, log_std = output, self.free_log_std
        return (jnp.tanh(mean) if self.squash == "mean" else mean), jnp.clip(log_std, *self.log_std_range)

    def _to_action(self, u: Float[Array, " size"]) -> PyTree:
        if self.squash == "sample":
            u = jnp.tanh(u)
        elif self.squash == "mean":
            u = jnp.clip(u, -1.0, 1.0)
        return spaces.unflatten(self.action_space, self.scaler.to_environment(u))

    def _correction(self, u: Float[Array, " size"]) -> Float[Array, " size"]:
        # log |da/du|: the scale of the action units, and of tanh in a form that is exact for large |u|.
        scale = jnp.log(self.scaler.half_range)
        return scale + 2.0 * (jnp.log(2.0) - u - jax.nn.softplus(-2.0 * u)) if self.squash == "sample" else scale

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """A sample in environment units."""
        action, _, memory = self.sample(observation, memory, key=key)
        return action, memory

    def sample(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Float[Array, ""], PyTree]:
        """A reparameterised action and its log-probability, from u before squashing."""
        mean, log_std = self.distribution(observation)
        u = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        # A clipped sample gets the density of what is played, so that sampling and training agree on every action.
        u = jnp.clip(u, -1.0, 1.0) if self.squash == "mean" else u
        return self._to_action(u), jnp.sum(normal_log_density(u, mean, log_std) - self._correction(u)), memory

    def log_probs(self, window: Window) -> Float[Array, "time part"]:
        """One term per action dimension, 0 where padded."""

        def one(observation: PyTree, action: PyTree) -> Float[Array, " size"]:
            mean, log_std = self.distribution(observation)
            u = self.scaler.to_unit(spaces.flatten(self.action_space, action))
            u = jnp.arctanh(jnp.clip(u, -_EDGE, _EDGE)) if self.squash == "sample" else u
            return normal_log_density(u, mean, log_std) - self._correction(u)

        return jax.vmap(one)(window.observation, window.action) * window.valid[:, None]

    def entropy(self, observation: PyTree) -> Float[Array, ""]:
        """Of the normal in environment units, in nats; without a closed form when samples are squashed."""
        if self.squash == "sample":
            return Policy.entropy(self, observation)
        _, log_std = self.distribution(observation)
        return jnp.sum(log_std + 0.5 * jnp.log(2 * jnp.pi * jnp.e) + jnp.log(self.scaler.half_range))

    def mode(self) -> Policy:
        """The policy that plays the mean."""
        return GaussianMode(self)

    def features(self, observation: PyTree) -> Float[Array, " feature"]:
        """The last hidden layer."""
        return self.network.hidden(self.normaliser(spaces.flatten(self.observation_space, observation)))


class GaussianMode(Policy):
    """The mean of a Gaussian policy as a deterministic policy."""

    gaussian: GaussianPolicy

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """The mean action in environment units."""
        return self.gaussian._to_action(self.gaussian.distribution(observation)[0]), memory


@dataclass(frozen=True)
class Gaussian(Form):
    """A perceptron's mean with a free or a state-dependent standard deviation, its log clipped to `log_std_range`."""

    width: int = 256
    depth: int = 2
    activation: str = "relu"
    layer_norm: bool = False
    state_dependent_std: bool = False
    squash: Literal["none", "mean", "sample"] = "mean"
    log_std_range: tuple[float, float] = (-5.0, 2.0)
    normalise: bool = True

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> GaussianPolicy:
        """Raises `BadInput` unless actions are a Box."""
        space = box_of(spec, "Gaussian")
        size = spaces.size(space)
        outputs = 2 * size if self.state_dependent_std else size
        network = network_for(
            spec.observation,
            outputs,
            width=self.width,
            depth=self.depth,
            activation=self.activation,
            layer_norm=self.layer_norm,
            key=key,
        )
        return GaussianPolicy(
            network,
            None if self.state_dependent_std else jnp.zeros(size),
            observation_normaliser(spec, enabled=self.normalise),
            action_scaler(space, spec.statistics.get("action")),
            spec.observation,
            space,
            self.squash,
            self.log_std_range,
        )
