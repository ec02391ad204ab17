"""Rules of when a learned world's episodes end: which observations are within bounds, as MBPO's code has them per robot."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.worlds.ensemble import DynamicsEnsemble, EnsembleWorld
from policylab.worlds.sparse import SparseDynamics, SparseWorld

Bound = tuple[int, float, float]  # the place of a number in the flattened observation, its least and its most
FREE = math.inf

# What Gymnasium's environments (v4 and v5, default observations) call healthy: outside of it they end.
KNOWN: dict[str, tuple[Bound, ...]] = {
    "hopper": ((0, 0.7, FREE), (1, -0.2, 0.2), *((i, -100.0, 100.0) for i in range(2, 11))),
    "walker2d": ((0, 0.8, 2.0), (1, -1.0, 1.0)),
    "ant": ((0, 0.2, 1.0),),
    "humanoid": ((0, 1.0, 2.0),),
    "invertedpendulum": ((1, -0.2, 0.2),),
    "cartpole": ((0, -2.4, 2.4), (2, -12 * math.pi / 180, 12 * math.pi / 180)),
}


@dataclass(frozen=True)
class Within:
    """The rule that an episode ends where one of these numbers leaves its bounds; equal bounds are equal rules."""

    bounds: tuple[Bound, ...]
    space: spaces.Space

    def __call__(self, observation: PyTree) -> Bool[Array, ""]:
        """Whether this observation is an end."""
        flat = spaces.flatten(self.space, observation)
        place, low, high = (jnp.asarray(column) for column in zip(*self.bounds, strict=True))
        return ~jnp.all((flat[place] >= low) & (flat[place] <= high))


def rule_of(spec: Spec, rule: str, bounds: tuple[Bound, ...]) -> Within:
    """The rule of an environment's name and of further bounds. Raises `BadInput` for an unknown name, and for bounds of numbers that are
    not observed."""
    name = rule.partition("-")[0].replace("_", "").lower()
    if name and name not in KNOWN:
        raise BadInput(f"the rule {rule!r} is unknown: choose one of {', '.join(KNOWN)}, or give bounds of your own")
    rows = (*KNOWN.get(name, ()), *(tuple(row) for row in bounds))
    if not rows:
        raise BadInput(
            'a world that ends needs a rule: give rule="hopper" or another known one, or bounds=((place, least, most),)'
        )
    size = spaces.size(spec.observation)
    for row in rows:
        if not (len(row) == 3 and 0 <= row[0] < size and row[1] <= row[2]):
            raise BadInput(f"the bounds {row} of a world fit no observation of {size} numbers: give (place, least, most)")
    return Within(rows, spec.observation)


@dataclass(frozen=True)
class EndingEnsemble(DynamicsEnsemble):
    """A `DynamicsEnsemble` whose episodes end where an observed number leaves its bounds.

    `rule` names an environment whose bounds are known (hopper, walker2d, ant, humanoid, invertedpendulum, cartpole; also as a
    Gymnasium id such as "Hopper-v5"). `bounds` are your own, rows of (place in the flattened observation, least, most), and come
    beside those of the rule. Any other rule is a function from an observation to a Boolean: a shape of your own that passes it on as
    `DynamicsEnsemble.build(..., ends=)`.
    """

    rule: str = ""
    bounds: tuple[Bound, ...] = ()

    def build(
        self, spec: Spec, *, key: PRNGKeyArray, starts: Array | None = None, ends: Callable | None = None
    ) -> EnsembleWorld:
        """Fresh networks and the rule; `ends` takes its place. Raises `BadInput` where there is none or it does not fit."""
        return DynamicsEnsemble.build(self, spec, key=key, starts=starts, ends=ends or rule_of(spec, self.rule, self.bounds))


@dataclass(frozen=True)
class EndingSparse(SparseDynamics):
    """`SparseDynamics` whose episodes end by a rule, as in `EndingEnsemble`."""

    rule: str = ""
    bounds: tuple[Bound, ...] = ()

    def build(self, spec: Spec, *, key: PRNGKeyArray, starts: Array | None = None, ends: Callable | None = None) -> SparseWorld:
        """A world in which nothing changes, and the rule; `ends` takes its place. Raises `BadInput` as for an ensemble."""
        return SparseDynamics.build(self, spec, key=key, starts=starts, ends=ends or rule_of(spec, self.rule, self.bounds))
