"""PPO on texts, token by token, with a value of every prefix (Ouyang et al. 2022, arXiv 2203.02155; Ziegler et al. 2019, arXiv 1909.08593)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from policylab.errors import BadInput
from policylab.experience import Rated, Spec, Tokens
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request
from policylab.networks.mlp import Linear
from policylab.networks.optimisation import Trained, descend_in_parts, noting, trained
from policylab.policies.answering import Answers, rows_at_once
from policylab.policies.generation import joined, log_prob_of
from policylab.policies.language import Language, LanguagePolicy, is_text
from policylab.policies.lora import LoRAPolicy
from policylab.policies.writing import whole
from policylab.policy import Form
from policylab.scorers.text_value import TextValue

_SMALL = 1e-6


class Valued(eqx.Module):
    """A language policy and a number at each of its last vectors: the value of the text so far."""

    policy: LanguagePolicy | LoRAPolicy
    head: Linear

    def __call__(self, text: Tokens) -> tuple[Float[Array, "batch length"], Float[Array, "batch length"]]:
        """In one pass, of every token the log-probability and the value of the text before it; the first token has none (0)."""
        writer = whole(self.policy)
        hidden = writer.hidden(text)[:, :-1]
        found = log_prob_of(writer.network.logits(hidden), text.ids[:, 1:], writer.sampling.temperature)
        value = (hidden @ self.head.weight)[..., 0].astype(jnp.float32) + self.head.bias[0]
        return jnp.pad(found, ((0, 0), (1, 0))), jnp.pad(value, ((0, 0), (1, 0)))


@settings
class TokenPPO(Learner):
    r"""Tokens are actions, texts states, and the last vector of the decoder feeds a value as well as the next token:

        max E[ min( rho_t A_t, clip(rho_t, 1 - clip, 1 + clip) A_t ) ] - value_weight / 2 E[ max( (V - R)^2, (V_clipped - R)^2 ) ]
        A_t = sum_k (discount trace)^k delta_t+k,   delta_t = r_t + discount V(s_t+1) - V(s_t),   R_t = A_t + V_old(s_t)

    over the tokens that the policy wrote (kind 2). A sample may be a transcript of several turns: what stands between them is read and not
    learned, the next state after a turn's last token is that before the next turn's first, and a reward that stands on a given token counts
    for the token written before it. V is 0 after the end. V_clipped is V, at most `value_clip` from V_old. Advantages get mean 0 and deviation
    1 over the tokens of the batch. `anchor` says where the divergence from the reference counts: in the "reward" as -kl log (pi / ref) of
    every token (InstructGPT), in the "loss" as kl ( ref/pi - log (ref/pi) - 1 ) (GRPO), or "none".

    Defaults are those of TRL's PPO (discount 1, trace 0.95, clips 0.2, value weight 0.1, kl 0.05, four passes) with Adam at 1e-6.
    """

    discount: float = setting(1.0, "per token", low=0.0, high=1.0)
    trace: float = setting(0.95, "lambda of the generalised advantage", low=0.0, high=1.0)
    clip: float = setting(0.2, "how far the ratio counts from 1", above=0.0)
    value_clip: float = setting(0.2, "how far a value counts from what it was", above=0.0)
    value_weight: float = setting(0.1, "weight of the value's error", low=0.0)
    anchor: Literal["reward", "loss", "none"] = setting(
        "reward", "where the divergence from the reference counts: reward, loss or none"
    )
    kl: float = setting(0.05, "weight of the divergence from the reference, per nat", low=0.0)
    learning_rate: float = setting(1e-6, "of Adam", above=0.0)
    largest_gradient: float = setting(1.0, "norm at which gradients are cut off", above=0.0)
    epochs: int = setting(4, "passes over each batch", low=1)
    batch_size: int = setting(64, "answers per update", low=1)
    policy: Form | None = setting(None, "the form of the policy without a start; None: Language()")

    title: ClassVar[str] = "Proximal policy optimisation of texts"
    takes: ClassVar[tuple[str, ...]] = ("start", "reference")
    on_policy: ClassVar[bool] = True

    @property
    def needs(self) -> Mapping[str, Request]:
        """Rated answers of the policy as it is."""
        return {"answers": Answers(self.batch_size)}

    def _optimiser(self) -> optax.GradientTransformation:
        return optax.chain(noting(), optax.clip_by_global_norm(self.largest_gradient), optax.adam(self.learning_rate))

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, Any]:
        """The policy with a value that is 0 everywhere, and the reference. Raises `BadInput` unless the spec is one of texts."""
        if not is_text(spec):
            raise BadInput("TokenPPO is for texts: give a spec of texts (text_spec), or choose PPO for steps of an environment")
        start = given["start"] if "start" in given else (self.policy or Language()).build(spec, key=key)
        if not isinstance(start, LanguagePolicy | LoRAPolicy):
            raise BadInput(
                f"TokenPPO needs a language policy and start is a {type(start).__name__}: give one, or the form Language"
            )
        head = Linear(jnp.zeros((whole(start).network.architecture.width, 1)), jnp.zeros(1))
        state = {"model": trained(Valued(start, head), self._optimiser())}
        if self.anchor == "none":
            return state
        # LoRA carries its base, which is its reference, inside.
        return {**state, "reference": given.get("reference", None if isinstance(start, LoRAPolicy) else start)}

    def update(
        self, state: dict[str, Any], batch: Rated, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """`epochs` steps on the batch. `gradient` is the norm of the last gradient before it is cut off, `explained` the share of the
        variance of the returns that the value foretold."""
        text, reward, written = transcript(batch)
        before, value = jax.lax.stop_gradient(state["model"].model(text))
        frozen = None if self.anchor == "none" else jax.lax.stop_gradient(reference(state).log_probs(text))
        drift = jnp.zeros_like(before) if frozen is None else jnp.where(written, before - frozen, 0.0)
        net = reward - self.kl * drift if self.anchor == "reward" else reward
        advantage = advantages(net, value, written, discount=self.discount, trace=self.trace)
        goal = advantage + value
        share = written * batch.weight[:, None]
        share = share / jnp.maximum(jnp.sum(share), _SMALL)
        mean = lambda x: jnp.sum(share * x)
        spread = mean((goal - mean(goal)) ** 2)
        told = {
            "reward": jnp.mean(jnp.sum(batch.reward, axis=-1)), "parts": jnp.mean(jnp.sum(written, axis=-1)),
            "entropy": -mean(before), "kl": jnp.mean(jnp.sum(drift, axis=-1)),
            "explained": 1.0 - mean(advantage**2) / (spread + _SMALL),
        }  # fmt: skip
        centred = advantage - mean(advantage)
        advantage = centred / (jnp.sqrt(mean(centred**2)) + _SMALL)
        rows = written.shape[0]

        def loss(model: Valued, part: Any) -> tuple[Array, dict[str, Array]]:
            text, share, advantage, goal, before, value, frozen = part
            log_probs, now = model(text)
            counts = share > 0.0
            log_ratio = jnp.where(counts, log_probs - before, 0.0)
            ratio = jnp.exp(log_ratio)
            gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - self.clip, 1.0 + self.clip) * advantage)
            if self.anchor == "loss":
                back = jnp.where(counts, frozen - log_probs, 0.0)
                gain = gain - self.kl * (jnp.exp(back) - back - 1.0)
            near = value + jnp.clip(now - value, -self.value_clip, self.value_clip)
            error = 0.5 * jnp.maximum((now - goal) ** 2, (near - goal) ** 2)
            total = lambda x: rows * jnp.sum(share * x) / text.ids.shape[0]  # the mean over parts is that over tokens
            return total(self.value_weight * error - gain), {"surrogate": -total(gain), "value_loss": total(error)}

        given, largest = (text, share, advantage, goal, before, value, frozen), rows_at_once(text)

        def one_pass(model: Trained, number: None) -> tuple[Trained, tuple[dict[str, Array], Array]]:
            model, _, parts = descend_in_parts(model, loss, given, self._optimiser(), largest=largest)
            return model, (parts, model.moments[0])

        model, (parts, norms) = jax.lax.scan(one_pass, state["model"], None, length=self.epochs)
        last = {name: values[-1] for name, values in parts.items()}
        return {**state, "model": model}, {**told, **last, "gradient": norms[-1]}

    def products(self, state: dict[str, Any]) -> dict[str, Any]:
        """`policy`, `explorer` (the policy sampling), `value` (of a text so far), and the `reference` where there is one."""
        model = state["model"].model
        kept = {"reference": reference(state)} if "reference" in state else {}
        value = TextValue(whole(model.policy), model.head)
        return {"policy": model.policy, "explorer": model.policy, "value": value, **kept}


def reference(state: dict[str, Any]) -> LanguagePolicy:
    """The frozen policy of a state, or the one that the trained policy carries inside."""
    stored = state["reference"]
    return state["model"].model.policy.reference if stored is None else stored


def transcript(batch: Rated) -> tuple[Tokens, Float[Array, "batch length"], Bool[Array, "batch length"]]:
    """Prompts and samples as whole texts, the rewards at their places there, and which tokens of the samples the policy wrote."""
    text = joined(batch.prompt, batch.sample)
    place = jnp.arange(text.ids.shape[-1]) - jnp.sum(batch.prompt.kind > 0, axis=-1, keepdims=True)
    inside = (place >= 0) & (place < batch.reward.shape[-1])
    reward = jnp.take_along_axis(batch.reward, jnp.clip(place, 0, batch.reward.shape[-1] - 1), axis=-1)
    return text, jnp.where(inside, reward, 0.0), (text.kind == 2) & (place >= 0)


def advantages(
    reward: Float[Array, "batch length"],
    value: Float[Array, "batch length"],
    written: Bool[Array, "batch length"],
    *,
    discount: Float[Array, ""] | float,
    trace: Float[Array, ""] | float,
) -> Float[Array, "batch length"]:
    """Generalised advantages of written tokens, 0 elsewhere (Schulman et al. 2016, equation 16): `value` is that of the text before each
    token, the state after a written token that before the next written one. Rewards in between count for the token written before."""

    def back(carry: tuple[Array, Array, Array], token: tuple[Array, Array, Array]) -> tuple[tuple, Array]:
        after, later, waiting = carry
        reward, value, written = token
        gain = reward + waiting + discount * after - value + discount * trace * later
        carry = jnp.where(written, value, after), jnp.where(written, gain, later), jnp.where(written, 0.0, waiting + reward)
        return carry, jnp.where(written, gain, 0.0)

    nothing = jnp.zeros(reward.shape[0])
    along = jax.tree.map(lambda x: x.T, (reward, value, written))
    return jax.lax.scan(back, (nothing, nothing, nothing), along, reverse=True)[1].T
