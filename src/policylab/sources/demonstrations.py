"""Demonstrations: answers to be imitated as they stand, each a decision of its own; what supervised fine-tuning of texts learns from."""

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
from policylab.experience import Spec, Window
from policylab.learner import Clock, Request, Steps
from policylab.source import Source
from policylab.sources.judged import drawn, padded, require_rows, taken


class Demonstrations(Source):
    """Rows of (prompt, answer, weight), padded to a power of two; `count` of them are valid. A row is a transition that ends its episode,
    without a reward, so that `BC(policy=Language())` is supervised fine-tuning."""

    prompt: PyTree[Array]
    answer: PyTree[Array]
    weight: Float[Array, " capacity"]
    count: Int[Array, ""]
    specification: Spec
    needs: tuple[tuple[str, Request], ...] = eqx.field(static=True, default=())

    @property
    def spec(self) -> Spec:
        """What the prompts and answers are."""
        return self.specification

    @property
    def rewarded(self) -> bool:
        """Demonstrations hold no rewards."""
        return False

    def serve(self, needs: Mapping[str, Request]) -> Demonstrations:
        """These rows, ready to answer `needs`: plain `Steps`."""
        for name, request in needs.items():
            if not isinstance(request, Steps) or request.fields or request.goals is not None or request.best < 1.0:
                raise BadInput(
                    f"demonstrations are single answers without anything beside them, and {name!r} asks for more: choose a learner of "
                    "plain steps, such as BC"
                )
        return replace(self, needs=tuple(needs.items()))

    def next(self, state: PyTree, products: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray) -> tuple[PyTree, Any]:
        """One batch of transitions per request, uniform with replacement."""
        keys = jax.random.split(key, len(self.needs))
        batches = {name: self._draw(request.count, k) for (name, request), k in zip(self.needs, keys, strict=True)}
        return state, batches[self.needs[0][0]] if len(batches) == 1 else batches

    def _draw(self, count: int, key: PRNGKeyArray) -> Window:
        rows = drawn(count, self.count, key=key)
        prompt = taken(self.prompt, rows)
        return Window(
            observation=prompt,
            action=taken(self.answer, rows),
            reward=jnp.zeros(count),
            next_observation=prompt,
            terminal=jnp.ones(count, bool),
            truncated=jnp.zeros(count, bool),
            valid=jnp.ones(count, bool),
            duration=jnp.ones(count, jnp.int32),
            extra={"weight": self.weight[rows]},
        )

    @staticmethod
    def of(prompt: PyTree, answer: PyTree, *, spec: Spec, weight: Any = None) -> Demonstrations:
        """Demonstrations from arrays [row, ...]. Raises `BadInput` at columns of different lengths and at numbers that are not finite."""
        rows = len(np.asarray(jax.tree.leaves(answer)[0]))
        weight = np.ones(rows) if weight is None else np.asarray(weight, np.float64)
        columns = {"answer": answer, "prompt": prompt, "weight": weight}
        rows = require_rows(columns, what="demonstrations")
        shaped: dict[str, Any] = {name: padded(column, rows) for name, column in columns.items()}
        return Demonstrations(**shaped, count=jnp.asarray(rows, jnp.int32), specification=spec)

    @staticmethod
    def of_rows(judged: Judged[Any], *, spec: Spec) -> Demonstrations:
        """Chats that `load_judged` has read: every message of the assistant is a row, what comes before it its prompt. Of pairs the better answer
        (`a` where p is at least a half). Raises `BadInput` at ratings, and at the first row that does not fit the spec."""
        if judged.layout == "pairs":
            found = [(row.prompt, row.a if row.p >= 0.5 else row.b, row.weight) for row in judged.rows]
        elif judged.layout == "chats":
            found = [
                (row.messages[:i], row.messages[i : i + 1], row.weight)
                for row in judged.rows
                for i, message in enumerate(row.messages)
                if message["role"] == "assistant" and i > 0
            ]
        else:
            raise BadInput(f"{judged.name} holds ratings: keep the good answers and give them as chats, or choose KTO")
        if not found:
            raise BadInput(f"{judged.name} has no message of the assistant that answers another: there is nothing to imitate")
        prompts, answers, weight = zip(*found, strict=True)
        return Demonstrations.of(prompts_of(prompts, spec), answers_of(answers, spec), spec=spec, weight=weight)
