"""Grains of language: whether one action of an environment of texts is a token, a step of reasoning, or a whole answer."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from policylab import spaces
from policylab.environment import Environment, Step
from policylab.errors import BadInput
from policylab.experience import Spec, Tokens
from policylab.policies.generation import finished, joined
from policylab.policies.language import is_text, text_spec
from policylab.tokenizer import Tokenizer


class Unfinished(eqx.Module):
    """The state of `Pieces`: that of the environment, what it shows, and what of the answer is written."""

    state: PyTree
    prompt: Tokens
    written: Tokens


class Pieces(Environment):
    """An environment whose action is a piece of an answer of at most `piece` tokens; the observation is the prompt and what is written.

    The answer is given to the environment, and its reward comes, when a piece holds an end token or is empty, or the longest answer is
    full (what a last piece holds beyond that is left out); until then the reward is 0. (Where many episodes run side by side, the
    environment is asked at every piece, and its reply used where an answer is complete.)
    """

    environment: Environment
    piece: int = eqx.field(static=True)
    end: tuple[int, ...] = eqx.field(static=True)
    pad: int = eqx.field(static=True)

    @property
    def spec(self) -> Spec:
        """Texts of prompt and answer; actions of one piece. The horizon is counted in pieces."""
        inner = self.environment.spec
        prompt, answer = spaces.size(inner.observation), spaces.size(inner.action)
        return text_spec(
            Tokenizer.of(inner.tokenizer), prompt=prompt + answer, answer=self.piece, roles=inner.roles,
            horizon=inner.horizon * answer, environment=inner.environment, reward_shape=inner.reward_shape,
        )  # fmt: skip

    def reset(self, key: PRNGKeyArray) -> tuple[Unfinished, Tokens]:
        """A fresh prompt, nothing written."""
        return self._begun(*self.environment.reset(key))

    def step(self, state: Unfinished, action: Tokens, key: PRNGKeyArray) -> tuple[Unfinished, Step]:
        """The piece is added to what is written."""
        length = state.written.ids.shape[-1]
        written = jax.tree.map(lambda leaf: leaf[:length], joined(state.written, action))
        over = finished(action, self.end) | (jnp.sum(action.kind == 2) == 0) | (jnp.sum(written.kind > 0) >= length)
        inner, step = self.environment.step(state.state, written, key)
        next_turn, seen = self._begun(inner, step.observation)
        go_on = Unfinished(state.state, state.prompt, written)
        pick = lambda now, later: jax.tree.map(lambda a, b: jnp.where(over, a, b), now, later)
        zero = jax.tree.map(jnp.zeros_like, (step.reward, step.terminal, step.truncated, step.info))
        reward, terminal, truncated, info = pick((step.reward, step.terminal, step.truncated, step.info), zero)
        observation = pick(seen, joined(state.prompt, written))
        return pick(next_turn, go_on), Step(observation, reward, terminal, truncated, info=info)

    def _begun(self, state: PyTree, prompt: Tokens) -> tuple[Unfinished, Tokens]:
        length = spaces.size(self.environment.spec.action)
        empty = Tokens(jnp.full(length, self.pad, jnp.int32), jnp.zeros(length, jnp.int32))
        return Unfinished(state, prompt, empty), joined(prompt, empty)


def at_grain(environment: Environment, grain: str, *, longest: int = 64) -> Environment:
    """`environment` with one action per token, per step of at most `longest` tokens, or per turn or response (as it is).

    The policy is the same at every grain; it is told how much to write at once: `policy.sampled(answer=1)` for tokens,
    `policy.sampled(answer=longest, stop=["\\n"])` for steps that end with a line. Raises `BadInput` unless these are texts.
    """
    spec = environment.spec
    if not is_text(spec):
        raise BadInput(f"grains are for environments of texts, and this one has actions of {spaces.describe(spec.action)}")
    if grain not in ("token", "step", "turn", "response"):
        raise BadInput(f"there is no grain {grain!r}: choose token, step, turn or response")
    if grain in ("turn", "response"):
        return environment
    tokenizer = Tokenizer.of(spec.tokenizer)
    return Pieces(environment, 1 if grain == "token" else longest, tokenizer.end, tokenizer.pad)
