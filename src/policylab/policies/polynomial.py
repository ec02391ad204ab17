"""Polynomial policies: an action that can be written down as an equation."""

from __future__ import annotations

import itertools

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.networks.frozen import Frozen
from policylab.policies.continuous import box_of
from policylab.policy import Policy


class Weights(Frozen):
    """Of every monomial in every number of the action."""

    values: Float[Array, "term size"]


class PolynomialPolicy(Policy):
    """a = clip(Theta(s) W), Theta all monomials of the observed numbers up to a degree, clipped to the bounds of the action."""

    weights: Weights
    powers: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    specification: Spec

    @staticmethod
    def blank(spec: Spec, degree: int) -> PolynomialPolicy:
        """The policy that always does 0. Raises `BadInput` unless observations and actions are Boxes and the degree is at least 1."""
        space, states = box_of(spec, "a polynomial policy"), spaces.size(spec.observation)
        if not isinstance(spec.observation, spaces.Box) or degree < 1:
            raise BadInput(
                f"polynomials of degree {degree} of {spaces.describe(spec.observation)}: give numbers and at least degree 1"
            )
        powers = tuple(
            tuple(chosen.count(i) for i in range(states))
            for size in range(degree + 1)
            for chosen in itertools.combinations_with_replacement(range(states), size)
        )
        return PolynomialPolicy(Weights(jnp.zeros((len(powers), spaces.size(space)))), powers, spec)

    def terms(self, observation: PyTree) -> Float[Array, " term"]:
        """Theta(s) for one sample."""
        flat = spaces.flatten(self.specification.observation, observation)
        degree = max(max(powers) for powers in self.powers)
        rise = jnp.stack([jnp.ones_like(flat), *itertools.accumulate([flat] * degree, jnp.multiply)])
        return jnp.prod(rise[jnp.asarray(self.powers), jnp.arange(flat.shape[0])], axis=1)

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """The action, within bounds."""
        space = box_of(self.specification, "a polynomial policy")
        low, high = (jnp.asarray(bound, jnp.float32).reshape(-1) for bound in space.bounds())
        return spaces.unflatten(space, jnp.clip(self.terms(observation) @ self.weights.values, low, high)), memory

    def equations(self, names: tuple[str, ...], *, digits: int = 3) -> list[str]:
        """One line per number of the action, in terms of the `names` of the observed numbers."""
        if len(names) != len(self.powers[0]):
            raise BadInput(f"equations got {len(names)} names for {len(self.powers[0])} observed numbers: name each")
        words = [" ".join(f"{n}^{p}" if p > 1 else n for n, p in zip(names, ps, strict=True) if p) for ps in self.powers]
        lines = []
        for number, column in enumerate(np.asarray(self.weights.values).T):
            terms = [f"{c:+.{digits}g} {word}".rstrip() for c, word in zip(column, words, strict=True) if c != 0]
            lines.append(f"action {number} = {' '.join(terms) or '0'}")
        return lines
