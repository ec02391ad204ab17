"""Preferences: pairs of answers that were compared once, on the device, drawn uniformly inside the compiled loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab.data.judged_texts import answers_of, prompts_of
from policylab.data.preferences import Judged
from policylab.errors import BadInput
from policylab.experience import Preference, Spec
from policylab.learner import Clock, Everything, Pairs, Request
from policylab.source import Source
from policylab.sources.judged import drawn, padded, require_rows, taken


class Preferences(Source):
    """Rows of (observation, a, b, p, weight), padded to a power of two; `count` of them are valid."""

    observation: PyTree[Array]
    a: PyTree[Array]
    b: PyTree[Array]
    p: Float[Array, " capacity"]
    weight: Float[Array, " capacity"]
    count: Int[Array, ""]
    specification: Spec
    needs: tuple[tuple[str, Request], ...] = eqx.field(static=True, default=())

    @property
    def spec(self) -> Spec:
        """What the observations and answers are."""
        return self.specification

    @property
    def rewarded(self) -> bool:
        """Preferences hold no rewards."""
        return False

    def serve(self, needs: Mapping[str, Request]) -> Preferences:
        """These pairs, ready to answer `needs`: `Pairs`, or `Everything`."""
        for name, request in needs.items():
            if not isinstance(request, Pairs | Everything):
                raise BadInput(
                    f"preferences hold pairs of answers, and {name!r} asks for {type(request).__name__}: choose a learner of pairs, "
                    "such as DPO"
                )
        return replace(self, needs=tuple(needs.items()))

    def next(self, state: PyTree, products: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray) -> tuple[PyTree, Any]:
        """One batch of pairs per request, uniform with replacement; of `Everything` all pairs, padding with weight 0."""
        keys = jax.random.split(key, len(self.needs))
        batches = {name: self._draw(request, k) for (name, request), k in zip(self.needs, keys, strict=True)}
        return state, batches[self.needs[0][0]] if len(batches) == 1 else batches

    def _draw(self, request: Request, key: PRNGKeyArray) -> Preference:
        if isinstance(request, Everything):
            return Preference(self.observation, self.a, self.b, self.p, self.weight)
        return self.rows(drawn(request.count, self.count, key=key))

    def rows(self, rows: Int[Array, " row"]) -> Preference:
        """These pairs."""
        return Preference(*(taken(getattr(self, name), rows) for name in ("observation", "a", "b", "p", "weight")))

    @staticmethod
    def of(observation: PyTree, a: PyTree, b: PyTree, p: Any = None, *, spec: Spec, weight: Any = None) -> Preferences:
        """Pairs from arrays [row, ...]; `p` is the probability that `a` is the better one (1 where it isn't given), `weight` the share of
        a row in losses (1). Raises `BadInput` at columns of different lengths, numbers that are not finite, or a p outside [0, 1]."""
        rows = len(np.asarray(jax.tree.leaves(a)[0]))
        p = np.ones(rows) if p is None else np.asarray(p, np.float64)
        weight = np.ones(rows) if weight is None else np.asarray(weight, np.float64)
        rows = require_rows({"a": a, "b": b, "observation": observation, "p": p, "weight": weight}, what="pairs")
        if not ((p >= 0.0) & (p <= 1.0)).all():
            row = int(np.argmax((p < 0.0) | (p > 1.0)))
            raise BadInput(f"p of row {row} is {p[row]:g}: give the probability that a is the better one, in [0, 1]")
        if (weight < 0.0).any():
            row = int(np.argmax(weight < 0.0))
            raise BadInput(f"the weight of row {row} is {weight[row]:g}: give weights of at least 0")
        columns = {"observation": observation, "a": a, "b": b, "p": p, "weight": weight}
        shaped: dict[str, Any] = {name: padded(column, rows) for name, column in columns.items()}
        return Preferences(**shaped, count=jnp.asarray(rows, jnp.int32), specification=spec)

    @staticmethod
    def of_rows(judged: Judged[Any], *, spec: Spec) -> Preferences:
        """Pairs that `load_judged` has read. `spec` says what prompts and answers are; its tokenizer makes numbers of texts. Raises `BadInput`
        at another layout than pairs, and at the first row that does not fit."""
        if judged.layout != "pairs":
            raise BadInput(
                f"{judged.name} holds {judged.layout}, not pairs: choose a learner of {judged.layout}, such as KTO or BC"
            )
        columns = judged.columns()
        prompt, a, b = prompts_of(columns["prompt"], spec), answers_of(columns["a"], spec), answers_of(columns["b"], spec)
        return Preferences.of(prompt, a, b, columns["p"], spec=spec, weight=columns["weight"])
