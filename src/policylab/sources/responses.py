"""Responses: a group of answers that the learner's policy gives now to each prompt, rated by a Scorer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Rated, Spec
from policylab.learner import Request
from policylab.policies.answering import Answers
from policylab.policies.language import LanguagePolicy
from policylab.policy import Policy
from policylab.scorer import Scorer
from policylab.sources.judged import Stored, drawn, taken


class Responses(Stored):
    """Prompts, padded to a power of two. `sampler` names the product of the learner that answers (the explorer, or another one).

    The reward of an answer is by "score" what the scorer says of each part of it, by "win_rate" the mean probability (`scorer.prefer`, ties
    half) that it beats the other answers of its group.
    """

    prompt: PyTree[Array]
    scorer: Scorer
    sampler: str = eqx.field(static=True, default="explorer")
    by: str = eqx.field(static=True, default="score")

    @property
    def rewarded(self) -> bool:
        """Every answer has its reward."""
        return True

    @property
    def on_policy(self) -> bool:
        """Whether the explorer, as it is now, answers."""
        return self.sampler == "explorer"

    def refusal(self, name: str, request: Request) -> str:
        """They answer `Answers`; win rates need two to each prompt."""
        if not isinstance(request, Answers):
            return f"responses are rated answers, and {name!r} asks for {type(request).__name__}: choose a learner of them"
        if self.by == "win_rate" and request.group < 2:
            asked = f"{name!r} asks for one answer to each prompt and win rates need two"
            return f"{asked}: set the learner's group to 2 or more"
        return ""

    def draw(self, request: Answers, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Rated:
        """A batch of prompts with a group of rated answers to each."""
        count, group = request.count, request.group
        prompt_key, answer_key, judge_key = jax.random.split(key, 3)
        prompt = taken(self.prompt, drawn(count, self.count, key=prompt_key))
        many = jax.tree.map(lambda leaf: jnp.repeat(leaf, group, axis=0), prompt)
        grouped = self._answers(products[self.sampler], prompt, many, group, answer_key)
        flat = jax.tree.map(lambda leaf: leaf.reshape(count * group, *leaf.shape[2:]), grouped)
        if self.by == "win_rate":
            rates = jax.vmap(self._win_rates)(prompt, grouped, jax.random.split(judge_key, count))
            reward = rates[..., None]
        else:
            reward = jax.vmap(self.scorer.scores)(many, flat).reshape(count, group, -1)
        sample = flat if group == 1 else grouped
        reward = reward[:, 0] if group == 1 else reward
        ends = jnp.zeros(reward.shape, bool).at[..., -1].set(True)
        shape = reward.shape[:-1]
        return Rated(prompt, sample, reward, ends, jnp.ones(shape), jnp.zeros(shape, jnp.int32))

    def _answers(self, policy: Policy, prompt: PyTree, many: PyTree, group: int, key: PRNGKeyArray) -> PyTree:
        count = jax.tree.leaves(prompt)[0].shape[0]
        if isinstance(policy, LanguagePolicy):  # reads every prompt once
            return jax.vmap(lambda o, k: policy.act_many(o, group, key=k).tokens)(prompt, jax.random.split(key, count))
        one = lambda o, k: policy.act(o, policy.initial_memory(key=k), key=k)[0]
        flat = jax.vmap(one)(many, jax.random.split(key, count * group))
        return jax.tree.map(lambda leaf: leaf.reshape(count, group, *leaf.shape[1:]), flat)

    def _win_rates(self, prompt: PyTree, answers: PyTree, key: PRNGKeyArray) -> Float[Array, " group"]:
        size = jax.tree.leaves(answers)[0].shape[0]
        keys = jax.random.split(key, size * size).reshape(size, size)

        def beats(a: PyTree, b: PyTree, k: PRNGKeyArray) -> Array:
            said = self.scorer.prefer(prompt, a, b, key=k)
            return (said[0] + 0.5 * said[1]) / jnp.maximum(1.0 - said[3], 1e-6)

        table = jax.vmap(lambda a, row: jax.vmap(lambda b, k: beats(a, b, k))(answers, row))(answers, keys)
        return jnp.sum(jnp.where(jnp.eye(size, dtype=bool), 0.0, table), axis=1) / (size - 1)

    @staticmethod
    def of(prompt: PyTree, scorer: Scorer, *, spec: Spec, sampler: str = "explorer", by: str = "score") -> Responses:
        """Prompts from arrays [row, ...]. Raises `BadInput` at prompts that are not finite, and at a way of judging that there is not."""
        if by not in ("score", "win_rate"):
            raise BadInput(f"by is {by!r}: choose score or win_rate")
        return Responses.stored({"prompt": prompt}, spec=spec, what="prompts", scorer=scorer, sampler=sampler, by=by)
