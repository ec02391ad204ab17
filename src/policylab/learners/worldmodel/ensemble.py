"""Learning a probabilistic ensemble of dynamics (Chua et al. 2018; the details of MBPO, Janner et al. 2019, arXiv 1906.08253)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Steps
from policylab.networks.optimisation import descend, trained
from policylab.worlds.ensemble import DynamicsEnsemble, EnsembleWorld, Ranking

_POISSON = (0.36787944, 0.73575888, 0.91969860, 0.98101184, 0.99634015, 0.99940582, 0.99991676, 1.0)  # P(count <= k), mean 1


def bootstrap(rows: Int[Array, " batch"], members: int, *, key: PRNGKeyArray) -> Float[Array, "batch members"]:
    """How often each row is in each member's bootstrap sample: independent Poisson(1) counts, a function of row, member and key alone."""
    draw = lambda row: jax.random.uniform(jax.random.fold_in(key, row), (members,))
    return jnp.searchsorted(jnp.array(_POISSON), jax.vmap(draw)(rows)).astype(jnp.float32)


@settings
class EnsembleDynamics(Learner):
    r"""Members with a bootstrap sample each minimise the Gaussian negative log-likelihood of (s' - s, r):

    min sum_i w_i(row) * mean_d [ (mu_i - y)^2 / sigma_i^2 + log sigma_i^2 ] / 2 + 0.01 * sum_d (upper_d - lower_d),  y = (s' - s, r)

    with learned soft bounds on log sigma^2. A share of the rows is kept out; a running mean of each member's squared error there
    (over about the last 100 updates) ranks the members. Bootstrap and split are drawn once per seed and are functions of the row,
    as resampling all rows with replacement would give in the limit of many rows.
    """

    world: DynamicsEnsemble = setting(DynamicsEnsemble(), "the shape of the world")
    learning_rate: float = setting(1e-3, "of Adam", above=0.0)
    weight_decay: float = setting(5e-5, "decoupled, per unit of learning rate", low=0.0)
    held_out: float = setting(0.05, "share of the rows that only rank the members", low=0.0, below=1.0)
    batch_size: int = setting(256, "transitions per update", low=1)

    title: ClassVar[str] = "Probabilistic ensemble of dynamics"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Transitions with the numbers of their rows."""
        return {"transitions": Steps(self.batch_size, fields=("row",))}

    def _optimiser(self) -> optax.GradientTransformation:
        return optax.adamw(self.learning_rate, weight_decay=self.weight_decay)

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """A fresh world and the seed of its split and bootstrap samples."""
        world_key, sample_key = jax.random.split(key)
        world = self.world.build(spec, key=world_key)
        return {"world": trained(world, self._optimiser()), "sample": jax.random.key_data(sample_key)}

    def losses(
        self, world: EnsembleWorld, batch: Window
    ) -> tuple[Float[Array, "batch members"], Float[Array, "batch members"]]:
        """Of every row and member: what is minimised, and what ranks the members on rows kept out."""
        return jax.vmap(world.losses)(batch.observation, batch.action, batch.next_observation, batch.reward)

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Array]]:
        """One step for all members, and the ranking."""
        split_key, bootstrap_key = jax.random.split(jax.random.wrap_key_data(state["sample"]))
        rows: Int[Array, " batch"] = batch.extra["row"]
        held: Bool[Array, " batch"] = (
            jax.vmap(lambda row: jax.random.uniform(jax.random.fold_in(split_key, row)))(rows) < self.held_out
        )
        weight = bootstrap(rows, self.world.members, key=bootstrap_key) * ~held[:, None]

        def loss(world: EnsembleWorld) -> tuple[Array, tuple[Array, Array]]:
            likelihood, square = self.losses(world, batch)
            low, high = world.log_variance_range
            fitted = jnp.sum(weight * likelihood, axis=0) / jnp.maximum(jnp.sum(weight, axis=0), 1.0)
            return jnp.sum(fitted) + 0.01 * jnp.sum(high - low), (jnp.mean(fitted), square)

        learned, _, (likelihood, square) = descend(state["world"], loss, self._optimiser())
        count = jnp.sum(held)
        recent = jnp.sum(held[:, None] * square, axis=0) / jnp.maximum(count, 1)
        before = learned.model.ranking.validation_loss
        # A plain mean of the first hundred updates, a running one from then on.
        ranked = jnp.where(count > 0, before + (recent - before) / jnp.minimum(clock.step + 1, 100), before)
        learned = eqx.tree_at(lambda t: t.model.ranking, learned, Ranking(ranked))
        metrics = {
            "negative_log_likelihood": likelihood,
            "squared_error": jnp.mean(square),
            "validation_error": jnp.mean(ranked),
        }
        return {**state, "world": learned}, metrics

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`world`."""
        return {"world": state["world"].model}
