"""An environment beside which something else goes on: observed, and of no consequence."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.environment import Environment, Step
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.spaces import Box


def _number(value: float | Array) -> Float[Array, ""]:
    return jnp.asarray(value, jnp.float32)


class Distracted(Environment):
    """`environment` with `pairs` of further observed numbers that no action moves and no reward depends on.

    Pair k is a noisy oscillation: it turns by angles between `slowest` and `fastest` radians per step, evenly spread over the pairs,
    shrinks by `decay` and is kicked by normal noise of standard deviation `noise` per number. Pairs start with the spread that they
    keep in the long run (1 where noise^2 = 1 - decay^2). A linear process of spectral radius `decay` below 1, so that it never runs away
    (Voelcker et al. 2022, arXiv 2204.01464, section 5.3, append such numbers to Hopper). Raises `BadInput` unless flat numbers are observed.
    """

    environment: Environment
    slowest: Float[Array, ""] = eqx.field(converter=_number, default=0.2)
    fastest: Float[Array, ""] = eqx.field(converter=_number, default=1.5)
    decay: Float[Array, ""] = eqx.field(converter=_number, default=0.99)
    noise: Float[Array, ""] = eqx.field(converter=_number, default=0.14)
    pairs: int = eqx.field(static=True, default=5)

    def __check_init__(self) -> None:
        space = self.environment.spec.observation
        if not isinstance(space, Box) or len(space.shape) != 1 or self.environment.hosted or self.pairs < 1:
            raise BadInput(
                "distractions are appended to a vector of observed numbers of a compiled environment, at least one pair of them"
            )

    @property
    def spec(self) -> Spec:
        """The environment's, with as many more observed numbers."""
        own, more = self.environment.spec, 2 * self.pairs
        assert isinstance(own.observation, Box)
        low, high = (np.asarray(bound).reshape(-1) for bound in own.observation.bounds())
        space = Box((len(low) + more,), (*low.tolist(), *(-np.inf,) * more), (*high.tolist(), *(np.inf,) * more))
        return dataclasses.replace(own, observation=space, statistics={}, environment=f"{own.environment} with distractions")

    def _split(self, observation: Float[Array, " number"]) -> tuple[Float[Array, " own"], Float[Array, "pair 2"]]:
        return observation[: -2 * self.pairs], observation[-2 * self.pairs :].reshape(self.pairs, 2)

    def _seen(self, own: Float[Array, " own"], beside: Float[Array, "pair 2"]) -> Float[Array, " number"]:
        return jnp.concatenate([own, beside.reshape(-1)])

    def reset(self, key: PRNGKeyArray) -> tuple[PyTree, Float[Array, " number"]]:
        """A fresh episode, with distractions as they are in the long run."""
        inner_key, beside_key = jax.random.split(key)
        state, own = self.environment.reset(inner_key)
        spread = self.noise * jax.lax.rsqrt(1.0 - self.decay**2)
        beside = spread * jax.random.normal(beside_key, (self.pairs, 2))
        return (state, beside), self._seen(own, beside)

    def step(self, state: PyTree, action: PyTree, key: PRNGKeyArray) -> tuple[PyTree, Step]:
        """A step of the environment, and one of what goes on beside it."""
        inner_key, noise_key = jax.random.split(key)
        inner, step = self.environment.step(state[0], action, inner_key)
        angle = jnp.linspace(self.slowest, self.fastest, self.pairs)
        x, y = state[1][:, 0], state[1][:, 1]
        turned = jnp.stack([jnp.cos(angle) * x - jnp.sin(angle) * y, jnp.sin(angle) * x + jnp.cos(angle) * y], axis=1)
        beside = self.decay * turned + self.noise * jax.random.normal(noise_key, turned.shape)
        return (inner, beside), dataclasses.replace(step, observation=self._seen(step.observation, beside))

    def at(self, observation: Float[Array, " number"]) -> PyTree:
        """Both parts as they are seen."""
        own, beside = self._split(observation)
        return self.environment.at(own), beside
