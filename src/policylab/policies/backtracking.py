"""A language model that can take back what it wrote: a decoder with one more token, the backspace (Cundy and Ermon 2023, arXiv 2306.05426)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Tokens, Window
from policylab.networks.cache import Cache, extend, prefill, sliced
from policylab.networks.decoder import Decoder
from policylab.networks.edits import edits, hidden_after
from policylab.networks.frozen import Frozen
from policylab.policies.generation import Sampling, drawn, draws, joined, log_prob_of
from policylab.policies.language import Language
from policylab.policy import Form, Policy
from policylab.tokenizer import Tokenizer


class Edited(eqx.Module):
    """What was written, [*batch, trace], tokens and backspaces in their order, kind 2 while writing went on; the log-probability of each
    action (0 where it slipped or is padding); where it slipped; and what stands in the end, [*batch, answer]."""

    trace: Tokens
    log_probs: Float[Array, "*batch trace"]
    slipped: Bool[Array, "*batch trace"]
    answer: Tokens


class Writable(Frozen):
    """Which ids are ordinary tokens, not padding, end or backspace: what a slip of the pen can put down."""

    ids: Int[Array, " ordinary"]


class BacktrackingPolicy(Policy):
    """p(action | text as it stands), an action being a token, the end, or the backspace, whose id is the last one.

    What it has erased has no influence any more. An answer is what stands at the end token, at `answer` tokens, or after `trace` actions.
    The probability of an answer is a sum over all ways to it, so that there is no log-density of answers, only of traces.
    """

    network: Decoder
    sampling: Sampling
    ordinary: Writable
    answer: int = eqx.field(static=True)
    trace: int = eqx.field(static=True)
    end: tuple[int, ...] = eqx.field(static=True)
    pad: int = eqx.field(static=True)
    tokenizer: str = eqx.field(static=True)

    @property
    def backspace(self) -> int:
        """The id of the backspace."""
        return self.network.architecture.vocabulary - 1

    def act(self, observation: Tokens, memory: PyTree, *, key: PRNGKeyArray) -> tuple[Tokens, PyTree]:
        """An answer [answer] to a prompt [prompt], what was erased left out."""
        prompt = jax.tree.map(lambda leaf: leaf[None], observation)
        return jax.tree.map(lambda leaf: leaf[0], self.write(prompt, key[None]).answer), memory

    def mode(self) -> BacktrackingPolicy:
        """The policy that always takes the likeliest action."""
        return dataclasses.replace(self, sampling=dataclasses.replace(self.sampling, greedy=True))

    def write(self, prompt: Tokens, keys: Key[Array, " batch"], *, slip: Float[Array, ""] | float = 0.0) -> Edited:
        """Answers to prompts [batch, prompt], one key each. With probability `slip` an ordinary token that is to be written becomes another
        one, uniform among all others: the policy is not told."""
        return _written(self, prompt, keys, jnp.asarray(slip, jnp.float32))

    def trace_logits(
        self, prompt: Tokens, trace: Tokens
    ) -> tuple[Float[Array, "batch part action"], Float[Array, "batch part action"]]:
        """Logits before and after every action of traces [batch, part] that follow prompts [batch, prompt]."""
        given = Tokens(prompt.ids, jnp.minimum(prompt.kind, 1))
        whole = joined(given, trace)
        logits = self.network.logits(hidden_after(self.network, whole, edits(whole, self.backspace)))
        count = jnp.sum(given.kind, axis=-1)[:, None, None] + jnp.arange(trace.ids.shape[-1])[:, None]
        before = jnp.take_along_axis(logits, jnp.maximum(count - 1, 0), axis=1)
        return before, jnp.take_along_axis(logits, count, axis=1)

    def trace_log_probs(self, prompt: Tokens, trace: Tokens) -> Float[Array, "batch part"]:
        """Log-probability of every action of traces, 0 on padding."""
        before, _ = self.trace_logits(prompt, trace)
        return jnp.where(trace.kind == 2, log_prob_of(before, trace.ids, self.sampling.temperature), 0.0)

    def imitation_loss(self, window: Window, *, key: PRNGKeyArray) -> Float[Array, " time"]:
        """Minus the log-probability of writing the answers straight away, without a slip."""
        return -jnp.sum(self.trace_log_probs(window.observation, window.action), axis=-1) * window.valid


@jax.jit
def _written(policy: BacktrackingPolicy, prompt: Tokens, keys: Key[Array, " batch"], slip: Float[Array, ""]) -> Edited:
    """One loop over actions. After a backspace the token that has become the last one is read again, at its old position, in place of
    the backspace; its own first place and that of the erased one are no longer looked at."""
    network, rows, start = policy.network, jnp.arange(prompt.ids.shape[0]), prompt.ids.shape[1]
    sampling = jax.lax.stop_gradient(policy.sampling)
    cache, logits = prefill(network, prompt.ids, prompt.kind > 0, policy.trace)
    layers, width = sliced(network), cache.valid.shape[1]
    act_keys, slip_keys = jax.vmap(partial(jax.random.split, num=2), out_axes=1)(keys)
    uniform = draws(act_keys, policy.trace)
    ordinary = policy.ordinary.ids
    fate = jax.vmap(lambda key: jax.random.uniform(key, (policy.trace, 2)))(slip_keys).swapaxes(0, 1)
    last = cache.count - 1
    # Depth 0 is the prompt's last token, depth i the i-th standing one of the answer.
    places = jnp.zeros((len(rows), policy.answer + 1), jnp.int32).at[:, 0].set(last)
    text = jnp.full((len(rows), policy.answer + 1), policy.pad, jnp.int32).at[:, 0].set(prompt.ids[rows, last])

    def body(t: Array, carry: tuple) -> tuple:
        cache, logits, places, text, depth, done, (ids, kinds, log_probs, slipped) = carry
        chosen = drawn(logits, uniform[t], sampling)
        slips = jnp.any(chosen[:, None] == ordinary, axis=-1) & (fate[t, :, 0] < slip) & ~done
        other = jnp.floor(fate[t, :, 1] * (ordinary.shape[0] - 1)).astype(jnp.int32)
        own = jnp.argmax(chosen[:, None] == ordinary, axis=-1)
        token = jnp.where(slips, ordinary[(own + 1 + other) % ordinary.shape[0]], chosen)
        log_prob = jnp.where(done | slips, 0.0, log_prob_of(logits, chosen, sampling.temperature))
        put = lambda table, row: table.at[t].set(row)
        notes = (
            put(ids, jnp.where(done, policy.pad, token)), put(kinds, jnp.where(done, 0, 2)),
            put(log_probs, log_prob), put(slipped, slips),
        )  # fmt: skip
        erases = token == policy.backspace
        gone = erases & (depth > 0)
        depth = jnp.where(done, depth, depth - gone + ~erases)
        # What is read now stands at `depth`: the new token, or the one that was uncovered.
        here = jnp.minimum(depth, policy.answer)
        read = jnp.where(erases, text[rows, here], token)
        hide = lambda place, which: which[:, None] & (jnp.arange(width) == place[:, None])
        hidden = hide(places[rows, jnp.minimum(here + 1, policy.answer)], gone) | hide(places[rows, here], erases)
        count = cache.count - gone - erases
        moved = Cache(cache.keys, cache.values, cache.valid & ~hidden, count)
        cache, logits = extend(network, layers, moved, read, start + t)
        keep = lambda old, new: jnp.where(done, old, new)
        places = places.at[rows, here].set(keep(places[rows, here], start + t))
        text = text.at[rows, here].set(keep(text[rows, here], read))
        over = jnp.any(token[:, None] == jnp.asarray(policy.end, jnp.int32), axis=-1) | (depth >= policy.answer)
        return cache, logits, places, text, depth, done | over, notes

    nothing = jnp.zeros(len(rows), jnp.int32)
    notes = (
        jnp.full((policy.trace, len(rows)), policy.pad, jnp.int32), jnp.zeros((policy.trace, len(rows)), jnp.int32),
        jnp.zeros((policy.trace, len(rows))), jnp.zeros((policy.trace, len(rows)), bool),
    )  # fmt: skip
    carry = (cache, logits, places, text, nothing, nothing > 0, notes)
    *_, text, depth, _, (ids, kinds, log_probs, slipped) = jax.lax.fori_loop(0, policy.trace, body, carry)
    stands = jnp.arange(policy.answer) < depth[:, None]
    answer = Tokens(jnp.where(stands, text[:, 1:], policy.pad), jnp.where(stands, 2, 0))
    return Edited(Tokens(ids.T, kinds.T), log_probs.T, slipped.T, answer)


@dataclass(frozen=True)
class Backtracking(Form):
    """`language` with a backspace, which may take at most `trace` actions to an answer (0: three times the longest answer)."""

    language: Language = field(default_factory=Language)
    trace: int = 0

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> BacktrackingPolicy:
        """Raises `BadInput` unless the spec is one of texts, and at a trace shorter than an answer."""
        base = self.language.build(spec, key=key)
        if 0 < self.trace < base.answer:
            raise BadInput(
                f"a trace of {self.trace} actions is shorter than an answer of {base.answer} tokens: give it at least as many, or 0"
            )
        known = base.network.architecture
        network = Decoder(dataclasses.replace(known, vocabulary=known.vocabulary + 1), key=key)
        sampling = dataclasses.replace(base.sampling, top_k=jnp.asarray(known.vocabulary + 1, jnp.int32))
        tokenizer = Tokenizer.of(spec.tokenizer)
        unknown = str(tokenizer.document["tokenizer"]["model"].get("unk_token")).encode()
        ordinary = [i for i, spelled in enumerate(tokenizer.spelling) if spelled not in (b"", unknown)]
        return BacktrackingPolicy(
            network, sampling, Writable(jnp.asarray(ordinary, jnp.int32)),
            spaces.size(spec.action), self.trace or 3 * base.answer, base.end, base.pad, base.tokenizer,
        )  # fmt: skip
