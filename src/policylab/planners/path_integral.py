"""Model predictive path integral control."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.planners.imagination import Imagined
from policylab.planners.shooting import Refining, number, require_within

Plan = Float[Array, "horizon size"]


class PathIntegral(Refining):
    r"""MPPI: every plan counts, the better the more (Williams et al. 2017, "Information theoretic MPC", algorithm 2).

    Repeat `iterations` times: draw noises e_k, play the plans clip(mu + e_k, -1, 1) (units of half the action's range), weigh
    them by w_k = exp(return_k / temperature) / sum_j exp(return_j / temperature), and let mu <- sum_k w_k clip(mu + e_k, -1, 1).
    The noise is e_t = correlation e_{t-1} + sqrt(1 - correlation^2) n_t with n_t ~ N(0, spread^2): with correlation 0 it is the
    paper's, with more it is smooth in time as in PDDM (Nagabandi et al. 2019, arXiv 1909.11652). The paper's extra control cost
    is left out, as PDDM and TD-MPC do: put it into the reward where it is wanted.
    """

    population: int = eqx.field(static=True, default=500)
    horizon: int = eqx.field(static=True, default=20)
    iterations: int = eqx.field(static=True, default=1)
    temperature: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    spread: Float[Array, ""] = eqx.field(converter=number, default=0.5)
    correlation: Float[Array, ""] = eqx.field(converter=number, default=0.0)

    def __check_init__(self) -> None:
        if self.iterations < 1:
            raise BadInput("PathIntegral needs at least one iteration")
        require_within(self, "temperature", above=0.0)
        require_within(self, "spread", above=0.0)
        require_within(self, "correlation", low=0.0, below=1.0)

    def draw(self, mean: Plan, *, key: PRNGKeyArray) -> Float[Array, "plan horizon size"]:
        """Plans around `mean`, clipped to the range."""
        fresh = jax.random.normal(key, (self.horizon, self.population, mean.shape[-1]))

        def go_on(last: Array, noise: Array) -> tuple[Array, Array]:
            noise = self.correlation * last + jnp.sqrt(1.0 - self.correlation**2) * noise
            return noise, noise

        _, later = jax.lax.scan(go_on, fresh[0], fresh[1:])
        noise = jnp.moveaxis(jnp.concatenate([fresh[:1], later]), 0, 1)
        return jnp.clip(mean + self.spread * noise, -1.0, 1.0)

    def refine(self, observation: PyTree, mean: Plan, *, key: PRNGKeyArray) -> Plan:
        """One iteration: the weighted mean of the plans."""
        draw, noise = jax.random.split(key)
        plans = self.draw(mean, key=draw)
        returns = self.imagine(observation, self.in_units(plans), key=noise).returns
        return jnp.tensordot(jax.nn.softmax(returns / self.temperature), plans, axes=1)

    def candidates(self, observation: PyTree, memory: Plan, *, key: PRNGKeyArray) -> tuple[PyTree, Imagined]:
        """The plans of the first iteration and what they would give."""
        draw, noise = jax.random.split(self.key(key))
        plans = self.in_units(self.draw(memory, key=draw))
        return plans, self.imagine(observation, plans, key=noise)

    def act(self, observation: PyTree, memory: Plan, *, key: PRNGKeyArray) -> tuple[PyTree, Plan]:
        """The first action of the weighted plan, and the rest of it to start from."""
        keys = jax.random.split(self.key(key), self.iterations)
        mean, _ = jax.lax.scan(lambda mean, k: (self.refine(observation, mean, key=k), None), memory, keys)
        return self.follow(mean)
