"""What might be done at a leaf of a tree, and what it is worth: samples or listed choices of a policy; values, verdicts, rollouts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from policylab.environment import Environment
from policylab.planners.shooting import number
from policylab.planners.tree import Evaluate, Expand, Proposed, Reached, cost
from policylab.policies.answering import answer_window
from policylab.policies.language import LanguagePolicy
from policylab.policy import Policy
from policylab.scorer import Scorer


class Sampled(Expand):
    """`samples` actions of a policy without memory, drawn independently. With `distinct` an action that was drawn before at this leaf counts
    once; it was paid for all the same. `product` names the learned policy that takes the place of `policy` in a source."""

    policy: Policy
    samples: int = eqx.field(static=True, default=3)
    distinct: bool = eqx.field(static=True, default=True)
    product: str = eqx.field(static=True, default="explorer")

    @property
    def branch(self) -> int:
        """The samples."""
        return self.samples

    def using(self, products: Mapping[str, Any]) -> Sampled:
        """With the learned policy."""
        return dataclasses.replace(self, policy=products[self.product])

    def __call__(self, environment: Environment, state: PyTree, observation: PyTree, *, key: PRNGKeyArray) -> Proposed:
        """The samples; a language model reads the text before them once."""
        if isinstance(self.policy, LanguagePolicy):
            written = self.policy.act_many(observation, self.samples, key=key)
            action, log_prob = written.tokens, jnp.sum(written.log_probs, axis=-1)
        else:
            draw = lambda k: self.policy.sample(observation, self.policy.initial_memory(key=k), key=k)[:2]
            action, log_prob = jax.vmap(draw)(jax.random.split(key, self.samples))
        present = ~_repeated(action) if self.distinct else jnp.ones(self.samples, bool)
        return Proposed(action, log_prob, present, jnp.sum(jax.vmap(cost)(action)))


def _repeated(action: PyTree) -> Bool[Array, " child"]:
    """Which of several actions equals an earlier one."""
    alike = lambda leaf: jnp.all((leaf[:, None] == leaf).reshape(leaf.shape[0], leaf.shape[0], -1), axis=-1)
    same = jnp.all(jnp.stack([alike(leaf) for leaf in jax.tree.leaves(action)]), axis=0)
    return jnp.any(jnp.tril(same, k=-1), axis=1)


class Listed(Expand):
    """`choices` different choices among those the environment makes available: drawn without replacement by the policy's probabilities at
    `temperature` (Gumbel-top-k: Kool et al. 2019, arXiv 1903.06059), or its likeliest with a temperature of 0. As many choices as there
    are list them all."""

    policy: Policy
    temperature: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    choices: int = eqx.field(static=True, default=3)
    product: str = eqx.field(static=True, default="explorer")

    @property
    def branch(self) -> int:
        """The choices."""
        return self.choices

    def using(self, products: Mapping[str, Any]) -> Listed:
        """With the learned policy."""
        return dataclasses.replace(self, policy=products[self.product])

    def __call__(self, environment: Environment, state: PyTree, observation: PyTree, *, key: PRNGKeyArray) -> Proposed:
        """The choices, likeliest (with noise) first."""
        logits = self.policy.logits(answer_window(observation, jnp.zeros((), jnp.int32)))[0]
        available = environment.available(state)
        logits = jax.nn.log_softmax(logits if available is None else jnp.where(available, logits, -jnp.inf))
        noisy, chosen = jax.lax.top_k(logits + self.temperature * jax.random.gumbel(key, logits.shape), self.choices)
        present = noisy > -jnp.inf
        return Proposed(chosen.astype(jnp.int32), logits[chosen], present, jnp.sum(present).astype(jnp.float32))


class Nothing(Evaluate):
    """Every node is worth 0: for chains among which something else decides."""

    def __call__(
        self, environment: Environment, reached: Reached, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " child"], Float[Array, ""]]:
        """Zeros."""
        return jnp.zeros(reached.gain.shape), jnp.zeros(())


class Earned(Evaluate):
    """The rewards since the root: the environment's own judgement."""

    def __call__(
        self, environment: Environment, reached: Reached, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " child"], Float[Array, ""]]:
        """The gains."""
        return reached.gain, jnp.zeros(())


class Valued(Evaluate):
    """What a learned value says of the observation after a step; rewards are not looked at. `product` names the learned value that takes
    its place in a source."""

    value: Any
    product: str = eqx.field(static=True, default="value")

    def using(self, products: Mapping[str, Any]) -> Valued:
        """With the learned value."""
        return dataclasses.replace(self, value=products[self.product])

    def __call__(
        self, environment: Environment, reached: Reached, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " child"], Float[Array, ""]]:
        """One value per child."""
        return jax.vmap(self.value)(reached.observation), jnp.zeros(())


class Answered(Evaluate):
    """What a Scorer says of the answer as far as it is written, in an environment with an `answer` to a `prompt` (a `Draft`): a verifier or
    a judge of finished answers, and 0 for the others; with `unfinished` a process scorer of all."""

    scorer: Scorer
    unfinished: bool = eqx.field(static=True, default=False)

    def __call__(
        self, environment: Any, reached: Reached, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " child"], Float[Array, ""]]:
        """One score per child."""
        score = lambda state: self.scorer.score(environment.prompt_of(state), environment.answer(state))
        found = jax.vmap(score)(reached.state)
        return jnp.where(reached.terminal | self.unfinished, found, 0.0), jnp.zeros(())


class Simulated(Evaluate):
    r"""V <- (1 - mix) V + mix max(values on the way)   for the best child, from which the policy's mode goes on for at most `steps` steps

    (ReST-MCTS*'s greedy value rollout: Zhang et al. 2024, arXiv 2406.03816, whose mix is 0.5 and steps are 3). The steps are paid for.
    """

    evaluate: Evaluate
    policy: Policy
    mix: Float[Array, ""] = eqx.field(converter=number, default=0.5)
    steps: int = eqx.field(static=True, default=3)
    product: str = eqx.field(static=True, default="explorer")

    def using(self, products: Mapping[str, Any]) -> Simulated:
        """With what was learned."""
        return dataclasses.replace(self, evaluate=self.evaluate.using(products), policy=products[self.product])

    def __call__(
        self, environment: Environment, reached: Reached, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " child"], Float[Array, ""]]:
        """The values, the best one's mixed with what follows."""
        value, spent = self.evaluate(environment, reached, key=key)
        best = jnp.argmax(jnp.where(reached.present, value, -jnp.inf))
        start: Reached = jax.tree.map(lambda leaf: leaf[best][None], reached)
        first = jax.tree.map(lambda leaf: leaf[0], reached.state)
        greedy = None if environment.available(first) is None else Listed(self.policy, 0.0, choices=1)
        mode = self.policy.mode()

        def step(carry: tuple, time: Array) -> tuple[tuple, tuple]:
            at, alive = carry
            act, move, judge = jax.random.split(jax.random.fold_in(key, time), 3)
            one = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)
            state, observation = one((at.state, at.observation))
            if greedy is None:
                action = mode.act(observation, mode.initial_memory(key=act), key=act)[0]
            else:
                action = one(greedy(environment, state, observation, key=act).action)
            state, seen = environment.step(state, action, move)
            put = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tree)
            ended = seen.terminal | seen.truncated
            at = Reached(put(state), put(seen.observation), put(action), at.gain + seen.reward, ended[None], at.present)
            found, more = self.evaluate(environment, at, key=judge)
            paid = jnp.where(alive, cost(action) + more, 0.0)
            return (at, alive & ~ended), (jnp.where(alive, found[0], -jnp.inf), paid)

        begin = start.present[0] & ~start.terminal[0]
        _, (found, paid) = jax.lax.scan(step, (start, begin), jnp.arange(self.steps))
        mixed = (1.0 - self.mix) * value[best] + self.mix * jnp.max(found)
        return value.at[best].set(jnp.where(begin, mixed, value[best])), spent + jnp.sum(paid)
