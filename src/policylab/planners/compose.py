"""Composing policies at test time: one action out of the scores of several generative policies (Cao et al. 2025, "Compose Your
Policies!", GPC; product: Du et al. 2023, arXiv 2302.11552)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.policies.diffusion import schedule
from policylab.policies.generative import FromNoNoise, action_of
from policylab.policy import Policy


class Composed(Policy):
    r"""Denoises one action by several policies at once: diffusion and flow policies in any mixture, of one action space.

    In the variable x = clean + sigma * noise every policy estimates the clean action, D_i(x; sigma); its score is (D_i - x) / sigma^2.
    A flow policy is asked at level sigma / (1 + sigma) about x / (1 + sigma), which has the same signal-to-noise ratio. Then

        "convex"    D = sum_i w_i D_i,                 w_i >= 0, sum_i w_i = 1   (GPC: convex scores, a density ~ prod_i p_i^{w_i})
        "product"   D = x + n sum_i w_i (D_i - x)      (n policies: the plain product of the densities at equal weights)

    and x goes down the levels `sigma` by DDIM (Euler's method). `parts` names for each policy the parts of the observation that it
    sees, () all of it. Weights are used as they are: `convex_weights` lists those to choose from, `best_weights` chooses.
    """

    policies: tuple[Policy, ...]
    weights: Float[Array, " policy"] = eqx.field(converter=lambda w: jnp.asarray(w, jnp.float32))
    sigma: Float[Array, " level"] = eqx.field(converter=lambda s: jnp.asarray(s, jnp.float32))
    parts: tuple[tuple[str, ...], ...] = eqx.field(static=True, default=())
    operator: Literal["convex", "product"] = eqx.field(static=True, default="convex")

    @staticmethod
    def of(
        *policies: Any,
        weights: Any = None,
        parts: tuple[tuple[str, ...], ...] = (),
        operator: Literal["convex", "product"] = "convex",
        levels: int = 0,
    ) -> Composed:
        """Equal weights unless given. The levels are those of the first diffusion policy; with `levels`, or flow policies alone, that
        many (20) from 80 or the diffusion policies' largest level down to 0.005, exponentially.

        Raises `BadInput` unless all policies denoise, and in one action space with one scale.
        """
        if not policies:
            raise BadInput("there is no policy to compose: give at least one")
        for policy in policies:
            if not callable(getattr(policy, "denoise", None)):
                raise BadInput(f"{type(policy).__name__} denoises no actions: compose policies of the forms Diffusion and Flow")
        first = policies[0]
        for other in policies[1:]:
            scales = [*zip(jax.tree.leaves(first.scaler), jax.tree.leaves(other.scaler), strict=True)]
            known = not any(isinstance(leaf, Tracer) for pair in scales for leaf in pair)  # inside a program they are not
            same = first.action_space == other.action_space and (not known or all(np.allclose(a, b) for a, b in scales))
            if not same:
                raise BadInput(
                    "the policies to compose differ in the space or scale of their actions: train them for one of both"
                )
        if parts and len(parts) != len(policies):
            raise BadInput(
                f"parts are given for {len(parts)} of {len(policies)} policies: give them for all, () for everything"
            )
        diffusions = [policy for policy in policies if not _straight(policy)]
        if diffusions and not levels:
            sigma = diffusions[0].levels.sigma
        else:
            high = min((float(np.max(policy.levels.sigma)) for policy in diffusions), default=80.0)
            sigma = schedule("exponential", levels or 20, 0.005, high)
        equal = jnp.full(len(policies), 1.0 / len(policies))
        return Composed(policies, equal if weights is None else weights, sigma, parts, operator)

    @property
    def noise_space(self) -> spaces.Box:
        """That of the policies."""
        # `of` has refused whatever does not denoise; the type of any policy does not say so.
        return self.policies[0].noise_space  # ty: ignore[missing-attribute]

    def with_weights(self, weights: Any) -> Composed:
        """The same with other weights."""
        return replace(self, weights=weights)

    def denoise(
        self, observation: PyTree, noisy: Float[Array, " action"], level: Float[Array, ""], memory: PyTree = None
    ) -> Float[Array, " action"]:
        """The composed estimate of the clean action, in units of half the action range, from `noisy` = clean + level * noise."""
        seen = [
            {name: observation[name] for name in names} if names else observation
            for names in self.parts or ((),) * len(self.policies)
        ]
        clean = jnp.stack([_clean(policy, part, noisy, level) for policy, part in zip(self.policies, seen, strict=True)])
        if self.operator == "product":
            return noisy + len(self.policies) * self.weights @ (clean - noisy)
        return self.weights @ clean

    def decode(self, observation: PyTree, noise: Float[Array, " action"], memory: PyTree = None) -> PyTree:
        """The action in environment units that this noise leads to."""

        def step(x: Array, level: tuple[Array, Array]) -> tuple[Array, None]:
            now, after = level
            return x + (after - now) * (x - self.denoise(observation, x, now)) / now, None

        unit = jax.lax.scan(step, self.sigma[0] * noise, (self.sigma[:-1], self.sigma[1:]))[0]
        first: Any = self.policies[0]
        return action_of(first.action_space, first.scaler, unit)

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """A sample in environment units."""
        return self.decode(observation, jax.random.normal(key, self.noise_space.shape)), memory

    def mode(self) -> Policy:
        """The policy that starts from noise 0."""
        return FromNoNoise(self)


def _straight(policy: Any) -> bool:
    """Whether its noisy actions lie on straight lines to the noise (flows, whose `levels` is a number of steps)."""
    return isinstance(policy.levels, int)


def _clean(policy: Any, observation: PyTree, x: Float[Array, " action"], sigma: Float[Array, ""]) -> Float[Array, " action"]:
    """D(x; sigma) of any generative policy."""
    if _straight(policy):
        return policy.denoise(observation, x / (1.0 + sigma), sigma / (1.0 + sigma))
    return policy.denoise(observation, x, sigma)


def convex_weights(policies: int, steps: int = 10) -> Float[np.ndarray, "choice policy"]:
    """All weights that are multiples of 1 / `steps` and add up to 1; the ends are the policies on their own."""
    found = [w for w in itertools.product(range(steps + 1), repeat=policies) if sum(w) == steps]
    return np.asarray(found, np.float32) / steps


def best_weights(
    composed: Composed, measure: Callable[[Composed], Float[Array, ""]], *, steps: int = 10
) -> tuple[Float[Array, " policy"], Float[Array, " choice"]]:
    """The weights of `convex_weights` with the largest `measure(composed)`, and the measure of all of them, in one program.

    What is measured here has chosen: report the winner on starts and seeds of its own.
    """
    choices = jnp.asarray(convex_weights(len(composed.policies), steps))
    values = jax.lax.map(lambda weights: measure(composed.with_weights(weights)), choices)
    return choices[jnp.argmax(values)], values
