"""LoRA: a language policy whose base is frozen and whose change is of low rank (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Spec, Tokens, Window
from policylab.networks.decoder import Adapter, Linear
from policylab.networks.frozen import Frozen
from policylab.policies.generation import Written
from policylab.policies.language import Language, LanguagePolicy
from policylab.policy import Form, Policy

_LINES = ("query", "key", "value", "out", "gate", "up", "down")


class Base(Frozen):
    """A policy that is carried and saved but never trained."""

    policy: LanguagePolicy


class LoRAPolicy(Policy):
    """W + scale * down up in the place of W, for every matrix that has an adapter; `up` starts at zero, so that it starts as its base.

    Only `adapters` are trained: the base has no optimiser state, and a batch of seeds shares one by `in_axes` (`axes(0)`).
    """

    base: Base
    adapters: dict[str, Adapter]

    @property
    def whole(self) -> LanguagePolicy:
        """The language policy with the adapters in their places; nothing is computed."""
        layers = self.base.policy.network.layers
        changed = {name: dataclasses.replace(getattr(layers, name), adapter=adapter) for name, adapter in self.adapters.items()}
        return self._with(dataclasses.replace(layers, **changed))

    @property
    def own_reference(self) -> LanguagePolicy:
        """The base: this policy with its adapters off, which learners that hold it to a reference take for that."""
        return self.base.policy

    @property
    def reference(self) -> LanguagePolicy:
        """The base, by the name that it has among products."""
        return self.base.policy

    def merged(self) -> LanguagePolicy:
        """The same policy with the change added to its matrices: an ordinary language policy, to save as a checkpoint folder."""

        def merge(line: Linear, adapter: Adapter) -> Linear:
            change = jnp.einsum("lir,lro->lio", *(part.astype(jnp.float32) for part in (adapter.down, adapter.up)))
            weight = line.weight.astype(jnp.float32) + adapter.scale * change
            return Linear(weight.astype(line.weight.dtype), line.bias)

        layers = self.base.policy.network.layers
        changed = {name: merge(getattr(layers, name), adapter) for name, adapter in self.adapters.items()}
        return self._with(dataclasses.replace(layers, **changed))

    def _with(self, layers: Any) -> LanguagePolicy:
        network = eqx.tree_at(lambda n: n.layers, self.base.policy.network, layers, is_leaf=lambda leaf: leaf is None)
        return dataclasses.replace(self.base.policy, network=network)

    def axes(self, axis: int) -> LoRAPolicy:
        """`in_axes` and `out_axes` of `vmap` over several such policies that share one base."""
        every = lambda tree, value: jax.tree.map(lambda _: value, tree)
        return LoRAPolicy(every(self.base, None), every(self.adapters, axis))

    def act(self, observation: Tokens, memory: PyTree, *, key: PRNGKeyArray) -> tuple[Tokens, PyTree]:
        """An answer [answer] to a prompt [prompt]."""
        return self.whole.act(observation, memory, key=key)

    def sample(self, observation: Tokens, memory: PyTree, *, key: PRNGKeyArray) -> tuple[Tokens, Float[Array, ""], PyTree]:
        """An answer, its log-probability in nats, and the memory."""
        return self.whole.sample(observation, memory, key=key)

    def act_many(self, observation: Tokens, n: int, *, key: PRNGKeyArray) -> Written:
        """`n` answers to one prompt, which is read once."""
        return self.whole.act_many(observation, n, key=key)

    def log_probs(self, window: Window | Tokens) -> Float[Array, "*batch part"]:
        """As a LanguagePolicy's."""
        return self.whole.log_probs(window)

    def hidden(self, tokens: Tokens) -> Float[Array, "*batch length width"]:
        """As a LanguagePolicy's."""
        return self.whole.hidden(tokens)

    def token_logits(self, tokens: Tokens) -> Float[Array, "*batch length vocabulary"]:
        """As a LanguagePolicy's."""
        return self.whole.token_logits(tokens)

    def choice(self, observation: Tokens, options: Tokens, *, key: PRNGKeyArray | None = None) -> Float[Array, " option"]:
        """As a LanguagePolicy's."""
        return self.whole.choice(observation, options, key=key)

    def mode(self) -> LoRAPolicy:
        """The policy that always writes the likeliest token."""
        return LoRAPolicy(Base(self.base.policy.mode()), self.adapters)

    def sampled(self, **changes: Any) -> LoRAPolicy:
        """This policy drawing its tokens otherwise, as `LanguagePolicy.sampled`."""
        return LoRAPolicy(Base(self.base.policy.sampled(**changes)), self.adapters)


def adapt(
    policy: LanguagePolicy, *, rank: int = 16, alpha: float = 32.0, lines: Sequence[str] = ("query", "value"), key: PRNGKeyArray
) -> LoRAPolicy:
    """`policy` frozen, with fresh adapters of `rank` at `lines` of every layer, scaled by alpha / rank; they are float32. It computes what
    `policy` does until it is trained. Raises `BadInput` for a rank below 1 and for lines that the network has not."""
    layers = policy.network.layers
    wrong = [name for name in lines if name not in _LINES or getattr(layers, name) is None]
    if wrong or rank < 1 or not lines:
        there = [name for name in _LINES if getattr(layers, name) is not None]
        raise BadInput(
            f"no adapter of rank {rank} at {', '.join(map(str, wrong)) or 'nothing'}: rank at least 1, at {', '.join(there)}"
        )

    def fresh(name: str, key: PRNGKeyArray) -> Adapter:
        count, inputs, outputs = getattr(layers, name).weight.shape
        bound = inputs**-0.5  # as the authors' code: uniform, Kaiming's with a = sqrt(5)
        down = jax.random.uniform(key, (count, inputs, rank), minval=-bound, maxval=bound)
        return Adapter(down, jnp.zeros((count, rank, outputs)), alpha / rank)

    keys = jax.random.split(key, len(lines))
    return LoRAPolicy(Base(policy), {name: fresh(name, k) for name, k in zip(lines, keys, strict=True)})


@dataclass(frozen=True)
class LoRA(Form):
    """Adapters of low rank on a fresh `base` of that shape; to adapt a trained policy, call `adapt(policy, ...)` and give it as the start.

    Defaults: rank 16, alpha 32, at queries and values (Hu et al. 2021, section 4.2).
    """

    base: Language = field(default_factory=Language)
    rank: int = 16
    alpha: float = 32.0
    lines: tuple[Literal["query", "key", "value", "out", "gate", "up", "down"], ...] = ("query", "value")

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> LoRAPolicy:
        """Raises `BadInput` unless the spec is one of texts."""
        base_key, adapter_key = jax.random.split(key)
        base = self.base.build(spec, key=base_key)
        return adapt(base, rank=self.rank, alpha=self.alpha, lines=self.lines, key=adapter_key)
