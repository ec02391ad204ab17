"""Diagnostics of aligned language models on rows that were held out, and what they write to held-out prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from policylab.data.judged_texts import answers_of, prompt_text, prompts_of
from policylab.data.preferences import Judged
from policylab.errors import BadInput
from policylab.evaluation.statistics import interval
from policylab.evidence.alignment import threshold
from policylab.experience import Spec
from policylab.policies.answering import answer_log_probs
from policylab.policies.language import LanguagePolicy
from policylab.policies.writing import generate
from policylab.tokenizer import Tokenizer

_ROWS = 16  # texts of which log-probabilities are taken at once


@dataclass(frozen=True)
class Agreement:
    """A diagnostic on held-out rows: its value, its interval, over how much, and what it is."""

    value: float
    interval: tuple[float, float] | None
    units: str
    what: str

    @staticmethod
    def of(document: Mapping[str, Any]) -> Agreement:
        """From its fields as JSON keeps them."""
        ends = document["interval"]
        return Agreement(document["value"], None if ends is None else (ends[0], ends[1]), document["units"], document["what"])


def log_prob(policy: LanguagePolicy, spec: Spec, prompts: Sequence[Any], answers: Sequence[Any]) -> Float[np.ndarray, " row"]:
    """log pi(answer | prompt) of every row, in nats. Raises `BadInput` where it is not finite."""
    given = prompts_of(prompts, spec), answers_of(answers, spec)
    rows, found = len(prompts), []
    for first in range(0, rows, _ROWS):
        take = np.minimum(np.arange(first, first + _ROWS), rows - 1)  # the last piece repeats its last row: one shape for all
        part: PyTree = jax.tree.map(lambda leaf, take=take: leaf[take], given)
        found.append(np.asarray(_log_prob(policy, *part), np.float64))
    values = np.concatenate(found)[:rows]
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise BadInput(
            f"the model's log-probability of held-out answer {row + 1} is not finite: its weights are damaged, load another"
        )
    return values


@jax.jit
def _log_prob(policy: LanguagePolicy, prompt: Any, answer: Any) -> Array:
    return jnp.sum(answer_log_probs(policy, prompt, answer), axis=-1)


def rows_of(judged: Judged[Any]) -> tuple[list[Any], list[Any]]:
    """(prompts, answers) that log-probabilities are wanted of: of pairs all a, then all b; of chats every message of the assistant."""
    if judged.layout == "pairs":
        return [row.prompt for row in judged.rows] * 2, [row.a for row in judged.rows] + [row.b for row in judged.rows]
    if judged.layout == "ratings":
        return [row.prompt for row in judged.rows], [row.answer for row in judged.rows]
    found = [
        (r.messages[:i], r.messages[i : i + 1])
        for r in judged.rows
        for i, m in enumerate(r.messages)
        if i and m["role"] == "assistant"
    ]
    return [one[0] for one in found], [one[1] for one in found]


def agreement(judged: Judged[Any], log_probs: np.ndarray, start: np.ndarray | None) -> Agreement:
    """How well a model's log-probabilities of held-out answers, less the starting model's (None: not), order them as they were judged.

    Pairs: the share in which the labelled answer gains more, ties half; undecided pairs (p = 1/2) are left out. Ratings: the chance that a
    good answer gains more than a bad one (the area under the ROC curve, its interval by DeLong et al. 1988). Chats: nats per answer.
    """
    gain = log_probs if start is None else log_probs - start
    if judged.layout == "chats":
        what = "log-likelihood per answer (nats)" + ("" if start is None else ", more than the start's")
        return Agreement(float(gain.mean()), _interval(gain), f"{len(gain)} answers", what)
    if judged.layout == "pairs":
        half = len(gain) // 2
        p = np.asarray([row.p for row in judged.rows])
        right = 0.5 + 0.5 * np.sign(gain[:half] - gain[half:]) * np.sign(p - 0.5)
        right = right[p != 0.5]
        if not len(right):
            return Agreement(float("nan"), None, "0 pairs", "preference accuracy")
        return Agreement(float(right.mean()), _interval(right), f"{len(right)} pairs", "preference accuracy")
    good = np.asarray([row.rating for row in judged.rows]) > threshold(judged)
    return _area(gain[good], gain[~good])


def _interval(values: np.ndarray) -> tuple[float, float] | None:
    if len(values) < 2:
        return None
    found = interval(values)
    return found.low, found.high


def _area(good: np.ndarray, bad: np.ndarray) -> Agreement:
    what, units = "chance that a good answer gains more than a bad one", f"{len(good)} good, {len(bad)} bad"
    if not len(good) or not len(bad):
        return Agreement(float("nan"), None, units, what)
    above = 0.5 + 0.5 * np.sign(good[:, None] - bad[None, :])
    value = float(above.mean())
    if min(len(good), len(bad)) < 2:
        return Agreement(value, None, units, what)
    spread = np.sqrt(above.mean(1).var(ddof=1) / len(good) + above.mean(0).var(ddof=1) / len(bad))
    return Agreement(value, (max(0.0, value - 1.96 * spread), min(1.0, value + 1.96 * spread)), units, what)


def held_prompts(judged: Judged[Any], most: int) -> list[Any]:
    """Different prompts of these rows, in order, at most so many."""
    prompts = [row.prompt for row in judged.rows]
    return list({repr(prompt): prompt for prompt in prompts}.values())[:most]


def written(policy: LanguagePolicy, prompts: Sequence[Any], *, seed: int) -> list[str]:
    """One answer to each prompt."""
    tokenizer = Tokenizer.of(policy.tokenizer)
    texts = [prompt_text(prompt, tokenizer, number) for number, prompt in enumerate(prompts, start=1)]
    return [replies[0].text for replies in generate(policy, texts, seed=seed)]


def plain(prompt: Any) -> str:
    """A prompt as a judge reads it."""
    if isinstance(prompt, str):
        return prompt
    said = [message for message in prompt if isinstance(message, dict)]
    return said[0]["content"] if len(said) == 1 else "\n\n".join(f"{m['role']}: {m['content']}" for m in said)
