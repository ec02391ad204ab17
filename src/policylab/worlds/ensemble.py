"""Probabilistic ensembles of dynamics (Chua et al. 2018, arXiv 1805.12114; as in MBPO, Janner et al. 2019, arXiv 1906.08253)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.environment import Step
from policylab.errors import BadInput, Unsupported
from policylab.experience import Spec
from policylab.networks.frozen import Frozen, Normaliser, Scaler, action_scaler, observation_normaliser
from policylab.networks.mlp import MLP, Ensemble
from policylab.world import World


class Ranking(Frozen):
    """What is known of the members beside their weights: each one's squared error on transitions kept out of its training."""

    validation_loss: Float[Array, " members"]


class EnsembleWorld(World):
    """Every member predicts (s' - s, r) as independent normals, in units of the data's standard deviations.

    `step` draws one of the `elites` (the members with the lowest validation loss) and samples its prediction; the uncertainty is
    max_i |sigma_i(s, a)| over all members, the norm over observation and reward in those units (MOPO, Yu et al. 2020, section 4.3).
    `ends(observation)` says which states are terminal; `starts` are the observations that `reset` draws from. A `deterministic` world
    has no use for the variances: a step is an elite's mean, and the uncertainty the norm of the members' standard deviation about theirs.
    """

    networks: Ensemble
    log_variance_range: tuple[Float[Array, " output"], Float[Array, " output"]]
    ranking: Ranking
    normaliser: Normaliser
    scaler: Scaler
    reward_normaliser: Normaliser
    starts: Float[Array, "start ..."] | None
    specification: Spec
    elites: int = eqx.field(static=True)
    ends: Callable[[PyTree], Bool[Array, ""]] | None = eqx.field(static=True, default=None)
    deterministic: bool = eqx.field(static=True, default=False)

    @property
    def spec(self) -> Spec:
        """That of the data."""
        return self.specification

    def predictions(
        self, observation: PyTree, action: PyTree
    ) -> tuple[Float[Array, "members output"], Float[Array, "members output"]]:
        """Mean and log variance of every member for one sample: the change of the observation, then the reward, in standard deviations."""
        state = self.normaliser(spaces.flatten(self.spec.observation, observation))
        unit = self.scaler.to_unit(spaces.flatten(self.spec.action, action))
        mean, raw = jnp.split(self.networks(jnp.concatenate([state, unit])), 2, axis=-1)
        low, high = self.log_variance_range
        log_variance = high - jax.nn.softplus(high - raw)
        return mean, low + jax.nn.softplus(log_variance - low)

    def target(self, observation: PyTree, next_observation: PyTree, reward: Float[Array, ""]) -> Float[Array, " output"]:
        """What the members predict of this transition, in standard deviations."""
        before, after = (spaces.flatten(self.spec.observation, o) for o in (observation, next_observation))
        return jnp.concatenate([(after - before) / self.normaliser.std, self.reward_normaliser(reward[None])])

    def losses(
        self, observation: PyTree, action: PyTree, next_observation: PyTree, reward: Float[Array, ""]
    ) -> tuple[Float[Array, " members"], Float[Array, " members"]]:
        """Of every member for one transition: the negative log-likelihood (without its constant) and the squared error, as means over outputs."""
        mean, log_variance = self.predictions(observation, action)
        square = (mean - self.target(observation, next_observation, reward)) ** 2
        likelihood = 0.5 * jnp.mean(square * jnp.exp(-log_variance) + log_variance, axis=-1)
        return likelihood, jnp.mean(square, axis=-1)

    def expected(self, observation: PyTree, action: PyTree) -> tuple[PyTree, Float[Array, ""]]:
        """The elites' mean next observation and reward."""
        mean = self.predictions(observation, action)[0][self._elite_numbers()]
        return self._outcome(observation, jnp.mean(mean, axis=0))

    def _elite_numbers(self) -> Array:
        return jnp.argsort(self.ranking.validation_loss)[: self.elites]

    def _outcome(self, observation: PyTree, output: Float[Array, " output"]) -> tuple[PyTree, Float[Array, ""]]:
        after = spaces.flatten(self.spec.observation, observation) + output[:-1] * self.normaliser.std
        reward = output[-1] * self.reward_normaliser.std[0] + self.reward_normaliser.mean[0]
        return spaces.unflatten(self.spec.observation, after), reward

    def reset(self, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """One of `starts`. Raises `Unsupported` where it has none."""
        if self.starts is None:
            raise Unsupported("this world was learned without start states: begin at a known observation, with at(observation)")
        observation = self.starts[jax.random.randint(key, (), 0, self.starts.shape[0])]
        return observation, observation

    def step(self, state: PyTree, action: PyTree, key: PRNGKeyArray) -> tuple[PyTree, Step]:
        """A sample of one elite's prediction, or its mean."""
        member_key, noise_key = jax.random.split(key)
        mean, log_variance = self.predictions(state, action)
        chosen = self._elite_numbers()[jax.random.randint(member_key, (), 0, self.elites)]
        never = jnp.zeros((), bool)
        if self.deterministic:
            observation, reward = self._outcome(state, mean[chosen])
            uncertainty = jnp.linalg.norm(jnp.std(mean, axis=0))
        else:
            noise = jnp.exp(0.5 * log_variance[chosen]) * jax.random.normal(noise_key, mean.shape[1:])
            observation, reward = self._outcome(state, mean[chosen] + noise)
            uncertainty = jnp.max(jnp.linalg.norm(jnp.exp(0.5 * log_variance), axis=-1))
        terminal = self.ends(observation) if self.ends else never
        return observation, Step(observation, reward, terminal, never, info={"uncertainty": uncertainty})

    def at(self, observation: PyTree) -> PyTree:
        """The observation is the state."""
        return observation


@dataclass(frozen=True)
class DynamicsEnsemble:
    """The shape of an `EnsembleWorld`: `members` perceptrons, of which the `elites` with the lowest validation loss are asked."""

    members: int = 7
    elites: int = 5
    width: int = 200
    depth: int = 4
    activation: str = "silu"
    deterministic: bool = False

    def build(
        self, spec: Spec, *, key: PRNGKeyArray, starts: Array | None = None, ends: Callable | None = None
    ) -> EnsembleWorld:
        """Fresh networks; log variances start within [-10, 0.5]. Raises `BadInput` unless observations are a Box."""
        if not isinstance(spec.observation, spaces.Box):
            raise BadInput(f"an ensemble of dynamics is for observed numbers but these are {spaces.describe(spec.observation)}")
        if not 1 <= self.elites <= self.members:
            raise BadInput(f"elites is {self.elites}: give a number from 1 to the number of members, {self.members}")
        outputs = math.prod(spec.observation.shape) + 1
        inputs = outputs - 1 + spaces.size(spec.action)
        build = lambda k: MLP(inputs, 2 * outputs, width=self.width, depth=self.depth, activation=self.activation, key=k)
        width, reward = spaces.size(spec.action), spec.statistics.get("reward")
        return EnsembleWorld(
            Ensemble.of(build, self.members, key=key),
            (jnp.full(outputs, -10.0), jnp.full(outputs, 0.5)),
            Ranking(jnp.zeros(self.members)),
            observation_normaliser(spec),
            action_scaler(spec.action, spec.statistics.get("action"))
            if isinstance(spec.action, spaces.Box)
            else Scaler(jnp.zeros(width), jnp.ones(width)),
            Normaliser(jnp.zeros(1), jnp.ones(1)) if reward is None else Normaliser(reward.mean, reward.std + 1e-3),
            starts,
            spec,
            self.elites,
            ends,
            self.deterministic,
        )
