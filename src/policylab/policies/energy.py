"""Energy policies: the action of the lowest learned energy (Florence et al. 2021, "Implicit Behavioral Cloning", arXiv 2109.00137)."""

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
from policylab.policy import Form, Policy


class EnergyPolicy(Policy):
    """pi(a | s) ~ exp(-E(s, a)) over the bounded action space, sampled by derivative-free optimisation (algorithm 1): draw candidates
    uniformly, then `rounds` times resample them by exp(-E) and spread them by Gaussian noise that shrinks by half each round.
    """

    network: Network
    normaliser: Normaliser
    scaler: Scaler
    observation_space: spaces.Space = eqx.field(static=True)
    action_space: spaces.Box = eqx.field(static=True)
    negatives: int = eqx.field(static=True)
    candidates: int = eqx.field(static=True)
    rounds: int = eqx.field(static=True)
    spread: float = eqx.field(static=True)

    def energy(self, observation: PyTree, unit: Float[Array, " action"]) -> Float[Array, ""]:
        """E(s, a), the action in units of half its range."""
        state = self.normaliser(spaces.flatten(self.observation_space, observation))
        return self.network(jnp.concatenate([state, unit]))[0]

    def search(
        self, observation: PyTree, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, "candidate action"], Float[Array, " candidate"]]:
        """The candidates of the last round, in units of half the action range, and their energies."""
        start, *keys = jax.random.split(key, self.rounds + 1)
        units = jax.random.uniform(start, (self.candidates, spaces.size(self.action_space)), minval=-1.0, maxval=1.0)
        energies = jax.vmap(lambda u: self.energy(observation, u))(units)
        for number, round_key in enumerate(keys):
            choose, move = jax.random.split(round_key)
            chosen = units[jax.random.categorical(choose, -energies, shape=(self.candidates,))]
            units = jnp.clip(chosen + self.spread * 0.5**number * jax.random.normal(move, units.shape), -1.0, 1.0)
            energies = jax.vmap(lambda u: self.energy(observation, u))(units)
        return units, energies

    def _to_action(self, unit: Float[Array, " action"]) -> PyTree:
        return spaces.unflatten(self.action_space, self.scaler.to_environment(unit))

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """One of the last candidates, drawn by exp(-E), in environment units."""
        search_key, choose = jax.random.split(key)
        units, energies = self.search(observation, key=search_key)
        return self._to_action(units[jax.random.categorical(choose, -energies)]), memory

    def mode(self) -> Policy:
        """The policy that plays the candidate of the lowest energy, of candidates that are drawn with one key for ever."""
        return EnergyMode(self)

    def imitation_loss(self, window: Window, *, key: PRNGKeyArray) -> Float[Array, " time"]:
        """InfoNCE: the cross-entropy of telling the logged action from uniformly drawn ones by exp(-E) (equation 2)."""

        def one(observation: PyTree, action: PyTree, key: PRNGKeyArray) -> Float[Array, ""]:
            logged = self.scaler.to_unit(spaces.flatten(self.action_space, action))
            others = jax.random.uniform(key, (self.negatives, logged.shape[0]), minval=-1.0, maxval=1.0)
            energies = jax.vmap(lambda u: self.energy(observation, u))(jnp.concatenate([logged[None], others]))
            return energies[0] + jax.nn.logsumexp(-energies)

        return jax.vmap(one)(window.observation, window.action, jax.random.split(key, len(window.valid))) * window.valid


class EnergyMode(Policy):
    """An energy policy without randomness."""

    implicit: EnergyPolicy

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """The best candidate; the key is not used."""
        units, energies = self.implicit.search(observation, key=jax.random.key(0))
        return self.implicit._to_action(units[jnp.argmin(energies)]), memory


@dataclass(frozen=True)
class Energy(Form):
    """A perceptron's energy of (s, a). `negatives` uniform actions against each logged one; `candidates` and `rounds` of the search."""

    width: int = 256
    depth: int = 3
    activation: str = "relu"
    layer_norm: bool = False
    negatives: int = 64
    candidates: int = 256
    rounds: int = 3
    spread: float = 0.33
    normalise: bool = True

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> EnergyPolicy:
        """Raises `BadInput` unless actions are a bounded Box: negatives and candidates are drawn between the bounds."""
        space = box_of(spec, "Energy")
        if not space.bounded:
            raise BadInput(
                f"the form Energy draws actions between their bounds but these are {spaces.describe(space)}: use Flow"
            )
        if min(self.negatives, self.candidates) < 1 or self.rounds < 0:
            raise BadInput("Energy needs at least 1 negative, 1 candidate and 0 rounds: raise the one that is lower")
        network = network_for(
            spec.observation, 1, beside=spaces.size(space), width=self.width, depth=self.depth, activation=self.activation,
            layer_norm=self.layer_norm, key=key,
        )  # fmt: skip
        return EnergyPolicy(
            network, observation_normaliser(spec, enabled=self.normalise), action_scaler(space, spec.statistics.get("action")),
            spec.observation, space, self.negatives, self.candidates, self.rounds, self.spread,
        )  # fmt: skip
