"""A language model is a policy: the observation is a prompt, the action an answer.

How text flows. `Tokens(ids, kind)` are right-padded; kind 0 is padding, 1 given, 2 written by the policy.

- An observation is the prompt, `Tokens` [prompt]: kinds 1 (and 2 where the policy itself has spoken before, in a dialogue).
- An action is the answer alone, `Tokens` [answer]: kind 2 up to and including its end token, 0 after. It does not repeat the prompt.
- A `Window` holds them as `observation` with leaves [time, prompt] and `action` with leaves [time, answer]; `log_probs(window)` is
  [time, answer]. A batch of transitions (`policy.log_prob(batch)`) has a batch axis in the place of time.
- A whole text, prompt and answers in one, is also `Tokens` [*batch, length] (`joined(prompt, answer)` makes it): `log_probs(tokens)` is
  [*batch, length], the log-probability of every token of kind 2 given all before it, and 0 elsewhere. Batches need no `vmap`.
- A Spec of texts (`text_spec`) has as observation and action spaces the ids, `Box((length,), 0, vocabulary - 1, "int32")`, and carries
  the tokenizer's JSON; the values are `Tokens` with ids in those spaces.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Tokens, Window
from policylab.networks.decoder import Architecture, Decoder
from policylab.policies.generation import Sampling, Written, answered, joined, log_prob_of, write
from policylab.policies.stops import Stops, stops_for
from policylab.policy import Form, Policy
from policylab.tokenizer import Tokenizer


class LanguagePolicy(Policy):
    """p(answer | prompt) = prod_t p(token_t | prompt, tokens before t), from a decoder at a temperature.

    `answer` is the most tokens that it writes. Its memory is None: what it has seen is the prompt. What `act` draws is cut by top-k and
    top-p, `log_probs` are of the uncut distribution at the temperature. `sampling` and `stops` are frozen: they are carried and saved,
    and never trained.
    """

    network: Decoder
    sampling: Sampling
    stops: Stops | None
    answer: int = eqx.field(static=True)
    end: tuple[int, ...] = eqx.field(static=True)
    pad: int = eqx.field(static=True)
    tokenizer: str = eqx.field(static=True, default="")

    def act(self, observation: Tokens, memory: PyTree, *, key: PRNGKeyArray) -> tuple[Tokens, PyTree]:
        """An answer [answer] to a prompt [prompt]."""
        return self.sample(observation, memory, key=key)[0], memory

    def sample(self, observation: Tokens, memory: PyTree, *, key: PRNGKeyArray) -> tuple[Tokens, Float[Array, ""], PyTree]:
        """An answer [answer], its log-probability in nats, and the memory."""
        written = self.act_many(observation, 1, key=key)
        return jax.tree.map(lambda leaf: leaf[0], written.tokens), jnp.sum(written.log_probs), memory

    def act_many(self, observation: Tokens, n: int, *, key: PRNGKeyArray) -> Written:
        """`n` answers to one prompt, which is read once: tokens and log-probabilities [n, answer]. Batch-native under `vmap`."""
        prompt = jax.tree.map(lambda leaf: leaf[None], observation)
        keys = key[None] if n == 1 else jax.random.split(key, n)
        return write(
            self.network, self.sampling, self.stops, prompt, keys,
            length=self.answer, end=self.end, pad=self.pad, repeats=n,
        )  # fmt: skip

    def log_probs(self, window: Window | Tokens) -> Float[Array, "*batch part"]:
        """Of the answers of a window, [time, answer]; or of the tokens of kind 2 of whole texts, [*batch, length]. 0 elsewhere."""
        if isinstance(window, Tokens):
            return _of_texts(self, window)
        prompt, answer = window.observation, window.action
        return answered(_of_texts(self, joined(prompt, answer)), prompt, answer) * window.valid[..., None]

    def hidden(self, tokens: Tokens) -> Float[Array, "*batch length width"]:
        """The decoder's last vector at every token: what value heads and reward models read."""
        return _hidden(self.network, tokens)

    def token_logits(self, tokens: Tokens) -> Float[Array, "*batch length vocabulary"]:
        """Logits of the token after each, at temperature 1."""
        return self.network.logits(self.hidden(tokens))

    def features(self, observation: Tokens) -> Float[Array, " feature"]:
        """The last vector at the last token of the prompt."""
        return self.hidden(observation)[jnp.maximum(jnp.sum(observation.kind > 0) - 1, 0)]

    def choice(self, observation: Tokens, options: Tokens, *, key: PRNGKeyArray | None = None) -> Float[Array, " option"]:
        """Probabilities of listed answers [option, length], normalised over them; exact, from their log-probabilities."""
        count = options.ids.shape[0]
        prompts = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), observation)
        written = Tokens(options.ids, jnp.where(options.kind > 0, 2, 0))
        return jax.nn.softmax(jnp.sum(self.log_probs(joined(prompts, written)), axis=-1))

    def mode(self) -> LanguagePolicy:
        """The policy that always writes the likeliest token."""
        return dataclasses.replace(self, sampling=dataclasses.replace(self.sampling, greedy=True))

    def sampled(
        self,
        *,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: Sequence[str] | None = None,
        answer: int | None = None,
    ) -> LanguagePolicy:
        """This policy drawing its tokens otherwise; what is None stays. `top_k=0` keeps all. Raises `BadInput` out of range."""
        old = self.sampling
        if temperature is not None and not temperature > 0:
            raise BadInput(
                f"temperature is {temperature}: give one above 0, or take the policy's mode() for the likeliest tokens"
            )
        if top_p is not None and not 0 < top_p <= 1:
            raise BadInput(f"top_p is {top_p}: give a probability above 0 and at most 1, where 1 keeps all")
        if (top_k is not None and top_k < 0) or (answer is not None and answer < 1):
            raise BadInput(f"top_k is {top_k} and answer {answer}: top_k is at least 0 (all), answer at least 1")
        sampling = Sampling(
            old.temperature if temperature is None else jnp.asarray(temperature, jnp.float32),
            old.top_p if top_p is None else jnp.asarray(top_p, jnp.float32),
            old.top_k if top_k is None else jnp.asarray(top_k or self.network.architecture.vocabulary, jnp.int32),
            False,
        )
        stops = self.stops if stop is None else stops_for(stop, self._spelling())
        return dataclasses.replace(self, sampling=sampling, stops=stops, answer=answer or self.answer)

    def _spelling(self) -> list[bytes]:
        known = Tokenizer.of(self.tokenizer).spelling
        return known + [b""] * (self.network.architecture.vocabulary - len(known))


# Compiled wherever they are called, also outside of any other program.


@jax.jit
def _of_texts(policy: LanguagePolicy, tokens: Tokens) -> Float[Array, "*batch length"]:
    logits = policy.token_logits(tokens)[..., :-1, :]
    found = log_prob_of(logits, tokens.ids[..., 1:], policy.sampling.temperature)
    found = jnp.pad(found, [(0, 0)] * (found.ndim - 1) + [(1, 0)])
    return jnp.where(tokens.kind == 2, found, 0.0)


@jax.jit
def _hidden(network: Decoder, tokens: Tokens) -> Float[Array, "*batch length width"]:
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), tokens)
    return network.hidden(flat.ids, flat.kind > 0).reshape(*tokens.ids.shape, -1)


def language_policy(network: Decoder, tokenizer: Tokenizer, *, answer: int = 64) -> LanguagePolicy:
    """The policy of a decoder and its tokenizer: temperature 1, nothing cut off, no stop strings."""
    vocabulary = network.architecture.vocabulary
    if tokenizer.vocabulary > vocabulary:
        raise BadInput(
            f"the tokenizer has {tokenizer.vocabulary} tokens but the decoder only {vocabulary}: take the tokenizer it was made with"
        )
    sampling = Sampling(jnp.ones(()), jnp.ones(()), jnp.asarray(vocabulary, jnp.int32))
    return LanguagePolicy(network, sampling, None, answer, tokenizer.end, tokenizer.pad, tokenizer.json)


def text_spec(tokenizer: Tokenizer, *, prompt: int, answer: int, **more: Any) -> Spec:
    """The Spec of prompts of at most `prompt` tokens and answers of at most `answer`; `more` are other fields of a Spec."""
    ids = lambda length: spaces.Box((length,), 0, tokenizer.vocabulary - 1, "int32")
    return Spec(ids(prompt), ids(answer), tokenizer=tokenizer.json, **more)


def is_text(spec: Spec) -> bool:
    """Whether observations and actions of this spec are `Tokens`."""
    parts = (spec.observation, spec.action)
    return bool(spec.tokenizer) and all(isinstance(s, spaces.Box) and s.dtype == "int32" and len(s.shape) == 1 for s in parts)


@dataclass(frozen=True)
class Language(Form):
    """A fresh decoder: `family` "llama" (rotary positions, RMSNorm, SwiGLU), "qwen2" (with biases on query, key and value), "qwen3" (with
    RMSNorm on every head's query and key) or "gpt2" (learned positions, LayerNorm, GELU, biases); the embedding serves as head.

    `groups` heads of keys and values (0: as many as heads), `hidden` feed-forward units (0: 4 widths for gpt2, else 8/3), `context` the
    longest text (0: prompt and answer of the spec). To start from a trained model, give it as `given={"start": policy}`.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    groups: int = 0
    hidden: int = 0
    context: int = 0
    family: Literal["llama", "qwen2", "qwen3", "gpt2"] = "llama"
    dtype: Literal["float32", "bfloat16"] = "float32"
    checkpointing: bool = False

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> LanguagePolicy:
        """Raises `BadInput` unless the spec is one of texts."""
        if not is_text(spec):
            raise BadInput(
                f"the form Language is for texts but these actions are {spaces.describe(spec.action)}: use a spec of texts "
                "(text_spec), or Gaussian or Categorical"
            )
        if self.width % self.heads:
            raise BadInput(f"a width of {self.width} is no multiple of {self.heads} heads: make it one")
        tokenizer = Tokenizer.of(spec.tokenizer)
        prompt, answer = spaces.size(spec.observation), spaces.size(spec.action)
        gpt2 = self.family == "gpt2"
        architecture = Architecture(
            vocabulary=tokenizer.vocabulary, width=self.width, layers=self.layers, heads=self.heads,
            groups=self.groups or self.heads, size=self.width // self.heads,
            hidden=self.hidden or (4 * self.width if gpt2 else round(8 * self.width / 3)), context=self.context or prompt + answer,
            positions="learned" if gpt2 else "rotary", norm="layer" if gpt2 else "rms", forward="gelu" if gpt2 else "swiglu",
            bias=gpt2, attention_bias=self.family == "qwen2", head_norm=self.family == "qwen3", epsilon=1e-5 if gpt2 else 1e-6,
            dtype=self.dtype, checkpointing=self.checkpointing,
        )  # fmt: skip
        return language_policy(Decoder(architecture, key=key), tokenizer, answer=answer)
