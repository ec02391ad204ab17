"""Model predictive control by the cross-entropy method."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.planners.imagination import Imagined
from policylab.planners.shooting import Refining, number, require_within

Plan = Float[Array, "horizon size"]
NARROWEST = 1e-6  # of a variance, in squared half ranges: a plan that has converged stays a distribution


class CrossEntropy(Refining):
    r"""Plans by the cross-entropy method, as PETS does (Chua et al. 2018, arXiv 1805.12114, appendix; settings of its code).

    Repeat `iterations` times: draw `population` plans a ~ N(mu, sigma^2) truncated at two standard deviations, where
    sigma <= half the distance of mu to the nearer bound; play them; of the `elites` best take mean m and variance v;
    mu <- smoothing mu + (1 - smoothing) m and sigma^2 <- smoothing sigma^2 + (1 - smoothing) v.
    Act with the first action of mu. It starts from the last plan shifted by a step, and a standard deviation of half the
    half range.
    """

    population: int = eqx.field(static=True, default=400)
    horizon: int = eqx.field(static=True, default=25)
    iterations: int = eqx.field(static=True, default=5)
    elites: int = eqx.field(static=True, default=40)
    smoothing: Float[Array, ""] = eqx.field(converter=number, default=0.1)
    spread: Float[Array, ""] = eqx.field(converter=number, default=0.5)

    def __check_init__(self) -> None:
        if not 1 <= self.elites <= self.population or self.iterations < 1:
            raise BadInput(f"{self.elites} elites of {self.population} plans: choose between 1 and the population")
        require_within(self, "smoothing", low=0.0, below=1.0)
        require_within(self, "spread", above=0.0)

    def draw(self, mean: Plan, variance: Plan, *, key: PRNGKeyArray) -> Float[Array, "plan horizon size"]:
        """Plans around `mean`, in units of half the action's range, all within [-1, 1]."""
        room = jnp.minimum(mean + 1.0, 1.0 - mean) / 2.0
        deviation = jnp.sqrt(jnp.minimum(variance, room**2))
        return mean + deviation * jax.random.truncated_normal(key, -2.0, 2.0, (self.population, *mean.shape))

    def refine(self, observation: PyTree, mean: Plan, variance: Plan, *, key: PRNGKeyArray) -> tuple[Plan, Plan]:
        """One iteration: the new mean and variance."""
        draw, noise = jax.random.split(key)
        plans = self.draw(mean, variance, key=draw)
        returns = self.imagine(observation, self.in_units(plans), key=noise).returns
        best = plans[jax.lax.top_k(returns, self.elites)[1]]
        keep = lambda old, new: self.smoothing * old + (1.0 - self.smoothing) * new
        return keep(mean, best.mean(axis=0)), keep(variance, jnp.maximum(best.var(axis=0), NARROWEST))

    def candidates(self, observation: PyTree, memory: Plan, *, key: PRNGKeyArray) -> tuple[PyTree, Imagined]:
        """The plans of the first iteration and what they would give."""
        draw, noise = jax.random.split(self.key(key))
        plans = self.in_units(self.draw(memory, jnp.full_like(memory, self.spread**2), key=draw))
        return plans, self.imagine(observation, plans, key=noise)

    def act(self, observation: PyTree, memory: Plan, *, key: PRNGKeyArray) -> tuple[PyTree, Plan]:
        """The first action of the refined mean, and the rest of it to start from."""
        keys = jax.random.split(self.key(key), self.iterations)
        start = (memory, jnp.full_like(memory, self.spread**2))
        (mean, _), _ = jax.lax.scan(lambda c, k: (self.refine(observation, *c, key=k), None), start, keys)
        return self.follow(mean)
