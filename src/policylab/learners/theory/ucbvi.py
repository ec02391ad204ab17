"""UCBVI: optimism by value iteration with confidence bonuses (Azar, Osband and Munos 2017, arXiv 1703.05449)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, WholeEpisodes
from policylab.policies.timed import Timed
from policylab.scorers.table import table_shape

Table = Float[Array, "state choice"]
Values = Float[Array, " state"]


@settings
class UCBVI(Learner):
    r"""Plays greedily in the most favourable process that the counts n(s, a) allow, planned anew after every batch of episodes:

        Q_h(s, a) = min( (H - h) R, r(s, a) + P V_{h+1}(s, a) + b_h(s, a) ),   V_h = max_a Q_h,   V_H = 0
        b_h = bonus ( sqrt(2 L Var_P[V_{h+1}] / n) + sqrt(2 L Var[r] / n) + 7 (H - h) R L / (3 n) ),   L = log(4 S A H K / delta)

    with P, r and the variances those of what was counted, R the largest reward, K the episodes of the whole run; a pair that was
    never tried is worth (H - h) R. The bonus is the empirical Bernstein bound (Maurer and Pontil 2009, theorem 4; the paper's
    UCBVI-BF, equation 3, has further terms of lower order); dynamics are the same at every step. `bonus` 1 is what the bound asks
    for; on problems of a few thousand episodes only smaller ones leave the first exploration.
    Rewards must lie in [0, R]; observations and actions are numbered.
    """

    horizon: int = setting(0, "H, steps of an episode; 0: the environment's", low=0)
    bonus: float = setting(1.0, "multiplier of the confidence bonus", low=0.0)
    confidence: float = setting(0.05, "delta, the share of runs in which some bound may fail", above=0.0, below=1.0)
    largest: float = setting(1.0, "R, the largest reward of a step", above=0.0)
    episodes: int = setting(10, "episodes between two plans", low=1)

    title: ClassVar[str] = "Optimistic value iteration with confidence bonuses"
    actions: ClassVar[str] = "discrete"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Whole episodes."""
        return {"episodes": WholeEpisodes(self.episodes)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Nothing counted. Raises `BadInput` unless states and choices are numbered and the length of episodes is known; the key is not
        used."""
        states, choices = table_shape(spec, type(self).__name__)
        horizon = self.horizon or spec.horizon
        if horizon < 1:
            raise BadInput(
                f"{type(self).__name__} plans for episodes of a known length: give horizon=, or put a TimeLimit around"
            )
        counted = {
            "onward": jnp.zeros((states, choices, states)),
            "visits": jnp.zeros((states, choices)),
            "reward": jnp.zeros((states, choices)),
            "squares": jnp.zeros((states, choices)),
            "starts": jnp.zeros(states),
        }
        lasting = self.lasting(spec, horizon, given)
        clock = Clock(jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32))
        return {"counted": counted, "lasting": lasting, "plan": self.plan(counted, lasting, horizon, clock)[0]}

    def lasting(self, spec: Spec, horizon: int, given: Mapping[str, Any]) -> dict[str, PyTree]:
        """What the plans need that never changes: nothing here."""
        return {}

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """Counts the batch and plans anew. Metrics: the optimistic value, the share of pairs tried, the batch's mean return."""
        weight = batch.valid.astype(jnp.float32).reshape(-1)
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1), (batch.observation, batch.action, batch.next_observation))
        pair, reward, continues = flat[:2], batch.reward.reshape(-1), batch.continues.reshape(-1)
        before = state["counted"]
        counted = {
            "onward": before["onward"].at[flat].add(weight * continues),
            "visits": before["visits"].at[pair].add(weight),
            "reward": before["reward"].at[pair].add(weight * reward),
            "squares": before["squares"].at[pair].add(weight * reward**2),
            "starts": before["starts"].at[batch.observation[:, 0]].add(batch.valid[:, 0].astype(jnp.float32)),
        }
        plan, metrics = self.plan(counted, state["lasting"], state["plan"].parts.shape[1], clock)
        metrics |= {
            "tried": jnp.mean(counted["visits"] > 0),
            "return": jnp.sum(weight * reward) / batch.reward.shape[0],
        }
        return {"counted": counted, "lasting": state["lasting"], "plan": plan}, metrics

    def plan(
        self, counted: dict[str, Array], lasting: dict[str, PyTree], horizon: int, clock: Clock
    ) -> tuple[Timed, dict[str, Any]]:
        """What is played next, and the metrics of the plan."""
        optimist, value = self.optimist(counted, horizon, clock)
        return Timed(optimist[None], jnp.ones(1)), {"optimistic": value}

    def optimist(
        self, counted: dict[str, Array], horizon: int, clock: Clock
    ) -> tuple[Float[Array, "time state choice"], Float[Array, ""]]:
        """The greedy policy of the most favourable process, and its value there."""

        def back(value: Values, left: Array) -> tuple[Values, Table]:
            upper = self.backup(counted, value, left, horizon, clock, 1.0)
            return upper.max(axis=-1), jax.nn.one_hot(upper.argmax(axis=-1), upper.shape[-1])

        value, policy = jax.lax.scan(back, jnp.zeros(counted["starts"].shape), horizon - jnp.arange(horizon), reverse=True)
        return policy, self.at_start(counted, value, horizon, clock, 1.0)

    def backup(self, counted: dict[str, Array], value: Values, left: Array, horizon: int, clock: Clock, side: float) -> Table:
        """Q with `left` steps to go, its bonus added (`side` 1) or taken away (-1); within [0, left R]."""
        visits = counted["visits"]
        number = jnp.maximum(visits, 1.0)
        mean = lambda total: total / number
        following, reward = mean(counted["onward"] @ value), mean(counted["reward"])
        # What ended the process goes on to a value of 0, which the moments hold already.
        spread = jnp.maximum(mean(counted["onward"] @ value**2) - following**2, 0.0)
        noise = jnp.maximum(mean(counted["squares"]) - reward**2, 0.0)
        most = left * self.largest
        width = self.bound(spread, number, most, visits.size, horizon, clock) + self.bound(
            noise, number, 0.0, visits.size, horizon, clock
        )
        known = jnp.clip(reward + following + side * width, 0.0, most)
        return jnp.where(visits > 0, known, most if side > 0 else 0.0)

    def at_start(self, counted: dict[str, Array], value: Values, horizon: int, clock: Clock, side: float) -> Float[Array, ""]:
        """The value of the start, whose distribution is counted, too."""
        total = counted["starts"].sum()
        number, most = jnp.maximum(total, 1.0), horizon * self.largest
        mean = counted["starts"] @ value / number
        spread = jnp.maximum(counted["starts"] @ value**2 / number - mean**2, 0.0)
        width = self.bound(spread, number, most, counted["visits"].size, horizon, clock)
        known = jnp.clip(mean + side * width, 0.0, most)
        return jnp.where(total > 0, known, most if side > 0 else 0.0)

    def bound(
        self, variance: Array, number: Array, most: Array | float, pairs: int, horizon: int, clock: Clock
    ) -> Float[Array, "..."]:
        """How far a mean of `number` draws from [0, most] with this empirical variance may be from the truth, times `bonus`."""
        log = jnp.log(4.0 * pairs * horizon * clock.total * self.episodes / self.confidence)
        return self.bonus * (jnp.sqrt(2.0 * log * variance / number) + 7.0 * most * log / (3.0 * number))

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy`: the present plan, which is also what explores."""
        return {"policy": state["plan"], "explorer": state["plan"]}
