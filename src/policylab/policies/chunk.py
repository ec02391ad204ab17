"""Policies that plan several actions at once and average the plans: action chunking (Zhao et al. 2023, "ACT", arXiv 2304.13705)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput, Unsupported
from policylab.experience import Spec, Window
from policylab.networks.cvae import ConditionalVAE
from policylab.networks.frozen import Frozen, Normaliser, Scaler, action_scaler, observation_normaliser
from policylab.policies.continuous import box_of
from policylab.policies.windowed import Windowed
from policylab.policy import Policy


class Plans(eqx.Module):
    """The chunks of the last steps, the newest first, in units of half the action range; and the steps taken."""

    chunks: Float[Array, "plan step action"]
    taken: Int[Array, ""]


class Weights(Frozen):
    """Of older plans against newer ones, and of the divergence in the loss."""

    decay: Float[Array, ""]
    divergence: Float[Array, ""]


class ChunkPolicy(Policy):
    """A conditional variational autoencoder of chunks: decode(s, z) plans a_t ... a_{t+k-1}, q(z | s, chunk) is needed for training only.

    With `ensembling` a chunk is planned at every step, and the action is sum_i w_i a^i_t / sum_i w_i over the plans that cover this
    step, w_i = exp(-decay i) with i = 0 for the oldest (section 4 and algorithm 2); without it, a chunk is played to its end.
    """

    network: ConditionalVAE
    normaliser: Normaliser
    scaler: Scaler
    weights: Weights
    observation_space: spaces.Space = eqx.field(static=True)
    action_space: spaces.Box = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    ensembling: bool = eqx.field(static=True)
    drawn: bool = eqx.field(static=True, default=True)

    @property
    def noise_space(self) -> spaces.Box:
        """Where `decode` starts: the latent z, standard normal."""
        return spaces.Box((self.network.latent,))

    def plan(self, observation: PyTree, latent: Float[Array, " latent"]) -> Float[Array, "step action"]:
        """The chunk that z stands for, in [-1, 1]."""
        return self.network.decode(self._condition(observation), latent).reshape(self.steps, -1)

    def decode(self, observation: PyTree, noise: Float[Array, " latent"], memory: PyTree = None) -> PyTree:
        """The first action of the chunk that this noise stands for."""
        return self._action(self.plan(observation, noise)[0])

    def _condition(self, observation: PyTree) -> Float[Array, " size"]:
        return self.normaliser(spaces.flatten(self.observation_space, observation))

    def _action(self, unit: Float[Array, " action"]) -> PyTree:
        return spaces.unflatten(self.action_space, self.scaler.to_environment(unit))

    def initial_memory(self, *, key: PRNGKeyArray) -> Plans:
        """No plans."""
        shape = (self.steps if self.ensembling else 1, self.steps, spaces.size(self.action_space))
        return Plans(jnp.zeros(shape), jnp.zeros((), jnp.int32))

    def act(self, observation: PyTree, memory: Plans, *, key: PRNGKeyArray) -> tuple[PyTree, Plans]:
        """The action of this step, by a plan of z ~ N(0, 1); the `mode` plans with z = 0, as the paper does."""
        shape = self.noise_space.shape
        new = self.plan(observation, jax.random.normal(key, shape) if self.drawn else jnp.zeros(shape))
        if not self.ensembling:
            place = memory.taken % self.steps
            chunk = jnp.where(place == 0, new, memory.chunks[0])
            return self._action(chunk[place]), Plans(chunk[None], memory.taken + 1)
        chunks = jnp.concatenate([new[None], memory.chunks[:-1]])
        age = jnp.arange(self.steps)  # of each plan in steps, which is also the place of this step in it
        count = jnp.minimum(memory.taken + 1, self.steps)
        weight = jnp.where(age < count, jnp.exp(-self.weights.decay * (count - 1 - age)), 0.0)
        unit = weight @ chunks[age, age] / jnp.sum(weight)
        return self._action(unit), Plans(chunks, memory.taken + 1)

    def imitation_loss(self, window: Window, *, key: PRNGKeyArray) -> Float[Array, " time"]:
        """|a - plan|_1 as a mean over action dimensions at every valid step, plus `weights.divergence` KL(q(z | s, chunk) || N(0, 1))."""
        if window.valid.shape[0] != self.steps:
            raise Unsupported(
                f"a chunk of {self.steps} actions is fitted to windows of as many steps, not of {len(window.valid)}"
            )
        unit = jax.vmap(lambda a: self.scaler.to_unit(spaces.flatten(self.action_space, a)))(window.action)
        first = jax.tree.map(lambda leaf: leaf[0], window.observation)
        noise = jax.random.normal(key, self.noise_space.shape)
        plan, mean = self.network.reconstruct(self._condition(first), unit.reshape(-1), noise)
        error = jnp.mean(jnp.abs(plan.reshape(unit.shape) - unit), axis=-1)
        return (error + self.weights.divergence * self.network.latent * mean) * window.valid

    def mode(self) -> Policy:
        """The policy that plans with z = 0."""
        return replace(self, drawn=False)


@dataclass(frozen=True)
class Chunk(Windowed):
    """Chunks of `steps` actions by perceptrons (the paper's are transformers over camera pictures). `decay`, `divergence_weight` and
    `latent` are the authors' settings; their chunks are of 100 steps at 50 Hz."""

    steps: int = 10
    width: int = 256
    depth: int = 2
    latent: int = 32
    decay: float = 0.01
    divergence_weight: float = 10.0
    ensembling: bool = True
    normalise: bool = True

    @property
    def future(self) -> int:
        """The whole chunk."""
        return self.steps

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> ChunkPolicy:
        """Raises `BadInput` unless actions are a Box and a chunk has a step."""
        space = box_of(spec, "Chunk")
        if self.steps < 1:
            raise BadInput(f"Chunk.steps is {self.steps}: give at least 1")
        network = ConditionalVAE(
            spaces.size(spec.observation), self.steps * spaces.size(space), latent=self.latent, width=self.width, depth=self.depth,
            key=key,
        )  # fmt: skip
        return ChunkPolicy(
            network, observation_normaliser(spec, enabled=self.normalise), action_scaler(space, spec.statistics.get("action")),
            Weights(jnp.asarray(self.decay, jnp.float32), jnp.asarray(self.divergence_weight, jnp.float32)), spec.observation, space,
            self.steps, self.ensembling,
        )  # fmt: skip
