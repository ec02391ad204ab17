"""Q-learning in a table (Watkins 1989; Watkins and Dayan 1992, "Q-learning", Machine Learning 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Steps
from policylab.scorers.table import TableValue, best_value, greedy, table_shape


@settings
class QLearning(Learner):
    r"""For one transition (s, a, r, s') after another, whoever chose a:

        Q(s, a) <- Q(s, a) + rate_n ( r + gamma (1 - terminal) max_a' Q(s', a') - Q(s, a) ),   rate_n = rate / n(s, a)^omega

    with n(s, a) how often this pair was updated. It converges for omega in (1/2, 1] where every pair goes on being drawn (on a
    dataset: to the fixed point of the process that the data make likeliest, which `ValueIteration` computes); polynomial rates
    with omega around 0.77 need the fewest updates in theory (Even-Dar and Mansour 2003, "Learning rates for Q-learning", JMLR 5).
    With omega 0 the rate is constant. What was never tried keeps the value `initial`: on data without all choices set it low, or
    let only choices that were tried count (`constrained`: batch-constrained Q-learning of Fujimoto et al. 2019, arXiv 1812.02900,
    section 4.1).
    """

    discount: float = setting(0.99, "gamma per step", low=0.0, high=1.0)
    rate: float = setting(1.0, "learning rate of a pair's first update", above=0.0, high=1.0)
    omega: float = setting(0.77, "how fast the rate falls with the updates of a pair; 0: constant", low=0.0, high=1.0)
    initial: float = setting(0.0, "value before the first update, and of what was never tried")
    epsilon: float = setting(0.05, "share of random choices when exploring", low=0.0, high=1.0)
    batch_size: int = setting(32, "transitions per update, learned one after another", low=1)
    constrained: bool = setting(False, "whether only choices that were tried count")

    title: ClassVar[str] = "Q-learning in a table"
    actions: ClassVar[str] = "discrete"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Transitions."""
        return {"transitions": Steps(self.batch_size)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """A constant table and no updates. Raises `BadInput` unless states and choices are numbered; the key is not used."""
        shape = table_shape(spec, "QLearning")
        return {"table": jnp.full(shape, self.initial, jnp.float32), "updates": jnp.zeros(shape, jnp.int32)}

    def allowed(self, updates: Array) -> Bool[Array, "*batch choice"]:
        """The choices that count."""
        return updates > 0 if self.constrained else jnp.ones_like(updates, bool)

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Array]]:
        """Every transition of the batch in turn. Transitions of weight 0 are passed over."""

        def learn(
            carry: tuple[Array, Array], one: tuple[Window, Float[Array, ""]]
        ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            (table, updates), (step, weight) = carry, one
            place = step.observation, step.action
            updates = updates.at[place].add(weight > 0)
            value = best_value(table[step.next_observation], self.allowed(updates[step.next_observation]), self.initial)
            goal = step.reward + self.discount**step.duration * step.continues * value
            error = goal - table[place]
            rate = jnp.minimum(weight, 1.0) * self.rate / jnp.maximum(updates[place], 1) ** self.omega
            return (table.at[place].add(rate * error), updates), (jnp.abs(error), rate)

        (table, updates), (error, rate) = jax.lax.scan(learn, (state["table"], state["updates"]), (batch, batch.weight))
        metrics = {"error": error.mean(), "rate": rate.mean(), "q": table.mean(), "tried": jnp.mean(updates > 0)}
        return {"table": table, "updates": updates}, metrics

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy` (greedy), `explorer` (epsilon-greedy), `critic`."""
        table, allowed = state["table"], self.allowed(state["updates"])
        return {
            "policy": greedy(table, allowed),
            "explorer": greedy(table, jnp.ones_like(allowed), self.epsilon),
            "critic": TableValue(table),
        }
