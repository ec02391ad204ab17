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
    def calls(self, observation: PyTree, action: PyTree, expert: PyTree, *, key: PRNGKeyArray) -> Bool[Array, ""]:
        """Whether the expert takes over here, given an action of the learner's and what the expert would do in its place."""


class ByChance(Rule):
    """The expert takes over with probability `chance`, whatever happens."""

    chance: Float[Array, ""] = eqx.field(converter=_number, default=0.5)

    def calls(self, observation: PyTree, action: PyTree, expert: PyTree, *, key: PRNGKeyArray) -> Bool[Array, ""]:
        """A coin."""
        return jax.random.uniform(key) < self.chance


class ByValue(Rule):
    """The expert takes over where the learner's action is worth less than a reference action by more than `margin`, as `scorer` sees it:
    with probability `chance` there and with `otherwise` elsewhere (Luo et al. 2024, arXiv 2311.12996, section 4.1).

    The reference action is the expert's own, or that of `reference`, who judges but does not act. (The authors' script multiplies
    the reference value by a threshold instead, which only means the same for positive values.)
    """

    scorer: Scorer
    margin: Float[Array, ""] = eqx.field(converter=_number, default=0.0)
    chance: Float[Array, ""] = eqx.field(converter=_number, default=0.95)
    otherwise: Float[Array, ""] = eqx.field(converter=_number, default=0.05)
    reference: Policy | None = None

    def calls(self, observation: PyTree, action: PyTree, expert: PyTree, *, key: PRNGKeyArray) -> Bool[Array, ""]:
        """A coin that depends on the difference of the two values."""
        coin, act = jax.random.split(key)
        if self.reference is not None:
            expert, _ = self.reference.act(observation, self.reference.initial_memory(key=act), key=act)
        worse = self.scorer.score(observation, action) < self.scorer.score(observation, expert) - self.margin
        return jax.random.uniform(coin) < jnp.where(worse, self.chance, self.otherwise)


class Shared(eqx.Module):
    """What a shared episode remembers: both memories, for how many steps the expert still holds on, who acted last, and of the last step
    what was seen, what was done and what the expert did or would have done; `begun` is False before the first one."""

    learner: PyTree[Array]
    expert: PyTree[Array]
    left: Int[Array, ""]
    intervened: Bool[Array, ""]
    begun: Bool[Array, ""]
    observation: PyTree[Array]
    action: PyTree[Array]
    advice: PyTree[Array]


class TakeOver(Policy):
    """`learner` acts; where `rule` calls, `expert` acts for `hold` steps. Then the learner does what it wants for a step at least, before
    the rule is asked again (as in the authors' script of RLIF): so that whoever is taken over all the time is heard, too.

    What the rule judges is the learner's last deed, as a person does who watches (`watching`), or else what it is about to do, which is
    then not done. Both policies are asked at every step, so that the memory of each follows the episode. It has no other mode.
    """

    learner: Policy
    expert: Policy
    rule: Rule
    blank: tuple[
        PyTree[Array], PyTree[Array]
    ]  # an observation and an action of zeros, which stand in the memory before the first step
    hold: int = eqx.field(static=True, default=4)
    watching: bool = eqx.field(static=True, default=True)

    def initial_memory(self, *, key: PRNGKeyArray) -> Shared:
        """Nobody has acted yet."""
        mine, theirs = jax.random.split(key)
        no, (observation, action) = jnp.zeros((), bool), self.blank
        memories = self.learner.initial_memory(key=mine), self.expert.initial_memory(key=theirs)
        return Shared(*memories, jnp.zeros((), jnp.int32), no, no, observation, action, action)

    def act(self, observation: PyTree, memory: Shared, *, key: PRNGKeyArray) -> tuple[PyTree, Shared]:
        """What is done, by whoever acts."""
        mine, theirs, coin = jax.random.split(key, 3)
        proposed, learner = self.learner.act(observation, memory.learner, key=mine)
        advice, expert = self.expert.act(observation, memory.expert, key=theirs)
        advice = jax.tree.map(lambda new, old: new.astype(old.dtype), advice, self.blank[1])
        if self.watching:
            called = memory.begun & self.rule.calls(memory.observation, memory.action, memory.advice, key=coin)
        else:
            called = self.rule.calls(observation, proposed, advice, key=coin)
        left = jnp.where(called & ~memory.intervened, self.hold, memory.left)
        action = select(left > 0, advice, proposed)
        yes = jnp.ones((), bool)
        return action, Shared(learner, expert, jnp.maximum(left - 1, 0), left > 0, yes, observation, action, advice)
