"""A world that is learned while acting, in the scales of what has been seen so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request
from policylab.learners.worldmodel.ensemble import EnsembleDynamics
from policylab.networks.frozen import Normaliser
from policylab.networks.running import Seen
from policylab.spaces import Box
from policylab.worlds.ensemble import EnsembleWorld


@settings
class Rescaled(Learner):
    """`dynamics`, whose worlds are given the mean and the standard deviation of all batches so far: of observations and of rewards.

    Data bring their statistics along; what is collected on the way does not, and in environment units a reward of -16 or a speed of 8
    stands beside a cosine. The authors of MBPO scale the networks' inputs anew before every fit (`fit` of `TensorStandardScaler`).
    Where the source has statistics, or the world is no `EnsembleWorld`, this is `dynamics` alone.
    """

    dynamics: Learner = setting(EnsembleDynamics(), "how the world is learned")

    @property
    def needs(self) -> Mapping[str, Request]:
        """What `dynamics` needs."""
        return self.dynamics.needs

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """That of `dynamics`, and nothing seen yet."""
        state = {"dynamics": self.dynamics.init(spec, key=key, given=given)}
        if "observation" not in spec.statistics and isinstance(spec.observation, Box):
            rewards = Seen(jnp.zeros(()), jnp.zeros(1), jnp.ones(1), Box((1,)))
            state |= {"observations": Seen.nothing(spec), "rewards": rewards}
        return state

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """The scales with this batch, then a step of `dynamics`."""
        if "rewards" in state:
            observations = state["observations"].with_more(batch)
            rewards = state["rewards"].with_more(replace(batch, observation=batch.reward[..., None]))
            state = {**state, "observations": observations, "rewards": rewards}
            state["dynamics"] = scaled(state["dynamics"], observations, rewards)
        inner, metrics = self.dynamics.update(state["dynamics"], batch, clock=clock, key=key)
        return {**state, "dynamics": inner}, metrics

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """What `dynamics` offers."""
        return self.dynamics.products(state["dynamics"])


def scaled(state: PyTree, observations: Seen, rewards: Seen) -> PyTree:
    """`state` with these scales in all its worlds; an optimiser's moments, which have the same shape but no scales, stay."""
    own = tuple(Normaliser(seen.mean, jnp.sqrt(seen.variance) + 1e-3) for seen in (observations, rewards))

    def place(node: PyTree) -> PyTree:
        if not isinstance(node, EnsembleWorld) or node.normaliser.mean is None:
            return node
        return eqx.tree_at(lambda world: (world.normaliser, world.reward_normaliser), node, own)

    return jax.tree.map(place, state, is_leaf=lambda node: isinstance(node, EnsembleWorld))
