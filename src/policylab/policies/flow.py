"""Flow policies: a velocity field carries noise to actions along straight lines (Lipman et al. 2023, arXiv 2210.02747)."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.networks.frozen import Normaliser, Scaler, action_scaler, observation_normaliser
from policylab.networks.reading import Network, network_for
from policylab.policies.continuous import box_of
from policylab.policies.generative import EMBEDDING, FromNoNoise, action_of, embed
from policylab.policy import Form, Policy


class FlowPolicy(Policy):
    """x_0 ~ N(0, 1), dx/dt = v(x, s, t), the action (in [-1, 1] per dimension) is x_1; v is fitted to x_1 - x_0 at (1 - t) x_0 + t x_1."""

    network: Network
    normaliser: Normaliser
    scaler: Scaler
    observation_space: spaces.Space = eqx.field(static=True)
    action_space: spaces.Box = eqx.field(static=True)
    levels: int = eqx.field(static=True)

    @property
    def noise_space(self) -> spaces.Box:
        """Where `decode` starts: one number per action dimension, standard normal."""
        return spaces.Box((spaces.size(self.action_space),))

    def velocity(self, observation: PyTree, x: Float[Array, " action"], time: Float[Array, ""]) -> Float[Array, " action"]:
        """v(x, s, t), in units of half the action range."""
        state = self.normaliser(spaces.flatten(self.observation_space, observation))
        return self.network(jnp.concatenate([state, x, embed(time)]))

    def denoise(
        self, observation: PyTree, noisy: Float[Array, " action"], level: Float[Array, ""], memory: PyTree = None
    ) -> Float[Array, " action"]:
        """The estimate of the clean action from `noisy` = (1 - level) * clean + level * noise: x + level * v."""
        return noisy + level * self.velocity(observation, noisy, 1.0 - level)

    def decode(self, observation: PyTree, noise: Float[Array, " action"], memory: PyTree = None) -> PyTree:
        """The action that this noise flows to, in `levels` steps of Euler's method."""
        step = lambda x, time: (x + self.velocity(observation, x, time) / self.levels, None)
        unit = jax.lax.scan(step, noise, jnp.arange(self.levels) / self.levels)[0]
        return action_of(self.action_space, self.scaler, unit)

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """A sample in environment units."""
        return self.decode(observation, jax.random.normal(key, self.noise_space.shape)), memory

    def mode(self) -> Policy:
        """The policy that starts from noise 0."""
        return FromNoNoise(self)

    def imitation_loss(self, window: Window, *, key: PRNGKeyArray) -> Float[Array, " time"]:
        """|v((1 - t) x_0 + t x_1, s, t) - (x_1 - x_0)|^2 as a mean over action dimensions, t uniform (equation 23 without sigma_min)."""

        def one(observation: PyTree, action: PyTree, key: PRNGKeyArray) -> Float[Array, ""]:
            time_key, noise_key = jax.random.split(key)
            clean = self.scaler.to_unit(spaces.flatten(self.action_space, action))
            time, noise = jax.random.uniform(time_key), jax.random.normal(noise_key, clean.shape)
            velocity = self.velocity(observation, (1.0 - time) * noise + time * clean, time)
            return jnp.mean((velocity - (clean - noise)) ** 2)

        return jax.vmap(one)(window.observation, window.action, jax.random.split(key, len(window.valid))) * window.valid


@dataclass(frozen=True)
class Flow(Form):
    """A perceptron's velocity field; `levels` steps of Euler's method make an action."""

    width: int = 256
    depth: int = 3
    activation: str = "gelu"
    layer_norm: bool = False
    levels: int = 10
    normalise: bool = True

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> FlowPolicy:
        """Raises `BadInput` unless actions are a Box."""
        space = box_of(spec, "Flow")
        if self.levels < 1:
            raise BadInput(f"Flow.levels is {self.levels}: give at least 1")
        size = spaces.size(space)
        network = network_for(
            spec.observation, size, beside=size + EMBEDDING, width=self.width, depth=self.depth,
            activation=self.activation, layer_norm=self.layer_norm, key=key,
        )  # fmt: skip
        return FlowPolicy(
            network, observation_normaliser(spec, enabled=self.normalise), action_scaler(space, spec.statistics.get("action")),
            spec.observation, space, self.levels,
        )  # fmt: skip
