"""Value iteration (Bellman 1957; Puterman 1994, "Markov Decision Processes", section 6.3): exact dynamic programming in a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Everything, Learner, Request, Sometimes
from policylab.scorers.table import TableValue, best_value, greedy, table_shape


@settings
class ValueIteration(Learner):
    r"""One update is one Bellman sweep over all states and actions:

        Q(s, a) <- E[ r + gamma (1 - terminal) max_a' Q(s', a') | s, a ]

    The expectation is over everything the source holds, each row with its weight. From `FiniteModel.of(process)` these are all
    transitions with their probabilities, and the result is that of dynamic programming in the process itself; from a dataset
    it is that in the process which the data make likeliest (certainty equivalence). What was never tried keeps the value
    `initial`, and is no choice either where `constrained`.

    The sweep contracts by gamma: `bound` = gamma / (1 - gamma) `residual` is how far Q can still be from its fixed point anywhere.
    Tables are float32, so that the residual stops at about 1e-7 of the largest value. A sweep costs one pass over the data.
    """

    discount: float = setting(0.99, "gamma per step", low=0.0, below=1.0)
    initial: float = setting(0.0, "value before the first sweep, and of what was never tried")
    constrained: bool = setting(True, "whether only choices that the data hold count")

    title: ClassVar[str] = "Exact dynamic programming in a table"
    actions: ClassVar[str] = "discrete"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """All of the data."""
        return {"everything": Everything()}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """A constant table. Raises `BadInput` unless states and choices are numbered; the key is not used."""
        shape = table_shape(spec, "ValueIteration")
        table = jnp.full(shape, self.initial, jnp.float32)
        return {"table": table, "tried": jnp.zeros(shape, bool), "residual": jnp.zeros(())}

    def allowed(self, tried: Bool[Array, "state choice"]) -> Bool[Array, "state choice"]:
        """The choices that count."""
        return tried if self.constrained else jnp.ones_like(tried)

    def sweep(
        self, table: Float[Array, "state choice"], batch: Window
    ) -> tuple[Float[Array, "state choice"], Bool[Array, "state choice"]]:
        """The next table, and which pairs the data hold."""
        states, choices = table.shape
        pair = batch.observation * choices + batch.action
        over_rows = lambda values: jax.ops.segment_sum(values, pair, states * choices).reshape(states, choices)
        weight = over_rows(batch.weight)
        tried = weight > 0
        value = best_value(table, self.allowed(tried), self.initial)
        goal = batch.reward + self.discount**batch.duration * batch.continues * value[batch.next_observation]
        total = over_rows(batch.weight * goal)
        return jnp.where(tried, total / jnp.where(tried, weight, 1.0), self.initial), tried

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """One sweep. `residual` is the largest change of Q, `span` the largest minus the smallest change of V, `contraction` this
        residual over the last one (at most gamma)."""
        table, tried = self.sweep(state["table"], batch)
        residual = jnp.max(jnp.abs(table - state["table"]))
        before, after = (best_value(values, self.allowed(tried), self.initial) for values in (state["table"], table))
        last = state["residual"]
        metrics = {
            "residual": residual,
            "span": jnp.ptp(after - before),
            "contraction": Sometimes(residual / jnp.where(last > 0, last, 1.0), last > 0),
            "bound": self.discount / (1.0 - self.discount) * residual,
            "tried": jnp.mean(tried),
        }
        return {"table": table, "tried": tried, "residual": residual}, metrics

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy` (greedy) and `critic`."""
        policy = greedy(state["table"], self.allowed(state["tried"]))
        return {"policy": policy, "explorer": policy, "critic": TableValue(state["table"])}
