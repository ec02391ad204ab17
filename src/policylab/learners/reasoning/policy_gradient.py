"""Policy gradients of groups of answers to one prompt, without a value function: GRPO, Dr. GRPO, RLOO, REINFORCE++ and their mixtures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from policylab import spaces
from policylab.experience import Rated, Spec, Tokens
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request
from policylab.networks.optimisation import Trained, descend, trained
from policylab.policies.answering import Answers, group_log_probs
from policylab.policies.categorical import Categorical
from policylab.policies.gaussian import Gaussian
from policylab.policy import Form, Policy

_SMALL = 1e-6  # beside a standard deviation, as the published code adds it


@settings
class GroupPolicyGradient(Learner):
    r"""With answers y_1 .. y_G of the policy itself to a prompt, R_i their rewards and t their parts (tokens):

        max  E[ norm_t  min( rho_t A_t, clip(rho_t, 1 - low, 1 + high) A_t ) ] - kl E[ norm_t ( ref/pi - log (ref/pi) - 1 ) ]

    rho_t is the ratio of the policy to itself before the update, 1 in the first of `epochs` passes. The advantage A of an answer is

        group           (R_i - mean of the group) / (its standard deviation)                 GRPO, DeepSeekMath (arXiv 2402.03300, section 4.1)
        centred         R_i - mean of the group                                              Dr. GRPO (arXiv 2503.20783)
        leave_one_out   R_i - mean of the others of the group                                RLOO (arXiv 2402.14740, equation 8)
        batch           (R_i - mean of the batch) / (its standard deviation)                 REINFORCE++ (arXiv 2501.03262)
        group_batch     (R_i - mean of the group) / (standard deviation of the batch)        Lite PPO (arXiv 2508.08221)

    and the loss over the parts is normalised (`normalisation`) by

        answer     the mean over the parts of each answer, then over answers                 GRPO
        part       the sum over all parts of the batch over their number                     DAPO (arXiv 2503.14476), Lite PPO
        constant   the sum over all parts over answers times the longest there could be      Dr. GRPO

    `anchor` says where the divergence from the reference counts: in the "loss" as above (GRPO), in the "reward" as -kl log (pi / ref), summed over
    the answer, and for `batch` over the parts from t on (RLOO, REINFORCE++), or "none". Standard deviations are those of the population.
    Defaults are GRPO's (kl 0.04, clip 0.2, rate 1e-6, one pass), with groups of 8.
    """

    advantage: Literal["group", "centred", "leave_one_out", "batch", "group_batch"] = setting(
        "group", "group, centred, leave_one_out, batch or group_batch"
    )
    normalisation: Literal["answer", "part", "constant"] = setting("answer", "answer, part or constant")
    anchor: Literal["loss", "reward", "none"] = setting(
        "loss", "where the divergence from the reference counts: loss, reward or none"
    )
    kl: float = setting(0.04, "weight of the divergence from the reference, per nat", low=0.0)
    clip_low: float = setting(0.2, "how far the ratio counts below 1", low=0.0, high=1.0)
    clip_high: float = setting(0.2, "how far the ratio counts above 1", low=0.0)
    learning_rate: float = setting(1e-6, "of Adam", above=0.0)
    group: int = setting(8, "answers to each prompt", low=2)
    epochs: int = setting(1, "passes over each batch", low=1)
    batch_size: int = setting(16, "prompts per update", low=1)
    policy: Form | None = setting(None, "the form of the policy without a start; None chooses by the action space")

    title: ClassVar[str] = "Policy gradient of groups of answers"
    takes: ClassVar[tuple[str, ...]] = ("start", "reference")
    on_policy: ClassVar[bool] = True

    @property
    def needs(self) -> Mapping[str, Request]:
        """Groups of rated answers of the policy as it is."""
        return {"answers": Answers(self.batch_size, group=self.group)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, Any]:
        """The policy, and the reference, which it equals unless another one is given; without an anchor there is none."""
        own = Categorical() if isinstance(spec.action, spaces.Discrete) else Gaussian()
        start = given["start"] if "start" in given else (self.policy or own).build(spec, key=key)
        state = {"policy": trained(start, optax.adam(self.learning_rate))}
        return state if self.anchor == "none" else {**state, "reference": given.get("reference", start)}

    def advantages(
        self,
        reward: Float[Array, "batch group"],
        drift: Float[Array, "batch group part"],
        parts: Bool[Array, "batch group part"],
    ) -> Float[Array, "batch group part"]:
        """A of every part, 0 where there is none, from the rewards of answers and log (pi / ref) of parts (0 without an anchor in the reward)."""
        cost = self.kl * jnp.where(parts, drift, 0.0)
        if self.advantage == "batch":
            gain = reward[..., None] - jnp.flip(jnp.cumsum(jnp.flip(cost, -1), -1), -1)
            count = jnp.maximum(jnp.sum(parts), 1)
            mean = jnp.sum(jnp.where(parts, gain, 0.0)) / count
            std = jnp.sqrt(jnp.sum(jnp.where(parts, (gain - mean) ** 2, 0.0)) / count)
            return jnp.where(parts, (gain - mean) / (std + _SMALL), 0.0)
        gain = reward - jnp.sum(cost, axis=-1)
        apart = gain - jnp.mean(gain, axis=1, keepdims=True)
        if self.advantage == "leave_one_out":
            apart = apart * self.group / (self.group - 1)
        elif self.advantage == "group":
            apart = apart / (jnp.std(gain, axis=1, keepdims=True) + _SMALL)
        elif self.advantage == "group_batch":
            apart = apart / (jnp.std(gain) + _SMALL)
        return jnp.where(parts, apart[..., None], 0.0)

    def normalised(
        self,
        each: Float[Array, "batch group part"],
        parts: Bool[Array, "batch group part"],
        weight: Float[Array, "batch group"],
    ) -> Float[Array, ""]:
        """One number from one per part: the mean over them that `normalisation` names, answers weighted."""
        each = jnp.where(parts, each, 0.0) * weight[..., None]
        answers = jnp.maximum(jnp.sum(weight), 1e-6)
        if self.normalisation == "part":
            return jnp.sum(each) / jnp.maximum(jnp.sum(parts * weight[..., None]), 1e-6)
        if self.normalisation == "constant":
            return jnp.sum(each) / (answers * parts.shape[-1])
        return jnp.sum(jnp.sum(each, axis=-1) / jnp.maximum(jnp.sum(parts, axis=-1), 1)) / answers

    def clipped(
        self, log_ratio: Float[Array, "batch group part"], advantage: Float[Array, "batch group part"]
    ) -> Float[Array, "batch group part"]:
        """What is maximised, of every part (Schulman et al. 2017, equation 7, with a bound for each side)."""
        ratio = jnp.exp(log_ratio)
        return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - self.clip_low, 1.0 + self.clip_high) * advantage)

    def update(
        self, state: dict[str, Any], batch: Rated, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """`epochs` steps on the batch."""
        before = group_log_probs(state["policy"].model, batch.prompt, batch.sample)
        parts = batch.sample.kind == 2 if isinstance(batch.sample, Tokens) else jnp.ones(before.shape, bool)
        frozen = before if self.anchor == "none" else group_log_probs(state["reference"], batch.prompt, batch.sample)
        reward = jnp.sum(batch.reward, axis=-1)
        drift = before - frozen if self.anchor == "reward" else jnp.zeros_like(before)
        advantage = self.advantages(reward, drift, parts)

        def loss(policy: Policy) -> tuple[Array, Array]:
            log_probs = group_log_probs(policy, batch.prompt, batch.sample)
            gain = self.clipped(log_probs - before, advantage)
            if self.anchor == "loss":
                back = jnp.where(parts, frozen - log_probs, 0.0)
                gain = gain - self.kl * (jnp.exp(back) - back - 1.0)
            return -self.normalised(gain, parts, batch.weight), jnp.abs(log_probs - before)

        def one_pass(policy: Trained, _: None) -> tuple[Trained, tuple[Array, Array]]:
            policy, value, moved = descend(policy, loss, optax.adam(self.learning_rate))
            return policy, (value, jnp.max(moved))

        policy, (values, moved) = jax.lax.scan(one_pass, state["policy"], None, length=self.epochs)
        metrics = {
            "surrogate": values[-1], "reward": jnp.mean(reward), "answers_apart": jnp.mean(jnp.std(reward, axis=1) > 0),
            "kl": jnp.mean(jnp.sum(jnp.where(parts, before - frozen, 0.0), axis=-1)), "parts": jnp.mean(jnp.sum(parts, axis=-1)),
            "log_ratio": moved[-1],
        }  # fmt: skip
        return {**state, "policy": policy}, metrics

    def products(self, state: dict[str, Any]) -> dict[str, Any]:
        """`policy`, `explorer` (the policy sampling), and the `reference` where there is one."""
        policy = state["policy"].model
        kept = {"reference": state["reference"]} if "reference" in state else {}
        return {"policy": policy, "explorer": policy, **kept}
