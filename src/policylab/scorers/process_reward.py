"""Process reward models of texts: a language model with a number at every step (Wang et al. 2023, Math-Shepherd, arXiv 2312.08935)."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from policylab.experience import Rated, Spec, Tokens
from policylab.learner import Request
from policylab.networks.mlp import Linear
from policylab.policies.answering import Answers
from policylab.policies.generation import answered, joined
from policylab.policies.language import Language, LanguagePolicy
from policylab.scorers.fitted import FittedForm, FittedScorer


class ProcessReward(FittedScorer):
    r"""P(right up to step t) = sigma( w . h_t + b ), h_t the decoder's last vector at the last token of step t.

    Fitted to labels of steps in [0, 1], the rewards where a `Rated` has its `ends`: those of people, or the share or presence of right
    answers among what the writer makes of the step (Math-Shepherd). `scores` are the differences of the log-odds from token to token, so that
    their sum over the first parts is what the model says of them; `log_odds` are the sums themselves.
    """

    trunk: LanguagePolicy
    head: Linear

    def log_odds(self, observation: Tokens, action: Tokens) -> Float[Array, "*batch part"]:
        """w . h + b at every token of the answer, 0 where it is padded; batches need no `vmap`."""
        each = (self.trunk.hidden(joined(observation, action)) @ self.head.weight)[..., 0] + self.head.bias[0]
        return answered(each.astype(jnp.float32), observation, action)

    def scores(self, observation: Tokens, action: Tokens) -> Float[Array, " part"]:
        """The differences of the log-odds."""
        odds = self.log_odds(observation, action)
        before = jnp.pad(odds[..., :-1], [(0, 0)] * (odds.ndim - 1) + [(1, 0)])
        return jnp.where(action.kind == 2, odds - before, 0.0)

    def losses(self, batch: Rated, *, key: PRNGKeyArray) -> Float[Array, " batch"]:
        """Cross-entropy of the labels in nats, the mean over the steps of an answer."""
        odds = self.log_odds(batch.prompt, batch.sample)
        each = -batch.reward * jax.nn.log_sigmoid(odds) - (1.0 - batch.reward) * jax.nn.log_sigmoid(-odds)
        return jnp.sum(jnp.where(batch.ends, each, 0.0), axis=-1) / jnp.maximum(jnp.sum(batch.ends, axis=-1), 1)


def process_reward(trunk: LanguagePolicy) -> ProcessReward:
    """A process reward model on a trained language model, all log-odds 0 at the start; give it as `start` to `Fit`."""
    width = trunk.network.architecture.width
    return ProcessReward(trunk, Linear(jnp.zeros((width, 1)), jnp.zeros(1)))


@dataclass(frozen=True)
class ProcessRewards(FittedForm):
    """A fresh decoder with a head, fitted to answers with a label for every step."""

    trunk: Language = field(default_factory=Language)

    def request(self, count: int) -> Request:
        """Rated answers."""
        return Answers(count)

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> ProcessReward:
        """Raises `BadInput` unless the spec is one of texts."""
        return process_reward(self.trunk.build(spec, key=key))
