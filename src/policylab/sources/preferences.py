"""Preferences: pairs of answers that were compared once, on the device, drawn uniformly inside the compiled loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab.data.judged_texts import answers_of, prompts_of
from policylab.data.preferences import Judged
from policylab.errors import BadInput
from policylab.experience import Preference, Spec
from policylab.learner import Everything, Pairs, Request
from policylab.sources.judged import Stored, drawn, taken


class Preferences(Stored):
    """Rows of (observation, a, b, p, weight), padded to a power of two; `count` of them are valid."""

    observation: PyTree[Array]
    a: PyTree[Array]
    b: PyTree[Array]
    p: Float[Array, " capacity"]
    weight: Float[Array, " capacity"]

    def refusal(self, name: str, request: Request) -> str:
        """They answer `Pairs`, or `Everything`."""
        if isinstance(request, Pairs | Everything):
            return ""
        kind = type(request).__name__
        return f"preferences hold pairs of answers, and {name!r} asks for {kind}: choose a learner of pairs, such as DPO"

    def draw(self, request: Request, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Preference:
        """A batch of pairs; of `Everything` all of them, padding with weight 0."""
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
        columns = {"a": a, "b": b, "observation": observation, "p": p, "weight": weight}
        source = Preferences.stored(columns, spec=spec, what="pairs")
        if not ((p >= 0.0) & (p <= 1.0)).all():
            row = int(np.argmax((p < 0.0) | (p > 1.0)))
            raise BadInput(f"p of row {row} is {p[row]:g}: give the probability that a is the better one, in [0, 1]")
        if (weight < 0.0).any():
            row = int(np.argmax(weight < 0.0))
            raise BadInput(f"the weight of row {row} is {weight[row]:g}: give weights of at least 0")
        return source

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
