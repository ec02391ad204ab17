"""Ratings: answers that were rated once, alone or in groups to one prompt, on the device, drawn uniformly inside the compiled loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from policylab.data.judged_texts import answers_of, prompts_of
from policylab.data.preferences import Judged
from policylab.errors import BadInput
from policylab.experience import Rated, Spec, Tokens
from policylab.learner import Request
from policylab.policies.answering import Answers
from policylab.sources.judged import Stored, drawn, taken


class Ratings(Stored):
    """Rows of (prompt, sample, reward per part, ends, weight, rater), padded to a power of two; `count` of them are valid. Where several
    answers to each prompt were rated, leaves but those of `prompt` have a group axis after the row axis."""

    prompt: PyTree[Array]
    sample: PyTree[Array]
    reward: Float[Array, "capacity *group part"]
    ends: Bool[Array, "capacity *group part"]
    weight: Float[Array, "capacity *group"]
    rater: Int[Array, "capacity *group"]

    @property
    def rewarded(self) -> bool:
        """Every answer has its rating."""
        return True

    @property
    def group(self) -> int:
        """Answers to each prompt."""
        return self.weight.shape[1] if self.weight.ndim == 2 else 1

    def refusal(self, name: str, request: Request) -> str:
        """They answer `Answers`, one by one or in the groups that they come in."""
        if not isinstance(request, Answers):
            kind = type(request).__name__
            return f"ratings hold rated answers, and {name!r} asks for {kind}: choose a learner of them, such as KTO"
        if request.group in (1, self.group):
            return ""
        asked = f"{name!r} asks for {request.group} answers to each prompt"
        return f"{asked} and these data have {self.group}: set the learner's group to that"

    def draw(self, request: Answers, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Rated:
        """A batch uniform over prompts, and over the answers of one where they are wanted one by one."""
        row_key, member_key = jax.random.split(key)
        rows: Any = drawn(request.count, self.count, key=row_key)
        prompt = taken(self.prompt, rows)
        if request.group == 1 and self.group > 1:
            rows = (rows, jax.random.randint(member_key, rows.shape, 0, self.group))
        each = (taken(getattr(self, name), rows) for name in ("sample", "reward", "ends", "weight", "rater"))
        return Rated(prompt, *each)

    @staticmethod
    def of(
        prompt: PyTree, sample: PyTree, reward: Any, *, spec: Spec, ends: Any = None, weight: Any = None, rater: Any = None
    ) -> Ratings:
        """Rated answers from arrays. `reward` is [row] or [row, group] for one number per answer, or has `ends` beside it and a last axis of
        parts. `weight` and `rater` (numbered; 0) are one per answer. Raises `BadInput` at columns of different lengths and at numbers that
        are not finite."""
        reward = np.asarray(reward, np.float64)
        if ends is None:
            reward, ends = reward[..., None], np.ones((*reward.shape, 1), bool)
        weight = np.ones(reward.shape[:-1]) if weight is None else np.asarray(weight, np.float64)
        rater = np.zeros(reward.shape[:-1], np.int32) if rater is None else np.asarray(rater, np.int32)
        columns = {
            "reward": reward,
            "sample": sample,
            "prompt": prompt,
            "ends": np.asarray(ends, bool),
            "weight": weight,
            "rater": rater,
        }
        return Ratings.stored(columns, spec=spec, what="answers")

    @staticmethod
    def of_rows(judged: Judged[Any], *, spec: Spec) -> Ratings:
        """Rated answers that `load_judged` has read, raters numbered in the order of their names. `spec` says what prompts and answers are; its
        tokenizer makes numbers of texts. Raises `BadInput` at another layout than ratings, and at the first row that does not fit."""
        if judged.layout != "ratings":
            raise BadInput(
                f"{judged.name} holds {judged.layout}, not ratings: choose a learner of {judged.layout}, such as DPO or BC"
            )
        columns = judged.columns()
        prompt, answer = prompts_of(columns["prompt"], spec), answers_of(columns["answer"], spec)
        rater = np.unique(np.asarray(columns["rater"], str), return_inverse=True)[1].astype(np.int32)
        reward = np.asarray(columns["rating"], np.float64)
        if isinstance(answer, Tokens):  # the rating of a text stands on its last token
            last = np.maximum(np.sum(np.asarray(answer.kind) == 2, axis=1) - 1, 0)
            ends = np.arange(answer.kind.shape[1]) == last[:, None]
            return Ratings.of(
                prompt, answer, ends * reward[:, None], spec=spec, ends=ends, weight=columns["weight"], rater=rater
            )
        return Ratings.of(prompt, answer, reward, spec=spec, weight=columns["weight"], rater=rater)
