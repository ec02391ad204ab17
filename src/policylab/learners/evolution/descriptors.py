"""What a policy did, as a few numbers: given by hand, or learned by an autoencoder (TAXONS; Paolo, Laflaquiere, Coninx and Doncieux
2020, "Unsupervised Learning and Exploration of Reachable Outcome Space", ICRA; arXiv 1909.05508)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.networks.mlp import MLP
from policylab.networks.optimisation import Trained, descend, trained

Views = Float[Array, "*member view"]
Described = Float[Array, "*member descriptor"]


@dataclass(frozen=True)
class Descriptor:
    """A `view` is what is kept of a policy's episodes, `describe` makes the descriptor of it; distances are Euclidean.

    `view` takes a batch [member, episode, time] and gives one row per member, the mean over its episodes.
    """

    def init(self, spec: Spec, *, key: PRNGKeyArray) -> PyTree:
        """What the descriptor learns; nothing by default."""
        return None

    @abstractmethod
    def view(self, batch: Window, space: spaces.Space) -> Float[Array, "member view"]:
        """What is kept."""

    def describe(self, learned: PyTree, views: Views) -> Described:
        """The descriptors of these views: by default the views themselves."""
        return views

    def surprise(self, learned: PyTree, views: Views) -> Float[Array, "*member"]:
        """How badly the views are reconstructed; 0 where nothing is learned."""
        return jnp.zeros(views.shape[:-1])

    def learn(
        self, learned: PyTree, views: Float[Array, "member view"], weight: Float[Array, " member"], *, key: PRNGKeyArray
    ) -> PyTree:
        """After a generation, with what population and archive hold; nothing by default."""
        return learned


@dataclass(frozen=True)
class LastPlace(Descriptor):
    """Entries of the last observation, such as (0, 1): the place of a robot whose first two observed numbers are its place."""

    entries: tuple[int, ...] = (0, 1)

    def view(self, batch: Window, space: spaces.Space) -> Float[Array, "member view"]:
        """Raises `BadInput` for entries that the observation does not have."""
        if max(self.entries) >= spaces.size(space):
            raise BadInput(
                f"the descriptor takes entry {max(self.entries)} of observations that have {spaces.size(space)} numbers: choose others"
            )
        return frames(batch, space, 1)[..., jnp.asarray(self.entries)]

    def bounds(self, spec: Spec) -> tuple[Float[Array, " descriptor"], Float[Array, " descriptor"]]:
        """The least and the largest descriptor: the bounds of the observation, else the range seen in the data, where there are data.
        Raises `BadInput` where neither is known."""
        known, space = spec.statistics.get("observation"), spec.observation
        if isinstance(space, spaces.Box) and space.bounded:
            bounds = space.bounds()
        elif known is not None:
            bounds = known.low, known.high
        else:
            raise BadInput(f"cells need bounds but observations are {spaces.describe(space)} without: give them bounds")
        low, high = (jnp.asarray(bound).reshape(-1)[jnp.asarray(self.entries)] for bound in bounds)
        return low, high


class Autoencoder(eqx.Module):
    """x -> code -> x."""

    encoder: MLP
    decoder: MLP


@dataclass(frozen=True)
class Autoencoded(Descriptor):
    """The code of an autoencoder over `count` observations spread evenly over the episode, the last one among them.

    With 1 these are TAXONS' last observations, with more STAX's samples of the trajectory (Paolo 2021, thesis, chapter 6). Trained by
    Adam with `steps` batches after every generation, on what population and archive hold. `surprise` is the squared error.
    Observations are read as they are where their space has no bounds, else scaled to [-1, 1].
    """

    size: int = 2
    count: int = 1
    width: int = 32
    steps: int = 5
    batch_size: int = 64
    learning_rate: float = 1e-3

    def init(self, spec: Spec, *, key: PRNGKeyArray) -> Trained:
        """A fresh autoencoder."""
        inputs = spaces.size(spec.observation) * self.count
        first, second = jax.random.split(key)
        shape: dict[str, Any] = {"width": self.width, "depth": 1, "activation": "elu"}
        model = Autoencoder(MLP(inputs, self.size, **shape, key=first), MLP(self.size, inputs, **shape, key=second))
        return trained(model, optax.adam(self.learning_rate))

    def view(self, batch: Window, space: spaces.Space) -> Float[Array, "member view"]:
        """The sampled observations, one after the other."""
        return frames(batch, space, self.count, scaled=True)

    def describe(self, learned: Trained, views: Views) -> Described:
        """The codes."""
        return _rows(learned.model.encoder, views)

    def surprise(self, learned: Trained, views: Views) -> Float[Array, "*member"]:
        """The mean squared error of the reconstruction."""
        return jnp.mean((_rows(lambda x: learned.model.decoder(learned.model.encoder(x)), views) - views) ** 2, axis=-1)

    def learn(
        self, learned: Trained, views: Float[Array, "member view"], weight: Float[Array, " member"], *, key: PRNGKeyArray
    ) -> Trained:
        """`steps` batches, drawn by weight."""

        def step(learned: Trained, key: PRNGKeyArray) -> tuple[Trained, None]:
            rows = jax.random.choice(key, len(views), (self.batch_size,), p=weight / weight.sum())
            part = views[rows]

            def loss(model: Autoencoder) -> tuple[Float[Array, ""], None]:
                return jnp.mean((jax.vmap(lambda x: model.decoder(model.encoder(x)))(part) - part) ** 2), None

            return descend(learned, loss, optax.adam(self.learning_rate))[0], None

        return jax.lax.scan(step, learned, jax.random.split(key, self.steps))[0]


def frames(batch: Window, space: spaces.Space, count: int, *, scaled: bool = False) -> Float[Array, "member view"]:
    """`count` observations of each episode, evenly spread and the last one among them, flattened; the mean over a member's episodes."""
    read: Any = lambda seen: spaces.flatten(space, seen)
    if scaled and isinstance(space, spaces.Box) and space.bounded:
        low, high = (jnp.asarray(bound).reshape(-1) for bound in space.bounds())
        read = lambda seen: 2.0 * (spaces.flatten(space, seen) - low) / (high - low) - 1.0

    def of_episode(following: PyTree, valid: Bool[Array, " time"]) -> Float[Array, " view"]:
        length = jnp.sum(valid)
        places: Int[Array, " frame"] = jnp.maximum(-(-length * jnp.arange(1, count + 1) // count) - 1, 0)
        return jax.vmap(read)(jax.tree.map(lambda leaf: leaf[places], following)).reshape(-1)

    return jax.vmap(jax.vmap(of_episode))(batch.next_observation, batch.valid).mean(axis=1)


def _rows(function: Any, views: Views) -> Array:
    flat = jax.vmap(function)(views.reshape(-1, views.shape[-1]))
    return flat.reshape(*views.shape[:-1], *flat.shape[1:])
