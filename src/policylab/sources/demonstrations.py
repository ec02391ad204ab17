"""Demonstrations: answers to be imitated as they stand, each a decision of its own; what supervised fine-tuning of texts learns from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.data.judged_texts import answers_of, prompts_of
from policylab.data.preferences import Judged
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.learner import Request, Steps
from policylab.sources.judged import Stored, drawn, taken


class Demonstrations(Stored):
    """Rows of (prompt, answer, weight), padded to a power of two; `count` of them are valid. A row is a transition that ends its episode,
    without a reward, so that `BC(policy=Language())` is supervised fine-tuning."""

    prompt: PyTree[Array]
    answer: PyTree[Array]
    weight: Float[Array, " capacity"]

    def refusal(self, name: str, request: Request) -> str:
        """They answer plain `Steps`."""
        if isinstance(request, Steps) and not request.fields and request.goals is None and request.best >= 1.0:
            return ""
        return (
            f"demonstrations are single answers without anything beside them, and {name!r} asks for more: choose a learner of "
            "plain steps, such as BC"
        )

    def draw(self, request: Request, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Window:
        """A batch of transitions that end their episodes."""
        count = request.count
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
        return Demonstrations.stored(columns, spec=spec, what="demonstrations")

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
