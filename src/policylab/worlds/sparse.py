"""Sparse polynomial dynamics, read off as equations (Brunton, Proctor and Kutz 2016, "Discovering governing equations", SINDy; ensembles
after Fasel et al. 2022, arXiv 2111.10992)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.environment import Step
from policylab.errors import BadInput, Unsupported
from policylab.experience import Spec
from policylab.networks.frozen import Frozen, Normaliser, observation_normaliser
from policylab.world import World


class Coefficients(Frozen):
    """Of every member's polynomials: the change of each observed number in one step, then the reward."""

    values: Float[Array, "members term output"]


def exponents(states: int, controls: int, degree: int) -> tuple[tuple[int, ...], ...]:
    """Of the terms: all monomials of the state up to `degree`, alone and times each control (affine in control)."""
    of_state = [
        tuple(chosen.count(i) for i in range(states))
        for size in range(degree + 1)
        for chosen in itertools.combinations_with_replacement(range(states), size)
    ]
    control = [tuple(int(i == j) for i in range(controls)) for j in (None, *range(controls))]
    return tuple((*powers, *acted) for acted in control for powers in of_state)


class SparseWorld(World):
    """s' = s + Theta(s, a) Xi, r = Theta(s, a) xi, with Xi the coefficient-wise median over members, most of it 0.

    `circles` are pairs of observed numbers (cosine, sine) that every step puts back on the unit circle. Steps are deterministic;
    the uncertainty is the norm of the members' standard deviation over observation, in units of the data's. `ends` and `starts` as in
    `EnsembleWorld`.
    """

    coefficients: Coefficients
    normaliser: Normaliser
    starts: Float[Array, "start ..."] | None
    specification: Spec
    powers: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    circles: tuple[tuple[int, int], ...] = eqx.field(static=True, default=())
    ends: Callable[[PyTree], Bool[Array, ""]] | None = eqx.field(static=True, default=None)

    @property
    def spec(self) -> Spec:
        """That of the data."""
        return self.specification

    def terms(self, observation: PyTree, action: PyTree) -> Float[Array, " term"]:
        """Theta(s, a) for one sample."""
        flat = [spaces.flatten(space, x) for space, x in ((self.spec.observation, observation), (self.spec.action, action))]
        # Integer powers by repeated products: exact at 0 and for negative numbers.
        rise = jnp.stack(
            [jnp.ones_like(joined := jnp.concatenate(flat)), *itertools.accumulate([joined] * self._degree, jnp.multiply)]
        )
        return jnp.prod(rise[jnp.asarray(self.powers), jnp.arange(joined.shape[0])], axis=1)

    @property
    def _degree(self) -> int:
        return max(1, max(max(powers) for powers in self.powers))

    def predictions(self, observation: PyTree, action: PyTree) -> Float[Array, "members output"]:
        """Every member's change of the observation and reward."""
        return jnp.einsum("mto,t->mo", self.coefficients.values, self.terms(observation, action))

    def expected(self, observation: PyTree, action: PyTree) -> tuple[PyTree, Float[Array, ""]]:
        """The next observation and the reward of the median coefficients."""
        output = self.terms(observation, action) @ jnp.median(self.coefficients.values, axis=0)
        after = spaces.flatten(self.spec.observation, observation) + output[:-1]
        for pair in self.circles:
            both = jnp.asarray(pair)
            after = after.at[both].divide(jnp.maximum(jnp.linalg.norm(after[both]), 1e-6))
        return spaces.unflatten(self.spec.observation, after), output[-1]

    def reset(self, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """One of `starts`. Raises `Unsupported` where it has none."""
        if self.starts is None:
            raise Unsupported("this world was learned without start states: begin at a known observation, with at(observation)")
        observation = self.starts[jax.random.randint(key, (), 0, self.starts.shape[0])]
        return observation, observation

    def step(self, state: PyTree, action: PyTree, key: PRNGKeyArray) -> tuple[PyTree, Step]:
        """The expected step; the key is not used."""
        observation, reward = self.expected(state, action)
        spread = jnp.std(self.predictions(state, action)[:, :-1], axis=0) / self.normaliser.std
        never = jnp.zeros((), bool)
        terminal = self.ends(observation) if self.ends else never
        return observation, Step(observation, reward, terminal, never, info={"uncertainty": jnp.linalg.norm(spread)})

    def at(self, observation: PyTree) -> PyTree:
        """The observation is the state."""
        return observation

    def equations(self, names: tuple[str, ...], *, digits: int = 3) -> list[str]:
        """One line per observed number and one for the reward; `names` are those of the observed numbers and of the controls."""
        width = spaces.size(self.spec.observation)
        if len(names) != len(self.powers[0]):
            raise BadInput(
                f"equations got {len(names)} names for {len(self.powers[0])} observed numbers and controls: name each"
            )
        median = np.asarray(jnp.median(self.coefficients.values, axis=0))
        words = [" ".join(f"{n}^{p}" if p > 1 else n for n, p in zip(names, ps, strict=True) if p) for ps in self.powers]
        lines = []
        for column, left in enumerate([*(f"d {name}" for name in names[:width]), "reward"]):
            terms = [f"{c:+.{digits}g} {word}".rstrip() for c, word in zip(median[:, column], words, strict=True) if c != 0]
            lines.append(f"{left} = {' '.join(terms) or '0'}")
        return lines


@dataclass(frozen=True)
class SparseDynamics:
    """The shape of a `SparseWorld`: polynomials of `degree` in the state, affine in control, `members` bootstrap fits."""

    degree: int = 2
    members: int = 20
    circles: tuple[tuple[int, int], ...] = ()

    def build(self, spec: Spec, *, key: PRNGKeyArray, starts: Array | None = None, ends: Callable | None = None) -> SparseWorld:
        """A world in which nothing ever changes. Raises `BadInput` unless observations and actions are Boxes."""
        for name, space in (("observed", spec.observation), ("action", spec.action)):
            if not isinstance(space, spaces.Box):
                raise BadInput(
                    f"polynomials are for numbers but the {name} values are {spaces.describe(space)}: use an ensemble"
                )
        if self.degree < 1 or self.members < 1:
            raise BadInput(f"SparseDynamics has degree {self.degree} and {self.members} members: give at least 1 of each")
        states, controls = spaces.size(spec.observation), spaces.size(spec.action)
        powers = exponents(states, controls, self.degree)
        zeros = Coefficients(jnp.zeros((self.members, len(powers), states + 1)))
        return SparseWorld(zeros, observation_normaliser(spec), starts, spec, powers, self.circles, ends)
