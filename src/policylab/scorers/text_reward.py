"""Reward models of texts: a language model with a number at the end of the answer (Ouyang et al. 2022, arXiv 2203.02155; Cobbe et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from policylab.experience import Preference, Rated, Spec, Tokens
from policylab.learner import Pairs, Request
from policylab.networks.mlp import Linear
from policylab.policies.answering import Answers
from policylab.policies.generation import answered, joined
from policylab.policies.language import Language, LanguagePolicy
from policylab.scorers.comparing import Comparing, cross_entropy
from policylab.scorers.fitted import FittedForm


class TextReward(Comparing):
    r"""r(x, y) = w . h + b, h the decoder's last vector at the answer's last token. Of pairs P(a wins) = sigma(r(a) - r(b)), of answers that are
    right or wrong P(right) = sigma(r). A right answer is one with a reward above 1/2."""

    trunk: LanguagePolicy
    head: Linear

    def scores(self, observation: Tokens, action: Tokens) -> Float[Array, " part"]:
        """r at the last token of the answer, 0 at the others."""
        each = (self.trunk.hidden(joined(observation, action)) @ self.head.weight)[..., 0] + self.head.bias[0]
        written = action.kind == 2
        last = written & (jnp.arange(written.shape[-1]) == jnp.sum(written, axis=-1, keepdims=True) - 1)
        return jnp.where(last, answered(each, observation, action), 0.0)

    def losses(self, batch: Preference | Rated, *, key: PRNGKeyArray) -> Float[Array, " batch"]:
        """Cross-entropy of the label, in nats."""
        if isinstance(batch, Preference):
            return cross_entropy(jax.vmap(self.compare)(batch.observation, batch.a, batch.b), batch.p)
        right = (jnp.sum(batch.reward, axis=-1) > 0.5).astype(jnp.float32)
        return cross_entropy(jax.vmap(self.score)(batch.prompt, batch.sample), right)


def text_reward(trunk: LanguagePolicy) -> TextReward:
    """A reward model on a trained language model, all rewards 0 at the start; give it as `start` to `Fit`."""
    width = trunk.network.architecture.width
    return TextReward(trunk, Linear(jnp.zeros((width, 1)), jnp.zeros(1)))


@dataclass(frozen=True)
class TextRewards(FittedForm):
    """A fresh decoder with a head, fitted to `pairs` or to `outcomes` (right and wrong answers)."""

    trunk: Language = field(default_factory=Language)
    fitted_to: Literal["pairs", "outcomes"] = "pairs"

    def request(self, count: int) -> Request:
        """Preference pairs, or rated answers."""
        return Pairs(count) if self.fitted_to == "pairs" else Answers(count)

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> TextReward:
        """Raises `BadInput` unless the spec is one of texts."""
        return text_reward(self.trunk.build(spec, key=key))
