"""Take-over: two policies share an episode; one acts, the other steps in by a rule and holds on for some steps."""

from __future__ import annotations

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from policylab.networks.optimisation import select
from policylab.policy import Policy
from policylab.scorer import Scorer


def _number(value: float | Array) -> Float[Array, ""]:
    return jnp.asarray(value, jnp.float32)


class Rule(eqx.Module):
    """When the expert takes over."""

    @abstractmethod
    def calls(self, observation: PyTree, proposed: PyTree, expert: PyTree, *, key: PRNGKeyArray) -> Bool[Array, ""]:
        """Whether the expert takes over here, given what the other wants to do and what the expert would do."""


class ByChance(Rule):
    """The expert takes over with probability `chance`, whatever happens."""

    chance: Float[Array, ""] = eqx.field(converter=_number, default=0.5)

    def calls(self, observation: PyTree, proposed: PyTree, expert: PyTree, *, key: PRNGKeyArray) -> Bool[Array, ""]:
        """A coin."""
        return jax.random.uniform(key) < self.chance


class ByValue(Rule):
    """The expert takes over where the proposed action is worth less than a reference action by more than `margin`, as `scorer` sees it:
    with probability `chance` there and with `otherwise` elsewhere (Luo et al. 2024, arXiv 2311.12996, section 4.1).

    The reference action is the expert's own, or that of `reference`, who judges but does not act. (The authors' script multiplies
    the reference value by a threshold instead, which only means the same for positive values.)
    """

    scorer: Scorer
    margin: Float[Array, ""] = eqx.field(converter=_number, default=0.0)
    chance: Float[Array, ""] = eqx.field(converter=_number, default=0.95)
    otherwise: Float[Array, ""] = eqx.field(converter=_number, default=0.05)
    reference: Policy | None = None

    def calls(self, observation: PyTree, proposed: PyTree, expert: PyTree, *, key: PRNGKeyArray) -> Bool[Array, ""]:
        """A coin that depends on the difference of the two values."""
        coin, act = jax.random.split(key)
        if self.reference is not None:
            expert, _ = self.reference.act(observation, self.reference.initial_memory(key=act), key=act)
        worse = self.scorer.score(observation, proposed) < self.scorer.score(observation, expert) - self.margin
        return jax.random.uniform(coin) < jnp.where(worse, self.chance, self.otherwise)


class Shared(eqx.Module):
    """What a shared episode remembers: both memories, how many steps the expert still holds on, who acted last, and what the expert
    did or would have done."""

    learner: PyTree[Array]
    expert: PyTree[Array]
    left: Int[Array, ""]
    intervened: Bool[Array, ""]
    advice: PyTree[Array]


class TakeOver(Policy):
    """`learner` acts; where `rule` calls, `expert` acts for `hold` steps. Then the learner does what it wants for a step at least, before
    the rule is asked again (as in the authors' script of RLIF): so that whoever is taken over all the time is heard, too.

    The memory is a `Shared`. Both are asked at every step, so that the memory of each follows the episode.
    It has no other mode.
    """

    learner: Policy
    expert: Policy
    rule: Rule
    nothing: PyTree[Array]  # an action of zeros, which stands in the memory before the first step
    hold: int = eqx.field(static=True, default=4)

    def initial_memory(self, *, key: PRNGKeyArray) -> Shared:
        """Nobody has acted yet."""
        mine, theirs = jax.random.split(key)
        memories = self.learner.initial_memory(key=mine), self.expert.initial_memory(key=theirs)
        return Shared(*memories, jnp.zeros((), jnp.int32), jnp.zeros((), bool), self.nothing)

    def act(self, observation: PyTree, memory: Shared, *, key: PRNGKeyArray) -> tuple[PyTree, Shared]:
        """What is done, by whoever acts."""
        mine, theirs, coin = jax.random.split(key, 3)
        proposed, learner = self.learner.act(observation, memory.learner, key=mine)
        advice, expert = self.expert.act(observation, memory.expert, key=theirs)
        called = ~memory.intervened & self.rule.calls(observation, proposed, advice, key=coin)
        left = jnp.where(called, self.hold, memory.left)
        intervened = left > 0
        advice = jax.tree.map(lambda new, old: new.astype(old.dtype), advice, self.nothing)
        after = Shared(learner, expert, jnp.maximum(left - 1, 0), intervened, advice)
        return select(intervened, advice, proposed), after
