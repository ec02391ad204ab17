"""Draft: where one thinks before one answers: pieces of an answer are added to a prompt, and nobody replies."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from policylab import spaces
from policylab.environment import Environment, Step
from policylab.errors import BadInput
from policylab.experience import Spec, Tokens
from policylab.policies.generation import finished, joined
from policylab.policies.language import is_text, text_spec
from policylab.tokenizer import Tokenizer


class Drafted(eqx.Module):
    """A prompt, and what of the answer is written."""

    prompt: Tokens
    written: Tokens


class Draft(Environment):
    """Answers of at most `answer` tokens, written in pieces of at most `piece`; the observation is the prompt and what is written.

    It goes on `at` any text: what the policy wrote at its very end is the answer so far, the rest the prompt. A step is terminal when the
    piece holds an end token or is empty, or the answer is full (what a last piece holds beyond that is left out). There are no rewards:
    a Scorer judges (`planners.expansion.Answered`). It shows what the environment of `of` shows at the grain "step".
    """

    prompt: int = eqx.field(static=True)
    answer_length: int = eqx.field(static=True)
    piece: int = eqx.field(static=True)
    tokenizer: str = eqx.field(static=True)

    @staticmethod
    def of(spec: Spec, *, longest: int) -> Draft:
        """For the prompts and answers of `spec` (of whole answers), in steps of at most `longest` tokens. Raises `BadInput` unless these are
        texts."""
        if not is_text(spec):
            raise BadInput(f"a draft is of texts, and these actions are {spaces.describe(spec.action)}: use a spec of texts")
        return Draft(spaces.size(spec.observation), spaces.size(spec.action), longest, spec.tokenizer)

    @property
    def spec(self) -> Spec:
        """Texts of prompt and answer; actions of one piece."""
        room = self.prompt + self.answer_length
        return text_spec(Tokenizer.of(self.tokenizer), prompt=room, answer=self.piece, horizon=self.answer_length)

    def reset(self, key: PRNGKeyArray) -> tuple[Drafted, Tokens]:
        """An empty prompt."""
        state = Drafted(self._empty(self.prompt), self._empty(self.answer_length))
        return state, self.shown(state)

    def at(self, observation: Tokens) -> Drafted:
        """The draft that shows this text, of any length; its prompt has at most `prompt` tokens."""
        length = observation.kind.shape[-1]
        place, count = jnp.arange(length), jnp.sum(observation.kind > 0)
        given = jnp.where((place < count) & (observation.kind != 2), place + 1, 0).max()  # where the last run of 2s begins

        def cut(start: Int[Array, ""] | int, end: Int[Array, ""], room: int) -> Tokens:
            source = start + jnp.arange(room)
            there, source = source < end, jnp.minimum(source, length - 1)
            ids, kind = observation.ids[source], observation.kind[source]
            return Tokens(jnp.where(there, ids, self._pad), jnp.where(there, kind, 0))

        return Drafted(cut(0, given, self.prompt), cut(given, count, self.answer_length))

    def step(self, state: Drafted, action: Tokens, key: PRNGKeyArray) -> tuple[Drafted, Step]:
        """The piece is added to what is written. The key is not used."""
        written = jax.tree.map(lambda leaf: leaf[: self.answer_length], joined(state.written, action))
        full = jnp.sum(written.kind > 0) >= self.answer_length
        over = finished(action, Tokenizer.of(self.tokenizer).end) | (jnp.sum(action.kind == 2) == 0) | full
        state = Drafted(state.prompt, written)
        return state, Step(self.shown(state), jnp.zeros(()), over, jnp.asarray(False))

    def answer(self, state: Drafted) -> Tokens:
        """What is written."""
        return state.written

    def prompt_of(self, state: Drafted) -> Tokens:
        """What it answers."""
        return state.prompt

    @property
    def _pad(self) -> int:
        return Tokenizer.of(self.tokenizer).pad

    def _empty(self, length: int) -> Tokens:
        return Tokens(jnp.full(length, self._pad, jnp.int32), jnp.zeros(length, jnp.int32))

    def shown(self, state: Drafted) -> Tokens:
        """Prompt and what is written, always in as much room."""
        return joined(state.prompt, state.written)
