"""Log-linear policies: a softmax of the features of the choices (conditional logit; McFadden 1974)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.policies.categorical import discrete_of
from policylab.policy import Form, Policy


class LogLinearPolicy(Policy):
    """p(a | s) = softmax(s theta)_a: the observation s holds a row of features for every choice. `theta` is kept in the ball of
    `radius` by projection."""

    weights: Float[Array, " feature"]
    radius: float = eqx.field(static=True)

    @property
    def theta(self) -> Float[Array, " feature"]:
        """The weights, projected."""
        if math.isinf(self.radius):
            return self.weights
        return self.weights * jnp.minimum(1.0, self.radius / jnp.sqrt(jnp.sum(self.weights**2) + 1e-12))

    def action_logits(self, observation: Float[Array, "choice feature"]) -> Float[Array, " choice"]:
        """Unnormalised log-probabilities for one observation."""
        return observation @ self.theta

    def act(
        self, observation: Float[Array, "choice feature"], memory: PyTree, *, key: PRNGKeyArray
    ) -> tuple[Int[Array, ""], PyTree]:
        """A sampled choice."""
        return jax.random.categorical(key, self.action_logits(observation)).astype(jnp.int32), memory

    def sample(
        self, observation: Float[Array, "choice feature"], memory: PyTree, *, key: PRNGKeyArray
    ) -> tuple[Int[Array, ""], Float[Array, ""], PyTree]:
        """A sampled choice and its log-probability."""
        action, memory = self.act(observation, memory, key=key)
        return action, jax.nn.log_softmax(self.action_logits(observation))[action], memory

    def logits(self, window: Window) -> Float[Array, "time choice"]:
        """Unnormalised log-probabilities for every step."""
        return jax.vmap(self.action_logits)(window.observation)

    def log_probs(self, window: Window) -> Float[Array, "time part"]:
        """One part: the choice. 0 where padded."""
        logits = jax.nn.log_softmax(self.logits(window))
        return jnp.take_along_axis(logits, window.action[:, None], axis=-1) * window.valid[:, None]

    def entropy(self, observation: Float[Array, "choice feature"]) -> Float[Array, ""]:
        """In nats."""
        logits = jax.nn.log_softmax(self.action_logits(observation))
        return -jnp.sum(jnp.exp(logits) * logits)

    def mode(self) -> Policy:
        """The policy that plays the likeliest choice."""
        return LogLinearMode(self)


class LogLinearMode(Policy):
    """The likeliest choice of a log-linear policy as a deterministic policy."""

    log_linear: LogLinearPolicy

    def act(
        self, observation: Float[Array, "choice feature"], memory: PyTree, *, key: PRNGKeyArray
    ) -> tuple[Int[Array, ""], PyTree]:
        """The likeliest choice."""
        return jnp.argmax(self.log_linear.action_logits(observation)).astype(jnp.int32), memory


@dataclass(frozen=True)
class LogLinear(Form):
    """Weights of 0 at the start: the uniform policy. `radius` bounds the Euclidean norm of the weights."""

    radius: float = math.inf

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> LogLinearPolicy:
        """Raises `BadInput` unless the observation is Box(choices, features) for as many choices; the key is not used."""
        choices, space = discrete_of(spec, "LogLinear").n, spec.observation
        if not isinstance(space, spaces.Box) or len(space.shape) != 2 or space.shape[0] != choices:
            raise BadInput(
                f"the form LogLinear needs a row of features for each of {choices} choices but observations are {spaces.describe(space)}: "
                "give them as Box(choices, features), or use Categorical"
            )
        return LogLinearPolicy(jnp.zeros(space.shape[1]), self.radius)
