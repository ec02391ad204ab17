"""General preference models: answers as embeddings whose comparison is antisymmetric and may be cyclic (Zhang et al. 2024, arXiv 2410.02197)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import Unsupported
from policylab.experience import Spec
from policylab.learner import Pairs, Request
from policylab.networks.frozen import Normaliser, observation_normaliser
from policylab.networks.reading import Network, network_for
from policylab.scorers.comparing import Comparing
from policylab.scorers.fitted import FittedForm


class GeneralPreferenceModel(Comparing):
    r"""s(a > b | x) = <R D(x) v(x, a), v(x, b)> / tau,  P(a wins) = sigma(s)                     (equations 3 and 4)

    R turns every pair of numbers by a quarter, so that s(a > b) = -s(b > a) by construction; D(x) >= 0 scales each of the `blocks`
    pairs by the prompt and adds up to `blocks`. With v = (r, 1) it is Bradley and Terry's model; with more it expresses cycles. One
    pass per answer serves every comparison among them.
    """

    network: Network
    scale: Network | None
    normaliser: Normaliser
    blocks: int = eqx.field(static=True)
    temperature: float = eqx.field(static=True)
    unit: bool = eqx.field(static=True)
    observation_space: spaces.Space = eqx.field(static=True)
    action_space: spaces.Space = eqx.field(static=True)

    def embedding(self, observation: PyTree, action: PyTree) -> Float[Array, "block 2"]:
        """v(x, a), of length 1 in all where `unit`."""
        state = self.normaliser(spaces.flatten(self.observation_space, observation))
        v = self.network(jnp.concatenate([state, spaces.flatten(self.action_space, action)]))
        v = v / jnp.sqrt(jnp.sum(v**2) + 1e-12) if self.unit else v
        return v.reshape(-1, 2)

    def scales(self, observation: PyTree) -> Float[Array, " block"]:
        """D(x): a softmax over blocks times their number; 1 without a head for it."""
        if self.scale is None:
            return jnp.ones(self.blocks)
        logits = self.scale(self.normaliser(spaces.flatten(self.observation_space, observation)))
        return jax.nn.softmax(logits) * logits.shape[0]

    def compare(self, observation: PyTree, a: PyTree, b: PyTree) -> Float[Array, ""]:
        """s(a > b | x), the log-odds that a wins."""
        return self._log_odds(observation, self.embedding(observation, a), self.embedding(observation, b))

    def _log_odds(self, observation: PyTree, v: Float[Array, "block 2"], w: Float[Array, "block 2"]) -> Float[Array, ""]:
        return jnp.sum(self.scales(observation) * (v[:, 0] * w[:, 1] - v[:, 1] * w[:, 0])) / self.temperature

    def tournament(self, observation: PyTree, answers: PyTree) -> Float[Array, "answer answer"]:
        """s(i > j | x) of all pairs of several answers, which are embedded once each."""
        v = jax.vmap(lambda answer: self.embedding(observation, answer))(answers)
        turned = jnp.stack([v[..., 1], -v[..., 0]], axis=-1) * self.scales(observation)[:, None]
        return -jnp.einsum("ikc,jkc->ij", turned, v) / self.temperature

    def scores(self, observation: PyTree, action: PyTree) -> Float[Array, " part"]:
        """There is none: an answer is better or worse than another."""
        raise Unsupported("a general preference model compares answers: use prefer, compare or tournament")


@dataclass(frozen=True)
class GeneralPreference(FittedForm):
    """Embeddings of 2 x `blocks` numbers from a perceptron; the defaults are those of the authors' high-dimensional loss, 2 blocks of
    unit length with temperature 0.1."""

    blocks: int = 2
    temperature: float = 0.1
    unit: bool = True
    scaled: bool = True
    width: int = 256
    depth: int = 2
    activation: str = "relu"
    layer_norm: bool = False
    normalise: bool = True

    def request(self, count: int) -> Request:
        """Preference pairs."""
        return Pairs(count)

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> GeneralPreferenceModel:
        """For any spaces; discrete ones are read as one-hot."""
        shape: dict[str, Any] = {"width": self.width, "activation": self.activation, "layer_norm": self.layer_norm}
        embedding_key, scale_key = jax.random.split(key)
        network = network_for(
            spec.observation, 2 * self.blocks, beside=spaces.size(spec.action), depth=self.depth, **shape, key=embedding_key
        )
        scale = network_for(spec.observation, self.blocks, depth=0, **shape, key=scale_key) if self.scaled else None
        normaliser = observation_normaliser(spec, enabled=self.normalise)
        return GeneralPreferenceModel(
            network, scale, normaliser, self.blocks, self.temperature, self.unit, spec.observation, spec.action
        )
