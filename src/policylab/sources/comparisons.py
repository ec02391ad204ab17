"""Comparisons: two answers that the learner's policies give now to prompts, and which of them a Scorer prefers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Preference, Spec
from policylab.learner import Pairs, Request
from policylab.scorer import Scorer
from policylab.sources.judged import Stored, drawn, taken


class Comparisons(Stored):
    """Prompts, padded to a power of two, and who is asked: `first` and `second` name products of the learner (`explorer`, `reference`,
    `opponent` ...). By "preference" p is what `scorer.prefer` says (ties half), by "score" sigma of the difference of scores. With
    `sampled` the label is one draw of it, 0 or 1, as a person's vote is. A comparison from which the scorer abstains has weight 0."""

    prompt: PyTree[Array]
    scorer: Scorer
    first: str = eqx.field(static=True, default="explorer")
    second: str = eqx.field(static=True, default="explorer")
    by: str = eqx.field(static=True, default="preference")
    sampled: bool = eqx.field(static=True, default=False)

    @property
    def on_policy(self) -> bool:
        """Whether the explorer, as it is now, answers first."""
        return self.first == "explorer"

    def refusal(self, name: str, request: Request) -> str:
        """They answer `Pairs`."""
        if isinstance(request, Pairs):
            return ""
        kind = type(request).__name__
        return f"comparisons give pairs of answers, and {name!r} asks for {kind}: choose a learner of pairs"

    def draw(self, request: Request, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Preference:
        """A batch of prompts with two answers to each."""
        count = request.count
        prompt_key, *keys = jax.random.split(key, 5)
        prompt = taken(self.prompt, drawn(count, self.count, key=prompt_key))

        def answer(name: str, key: PRNGKeyArray) -> PyTree:
            policy = products[name]
            one = lambda o, k: policy.act(o, policy.initial_memory(key=k), key=k)[0]
            return jax.vmap(one)(prompt, jax.random.split(key, count))

        a, b = answer(self.first, keys[0]), answer(self.second, keys[1])
        if self.by == "score":
            p = jax.nn.sigmoid(jax.vmap(self.scorer.score)(prompt, a) - jax.vmap(self.scorer.score)(prompt, b))
            decided = jnp.ones(count)
        else:
            judge = lambda o, x, y, k: self.scorer.prefer(o, x, y, key=k)
            said = jax.vmap(judge)(prompt, a, b, jax.random.split(keys[2], count))
            decided = 1.0 - said[:, 3]
            p = (said[:, 0] + 0.5 * said[:, 1]) / jnp.maximum(decided, 1e-6)
        p = jax.random.bernoulli(keys[3], p).astype(jnp.float32) if self.sampled else p
        return Preference(prompt, a, b, p, decided)

    @staticmethod
    def of(prompt: PyTree, scorer: Scorer, *, spec: Spec, **options: Any) -> Comparisons:
        """Prompts from arrays [row, ...] and the fields `first`, `second`, `by` and `sampled`. Raises `BadInput` at prompts that are not
        finite, and at a way of judging that there is not."""
        if options.get("by", "preference") not in ("preference", "score"):
            raise BadInput(f"by is {options['by']!r}: choose preference or score")
        return Comparisons.stored({"prompt": prompt}, spec=spec, what="prompts", scorer=scorer, **options)
