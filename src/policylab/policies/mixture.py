"""Mixtures of Gaussians: several answers to one observation, for data in which experts disagree (Bishop 1994, "Mixture density
networks")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.networks.frozen import Normaliser, Scaler, action_scaler, observation_normaliser
from policylab.networks.reading import Network, network_for
from policylab.policies.continuous import box_of, normal_log_density
from policylab.policy import Form, Policy

EDGE = 1.0 - 1e-6  # a logged action on the bound has no finite pre-image under tanh


class MixturePolicy(Policy):
    r"""p(u | s) = sum_k w_k(s) prod_d Normal(u_d; m_kd(s), sigma_kd(s)), a = centre + half_range * u; densities per environment unit.

    With `squash` "mean" the means go through tanh and samples are clipped to the bounds, as in the Gaussian form; with "sample" u goes
    through tanh itself, a = centre + half_range * tanh(u), as in SAC; "none" has no bound.
    """

    network: Network
    normaliser: Normaliser
    scaler: Scaler
    observation_space: spaces.Space = eqx.field(static=True)
    action_space: spaces.Box = eqx.field(static=True)
    experts: int = eqx.field(static=True)
    squash: str = eqx.field(static=True)
    log_std_range: tuple[float, float] = eqx.field(static=True)

    def distribution(
        self, observation: PyTree
    ) -> tuple[Float[Array, " expert"], Float[Array, "expert size"], Float[Array, "expert size"]]:
        """Log weights, means and log standard deviations of the experts, in units of half the action's range."""
        output = self.network(self.normaliser(spaces.flatten(self.observation_space, observation)))
        logits, rest = output[: self.experts], output[self.experts :].reshape(2, self.experts, -1)
        mean = jnp.tanh(rest[0]) if self.squash == "mean" else rest[0]
        return jax.nn.log_softmax(logits), mean, jnp.clip(rest[1], *self.log_std_range)

    def expert_log_densities(self, observation: PyTree, u: Float[Array, " size"]) -> Float[Array, " expert"]:
        """The log-density of the action that u gives under each expert alone, per environment unit."""
        _, mean, log_std = self.distribution(observation)
        each = jnp.sum(jax.vmap(lambda m, s: normal_log_density(u, m, s))(mean, log_std), axis=-1)
        scale = jnp.log(self.scaler.half_range)
        if self.squash == "sample":  # log |da/du| of tanh in a form that is exact for large |u|
            scale = scale + 2.0 * (jnp.log(2.0) - u - jax.nn.softplus(-2.0 * u))
        return each - jnp.sum(scale)

    def _log_density(self, observation: PyTree, u: Float[Array, " size"]) -> Float[Array, ""]:
        weight, _, _ = self.distribution(observation)
        return jax.scipy.special.logsumexp(weight + self.expert_log_densities(observation, u))

    def to_action(self, u: Float[Array, " size"]) -> PyTree:
        """The action of u, in environment units."""
        u = jnp.tanh(u) if self.squash == "sample" else u
        return spaces.unflatten(self.action_space, self.scaler.to_environment(u))

    def proposals(
        self, observation: PyTree, *, key: PRNGKeyArray
    ) -> tuple[PyTree, Float[Array, "expert size"], Float[Array, " expert"]]:
        """An action of every expert (leaves [expert, ...]), reparameterised, the u behind it, and its log-density under that expert."""
        _, mean, log_std = self.distribution(observation)
        u = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        u = jnp.clip(u, -1.0, 1.0) if self.squash == "mean" else u
        own = jax.vmap(lambda one: self.expert_log_densities(observation, one))(u)
        return jax.vmap(self.to_action)(u), u, jnp.diagonal(own)

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """A sample in environment units."""
        action, _, memory = self.sample(observation, memory, key=key)
        return action, memory

    def sample(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Float[Array, ""], PyTree]:
        """An action of an expert drawn by its weight (reparameterised given the expert), and its density under the whole mixture."""
        choose, draw = jax.random.split(key)
        weight, mean, log_std = self.distribution(observation)
        expert = jax.random.categorical(choose, weight)
        u = mean[expert] + jnp.exp(log_std[expert]) * jax.random.normal(draw, mean.shape[1:])
        u = jnp.clip(u, -1.0, 1.0) if self.squash == "mean" else u
        return self.to_action(u), self._log_density(observation, u), memory

    def log_probs(self, window: Window) -> Float[Array, "time part"]:
        """One part, since the dimensions share their expert; 0 where padded."""

        def one(observation: PyTree, action: PyTree) -> Float[Array, "1"]:
            u = self.scaler.to_unit(spaces.flatten(self.action_space, action))
            u = jnp.arctanh(jnp.clip(u, -EDGE, EDGE)) if self.squash == "sample" else u
            return self._log_density(observation, u)[None]

        return jax.vmap(one)(window.observation, window.action) * window.valid[:, None]

    def mode(self) -> Policy:
        """The policy that plays the mean of the expert whose peak is highest."""
        return MixtureMode(self)

    def features(self, observation: PyTree) -> Float[Array, " feature"]:
        """The last hidden layer."""
        return self.network.hidden(self.normaliser(spaces.flatten(self.observation_space, observation)))


class MixtureMode(Policy):
    """The highest peak of a mixture as a deterministic policy."""

    mixture: MixturePolicy

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """The mean of the expert with the largest weight over standard deviations."""
        weight, mean, log_std = self.mixture.distribution(observation)
        return self.mixture.to_action(mean[jnp.argmax(weight - jnp.sum(log_std, axis=-1))]), memory


@dataclass(frozen=True)
class Mixture(Form):
    """A perceptron's `experts` Gaussians with state-dependent weights and spreads; `log_std_range` in units of half the range."""

    experts: int = 8
    width: int = 256
    depth: int = 2
    activation: str = "relu"
    layer_norm: bool = False
    squash: Literal["none", "mean", "sample"] = "mean"
    log_std_range: tuple[float, float] = (-5.0, 2.0)
    normalise: bool = True

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> MixturePolicy:
        """Raises `BadInput` unless actions are a Box and there is at least one expert."""
        space = box_of(spec, "Mixture")
        if self.experts < 1:
            raise BadInput(f"a Mixture of {self.experts} experts has none to act: choose at least 1")
        network = network_for(
            spec.observation, self.experts * (1 + 2 * spaces.size(space)), width=self.width, depth=self.depth,
            activation=self.activation, layer_norm=self.layer_norm, key=key,
        )  # fmt: skip
        return MixturePolicy(
            network, observation_normaliser(spec, enabled=self.normalise), action_scaler(space, spec.statistics.get("action")),
            spec.observation, space, self.experts, self.squash, self.log_std_range,
        )  # fmt: skip
