"""CLAM: contrastive learning-based agent modelling (Ma, Zhou et al. 2024, arXiv 2401.00132)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request
from policylab.learners.online.ppo import PPO
from policylab.networks.histories import HistoryEncoder
from policylab.networks.optimisation import descend, trained
from policylab.policies.recognising import Recognising, embedded, history, now_and_length


@settings
class CLAM(Learner):
    r"""`learner` (PPO) sees, beside its observation o_t, an embedding z_t = f(o_0 ... o_t) of its own history, which has learned to tell
    episodes, and with them the other agents' policies, apart; nothing of the others is observed:

        min_f E_k[ -log exp(cos(z_k^A, z_k^B) / tau) / sum_j exp(cos(z_k^A, z_j^B) / tau) ]

    over `contrasted` histories of the batch. View A is the history with a share `kept_long` of its steps, view B one that is cut short
    at random and keeps a share `kept_short`: so prefixes land near whole histories. No gradient of the policy reaches f. Observations
    come from `Remembered`: parts `observation`, `past`, `seen`. The settings of f are ours, the abstract gives none.
    """

    learner: Learner = setting(PPO(), "who acts on observations with embeddings; it asks for windows")
    size: int = setting(16, "numbers of the embedding", low=1)
    width: int = setting(32, "units of the encoder", low=1)
    temperature: float = setting(0.1, "tau", above=0.0)
    kept_long: float = setting(0.9, "chance of a step to be kept in view A", above=0.0, high=1.0)
    kept_short: float = setting(0.5, "chance of a step to be kept in view B", above=0.0, high=1.0)
    contrasted: int = setting(128, "histories per contrastive step", low=2)
    contrasts: int = setting(4, "contrastive steps per update", low=1)
    encoder_rate: float = setting(1e-3, "of the encoder's Adam", above=0.0)

    title: ClassVar[str] = "Contrastive agent modelling"
    uses: ClassVar[tuple[str, ...]] = ("reward",)
    on_policy: ClassVar[bool] = True

    @property
    def needs(self) -> Mapping[str, Request]:
        """What the learner needs."""
        return self.learner.needs

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """A fresh encoder, and the learner's state for observations with embeddings."""
        first, second = jax.random.split(key)
        present, length = now_and_length(spec.observation)
        encoder = HistoryEncoder(spaces.size(present), self.size, length=length, width=self.width, key=first)
        inner = replace(spec, observation=embedded(present, self.size), statistics={})
        return {
            "encoder": trained(encoder, optax.adam(self.encoder_rate)),
            "spec": replace(spec, statistics={}),
            "learner": self.learner.init(inner, key=second, given=given),
        }

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """The learner's update with the embeddings that acted, then the encoder's."""
        learn, contrast = jax.random.split(key)
        space = state["spec"].observation
        acting = Recognising(self.learner.products(state["learner"])["policy"], self.encoding(state["encoder"].model), space)
        see = jax.vmap(jax.vmap(acting.seen))
        shown = replace(batch, observation=see(batch.observation), next_observation=see(batch.next_observation))
        inner, metrics = self.learner.update(state["learner"], shown, clock=clock, key=learn)
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch.observation)
        _, past, seen = jax.vmap(lambda one: history(space, one))(flat)
        step = lambda encoder, k: self._contrasted(encoder, past, seen, k)
        encoder, (error, found) = jax.lax.scan(step, state["encoder"], jax.random.split(contrast, self.contrasts))
        return {**state, "encoder": encoder, "learner": inner}, {
            **metrics,
            "contrast": error.mean(),
            "recognised": found.mean(),
        }

    def views(self, past: Array, seen: Array, key: PRNGKeyArray) -> tuple[Array, Array, Array, Array]:
        """`contrasted` of the histories [row, time, ...], what was seen of them, and the masks of views A and B."""
        draw, long, cut, short = jax.random.split(key, 4)
        chosen = jax.random.randint(draw, (self.contrasted,), 0, len(past))
        past, seen = past[chosen], seen[chosen]
        length = seen.sum(axis=1, keepdims=True)
        last = jnp.ceil(length * jax.random.uniform(cut, (self.contrasted, 1)))
        place = jnp.arange(seen.shape[1])
        keep = lambda mask, share, k: _never_empty(mask * jax.random.bernoulli(k, share, mask.shape))
        a = keep(seen, self.kept_long, long)
        return past, seen, a, keep(seen * (place < jnp.maximum(last, 1.0)), self.kept_short, short)

    def _contrasted(self, encoder: Any, past: Array, seen: Array, key: PRNGKeyArray) -> tuple[Any, tuple[Array, Array]]:
        past, _, a, b = self.views(past, seen, key)

        def loss(model: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
            one, other = (unit(jax.vmap(self.encoding(model))(past, mask)) for mask in (a, b))
            return contrast(one @ other.T / self.temperature)

        encoder, error, found = descend(encoder, loss, optax.adam(self.encoder_rate))
        return encoder, (error, found)

    def encoding(self, trained: Any) -> HistoryEncoder:
        """The encoder in what is trained by the auxiliary loss; here that is all."""
        return trained

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """The learner's, with policies that embed their histories themselves; `encoder`."""
        encoder = self.encoding(state["encoder"].model)
        inner = self.learner.products(state["learner"])
        space = state["spec"].observation
        acting = {name: Recognising(inner[name], encoder, space) for name in ("policy", "explorer") if name in inner}
        return {**acting, "encoder": encoder}


def contrast(scores: Float[Array, "row row"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The InfoNCE loss of a square of scores whose diagonal are the pairs, in nats, and the share of rows whose own pair scores highest."""
    error = -jnp.mean(jnp.diagonal(jax.nn.log_softmax(scores, axis=1)))
    return error, jnp.mean(jnp.argmax(scores, axis=1) == jnp.arange(len(scores)))


def unit(vectors: Float[Array, "row size"]) -> Float[Array, "row size"]:
    """Each of length 1."""
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def _never_empty(mask: Float[Array, "row time"]) -> Float[Array, "row time"]:
    """The first step stands in where none was kept."""
    first = jnp.arange(mask.shape[1]) == 0
    return jnp.where(mask.any(axis=1, keepdims=True), mask, first.astype(mask.dtype))
