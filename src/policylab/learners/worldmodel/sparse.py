"""SINDy: sparse regression of the dynamics on polynomials (Brunton, Proctor and Kutz 2016, PNAS 113; bagged as in Fasel et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Everything, Learner, Request
from policylab.learners.worldmodel.ensemble import bootstrap
from policylab.worlds.sparse import Coefficients, SparseDynamics, SparseWorld


def ridge(
    gram: Float[Array, "term term"], moment: Float[Array, " term"], kept: Bool[Array, " term"], penalty: Array | float
) -> Float[Array, " term"]:
    """argmin |Theta x - y|^2 + penalty |x|^2 over x that is 0 where not `kept`; `gram` = Theta' Theta, `moment` = Theta' y."""
    both = kept[:, None] & kept[None, :]
    matrix = jnp.where(both, gram, 0.0) + jnp.diag(jnp.where(kept, penalty, 1.0))
    return jnp.linalg.solve(matrix, jnp.where(kept, moment, 0.0))


@settings
class SINDy(Learner):
    r"""Sequentially thresholded least squares, for the change of every observed number and for the reward:

    Xi <- argmin |Y - Theta Xi|^2 / rows + ridge |Xi|^2 on the support;   support <- { |Xi| >= threshold }

    One update is one such iteration over all data, for every member's bootstrap sample at once; a handful are enough, and once the
    support stands still nothing changes any more. Ridge and threshold are in the units of the data, per step.
    """

    world: SparseDynamics = setting(SparseDynamics(), "the shape of the world")
    threshold: float = setting(7e-3, "coefficients below it become 0, in units of the observation per step", low=0.0)
    penalty: float = setting(5e-5, "ridge, on squared errors averaged over rows", low=0.0)

    title: ClassVar[str] = "Sparse identification of dynamics"
    actions: ClassVar[str] = "continuous"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """All of the data."""
        return {"everything": Everything()}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Nothing known: every term is in the support; `sample` is the seed of the bootstrap."""
        world = self.world.build(spec, key=key)
        return {"world": world, "kept": jnp.ones(world.coefficients.values.shape, bool), "sample": jax.random.key_data(key)}

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Array]]:
        """Solve on the support, then threshold it."""
        world: SparseWorld = state["world"]
        flat = jax.vmap(lambda o: spaces.flatten(world.spec.observation, o))
        theta = jax.vmap(world.terms)(batch.observation, batch.action)
        target = jnp.concatenate([flat(batch.next_observation) - flat(batch.observation), batch.reward[:, None]], axis=1)
        rows = batch.valid.shape[0]
        counts = bootstrap(jnp.arange(rows), self.world.members, key=jax.random.wrap_key_data(state["sample"]))
        # A single member is fitted to the data as they are.
        weight = (counts if self.world.members > 1 else jnp.ones_like(counts)) * batch.weight[:, None]

        def fit(weight: Float[Array, " row"], kept: Bool[Array, "term output"]) -> Float[Array, "term output"]:
            share = weight / jnp.maximum(jnp.sum(weight), 1.0)
            gram, moment = theta.T @ (share[:, None] * theta), theta.T @ (share[:, None] * target)
            return jax.vmap(lambda m, k: ridge(gram, m, k, self.penalty), in_axes=1, out_axes=1)(moment, kept)

        values = jax.vmap(fit, in_axes=(1, 0))(weight, state["kept"])
        kept = state["kept"] & (jnp.abs(values) >= self.threshold)
        values = jnp.where(kept, values, 0.0)
        error = jnp.where(batch.valid[:, None], target - theta @ jnp.median(values, axis=0), 0.0)
        metrics = {
            "squared_error": jnp.sum(error[:, :-1] ** 2) / jnp.maximum(jnp.sum(batch.valid), 1),
            "terms": jnp.sum(jnp.median(values, axis=0) != 0).astype(jnp.float32),
            "dropped": jnp.sum(state["kept"] & ~kept).astype(jnp.float32),
        }
        world = eqx.tree_at(lambda w: w.coefficients, world, Coefficients(values))
        return {**state, "world": world, "kept": kept}, metrics

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`world`."""
        return {"world": state["world"]}
