"""Policy gradients of groups of answers to one prompt, without a value function: GRPO, Dr. GRPO, RLOO, REINFORCE++, Lite PPO, DAPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Rated, Spec, Tokens
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request
from policylab.networks.optimisation import Trained, descend_in_parts, noting, trained
from policylab.policies.anchoring import anchored, reference_of
from policylab.policies.answering import Answers, group_log_probs, rows_at_once
from policylab.policies.truncation import cut_off
from policylab.policy import Form, Policy

_SMALL = 1e-6  # beside a standard deviation, as the published code adds it; where there is less of one, nothing is learned

# What the literature calls some settings: `GroupPolicyGradient.named("lite-ppo")`.
NAMED: dict[str, dict[str, Any]] = {
    "grpo": {},  # DeepSeekMath (arXiv 2402.03300, section 4.1)
    "dr-grpo": {"scale": "none", "normalisation": "constant", "anchor": "none"},  # arXiv 2503.20783
    "rloo": {"baseline": "leave_one_out", "scale": "none", "normalisation": "constant", "anchor": "reward"},  # arXiv 2402.14740
    "reinforce++": {
        "baseline": "batch", "scale": "batch", "credit": "part", "normalisation": "part", "anchor": "reward",
    },  # arXiv 2501.03262
    "lite-ppo": {"scale": "batch", "normalisation": "part", "anchor": "none"},  # arXiv 2508.08221
    # arXiv 2503.14476, with `Refill(source, PassRate())` as its source
    "dapo": {"normalisation": "part", "anchor": "none", "clip_high": 0.28, "mask_truncated": True},
}  # fmt: skip


@settings
class GroupPolicyGradient(Learner):
    r"""With answers y_1 .. y_G of the policy itself to a prompt, r their rewards and t their parts (tokens):

        max  sum_t share_t [ min( rho_t A_t, clip(rho_t, 1 - clip_low, 1 + clip_high) A_t ) - kl ( ref/pi - log (ref/pi) - 1 ) ]

    rho_t is the ratio of the policy to itself before the update, 1 in the first of `epochs` passes. Every choice is a switch of its own:

        credit         what a part is credited with: "answer", the sum of its answer's rewards; "part", the rewards from this part on; "step",
                       the rewards of steps from this one on, each standardised among the steps first (DeepSeekMath, section 4.1.3)
        baseline       what is subtracted: the mean of the "group", of the others of it ("leave_one_out"), of the "batch", or "none"
        scale          what it is divided by: the standard deviation of the "group", of the "batch", or "none"
        normalisation  share_t: by "answer", the mean over the parts of each answer and then over answers; by "part", over all parts of the
                       batch; "constant", the sum over parts over answers times the longest there could be
        anchor         where the divergence from the reference counts: in the "loss" as above, in the "reward" as -kl log (pi / ref) of every
                       part, or "none"
        mask_truncated answers that were cut off before they ended do not count (overlong filtering)

    Means and standard deviations (of the population) are over what is credited, so that with credit "part" they are over parts. Answers of
    weight 0 do not count in them. A group whose rewards are all equal teaches nothing, whatever its scale. `named` gives the combinations
    that have a name (GRPO, Dr. GRPO, RLOO, REINFORCE++, Lite PPO, DAPO). Steps end where the batch says so, at the last part of each turn,
    and at the tokens `separators`. Defaults are GRPO's (kl 0.04, clip 0.2, rate 1e-6, one pass) with groups of 8.
    """

    baseline: Literal["group", "leave_one_out", "batch", "none"] = setting("group", "group, leave_one_out, batch or none")
    scale: Literal["group", "batch", "none"] = setting("group", "standard deviation of the group or the batch, or none")
    credit: Literal["answer", "part", "step"] = setting("answer", "answer, part or step")
    normalisation: Literal["answer", "part", "constant"] = setting("answer", "answer, part or constant")
    anchor: Literal["loss", "reward", "none"] = setting(
        "loss", "where the divergence from the reference counts: loss, reward or none"
    )
    kl: float = setting(0.04, "weight of the divergence from the reference, per nat", low=0.0)
    clip_low: float = setting(0.2, "how far the ratio counts below 1", low=0.0, high=1.0)
    clip_high: float = setting(0.2, "how far the ratio counts above 1", low=0.0)
    mask_truncated: bool = setting(False, "whether answers that were cut off before they ended are left out")
    separators: tuple[int, ...] = setting((), "ids of the tokens that end a step")
    learning_rate: float = setting(1e-6, "of Adam", above=0.0)
    largest_gradient: float = setting(1.0, "norm at which gradients are cut off", above=0.0)
    group: int = setting(8, "answers to each prompt", low=2)
    epochs: int = setting(1, "passes over each batch", low=1)
    batch_size: int = setting(16, "prompts per update", low=1)
    policy: Form | None = setting(None, "the form of the policy without a start; None chooses by the action space")

    title: ClassVar[str] = "Policy gradient of groups of answers"
    takes: ClassVar[tuple[str, ...]] = ("start", "reference")
    on_policy: ClassVar[bool] = True

    @staticmethod
    def named(name: str, **changes: Any) -> GroupPolicyGradient:
        """The settings of that name in the literature, with changes. Raises `BadInput` for a name that there is not."""
        if name not in NAMED:
            raise BadInput(f"there is no policy gradient of groups called {name!r}: choose one of {', '.join(NAMED)}")
        return GroupPolicyGradient(**(NAMED[name] | changes))

    @property
    def needs(self) -> Mapping[str, Request]:
        """Groups of rated answers of the policy as it is."""
        return {"answers": Answers(self.batch_size, group=self.group)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, Any]:
        """The policy, and the reference, which it equals unless another one is given; without an anchor there is none."""
        if self.credit == "step" and self.anchor == "reward":
            raise BadInput("rewards of steps are standardised and the divergence is none of them: set anchor to loss or none")
        state = anchored(self.policy, self.learning_rate, spec, key=key, given=given)
        policy = trained(state["policy"].model, self._optimiser())
        return {"policy": policy} if self.anchor == "none" else {**state, "policy": policy}

    def _optimiser(self) -> optax.GradientTransformation:
        return optax.chain(noting(), optax.clip_by_global_norm(self.largest_gradient), optax.adam(self.learning_rate))

    def advantages(
        self,
        reward: Float[Array, "batch group earned"],
        drift: Float[Array, "batch group part"],
        parts: Bool[Array, "batch group part"],
        weight: Float[Array, "batch group"],
        ends: Bool[Array, "batch group part"],
    ) -> Float[Array, "batch group part"]:
        """A of every part, 0 where there is none: from rewards, log (pi / ref) of parts (0 without an anchor in the reward), the weights of
        answers, and where steps end. Raises `BadInput` where credit goes to parts and rewards do not."""
        if self.credit != "answer" and reward.shape != parts.shape:
            raise BadInput(
                f"credit is {self.credit!r} and there is no reward for each part of an answer: take a scorer of parts, or credit 'answer'"
            )
        cost, counts = self.kl * jnp.where(parts, drift, 0.0), (weight > 0.0)[..., None]
        if self.credit == "answer":
            gain = (jnp.sum(reward, axis=-1) - jnp.sum(cost, axis=-1))[..., None]
        elif self.credit == "part":
            gain, counts = to_go(reward - cost), counts & parts
        else:
            gain, counts = reward, counts & ends

        total = lambda x, axes: jnp.sum(jnp.where(counts, x, 0.0), axis=axes, keepdims=True)
        mean = lambda x, axes: total(x, axes) / jnp.maximum(total(1.0, axes), 1.0)
        group, batch = (1, 2), (0, 1, 2)
        if self.baseline == "leave_one_out":
            others = total(1.0, group) - total(1.0, 2)
            apart = gain - (total(gain, group) - total(gain, 2)) / jnp.maximum(others, 1.0)
        else:
            apart = gain if self.baseline == "none" else gain - mean(gain, group if self.baseline == "group" else batch)
        if self.scale != "none":
            axes = group if self.scale == "group" else batch
            std = jnp.sqrt(mean((gain - mean(gain, axes)) ** 2, axes))
            apart = jnp.where(std > _SMALL, apart / (std + _SMALL), 0.0)
        apart = to_go(jnp.where(counts, apart, 0.0)) if self.credit == "step" else apart
        return jnp.where(parts, apart, 0.0)

    def shares(
        self, parts: Bool[Array, "batch group part"], weight: Float[Array, "batch group"]
    ) -> Float[Array, "batch group part"]:
        """What every part counts in the loss, as `normalisation` says, answers weighted; 0 where there is none."""
        counted = parts * weight[..., None]
        if self.normalisation == "part":
            return counted / jnp.maximum(jnp.sum(counted), _SMALL)
        longest = (
            parts.shape[-1] if self.normalisation == "constant" else jnp.maximum(jnp.sum(parts, axis=-1, keepdims=True), 1)
        )
        return counted / longest / jnp.maximum(jnp.sum(weight), _SMALL)

    def clipped(
        self, log_ratio: Float[Array, "batch group part"], advantage: Float[Array, "batch group part"]
    ) -> Float[Array, "batch group part"]:
        """What is maximised, of every part (Schulman et al. 2017, equation 7, with a bound for each side)."""
        ratio = jnp.exp(log_ratio)
        return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - self.clip_low, 1.0 + self.clip_high) * advantage)

    def update(
        self, state: dict[str, Any], batch: Rated, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """`epochs` steps on the batch. `gradient` is the norm of the last gradient before it is cut off, `entropy` minus the mean of log pi
        over parts in nats, `truncated` the share of answers that were cut off."""
        now = state["policy"].model
        log_probs = lambda policy: jax.lax.stop_gradient(group_log_probs(policy, batch.prompt, batch.sample))
        frozen = None if self.anchor == "none" else log_probs(reference_of(state))
        # In the only pass the policy before the update is the policy: nothing has to be computed twice.
        before = log_probs(now) if self.epochs > 1 or self.anchor == "reward" else None
        if isinstance(batch.sample, Tokens):
            parts, cut = batch.sample.kind == 2, cut_off(now, batch.sample)
        else:
            shape = jax.eval_shape(group_log_probs, now, batch.prompt, batch.sample).shape
            parts, cut = jnp.ones(shape, bool), jnp.zeros(batch.weight.shape, bool)
        weight = jnp.where(cut, 0.0, batch.weight) if self.mask_truncated else batch.weight
        free = before is None or frozen is None or self.anchor != "reward"
        drift = jnp.zeros(parts.shape) if free else before - frozen
        advantage = self.advantages(batch.reward, drift, parts, weight, self._ends(batch, parts))
        rows = parts.shape[0]
        share = rows * self.shares(parts, weight)  # the loss is a mean over prompts of sums of these

        def loss(policy: Policy, part: PyTree) -> tuple[Array, dict[str, Array]]:
            prompt, sample, parts, share, advantage, before, frozen = part
            log_probs = group_log_probs(policy, prompt, sample)
            log_ratio = log_probs - (jax.lax.stop_gradient(log_probs) if before is None else before)
            gain = self.clipped(log_ratio, advantage)
            if self.anchor == "loss":
                back = jnp.where(parts, frozen - log_probs, 0.0)
                gain = gain - self.kl * (jnp.exp(back) - back - 1.0)
            count = jnp.maximum(jnp.sum(parts), 1)
            told = {"log_ratio": jnp.max(jnp.abs(log_ratio)), "entropy": -jnp.sum(jnp.where(parts, log_probs, 0.0)) / count}
            if frozen is not None:
                told["kl"] = jnp.mean(jnp.sum(jnp.where(parts, log_probs - frozen, 0.0), axis=-1))
            return -jnp.sum(share * jnp.where(parts, gain, 0.0)) / parts.shape[0], told

        given = (batch.prompt, batch.sample, parts, share, advantage, before, frozen)
        largest = rows_at_once(batch.prompt, batch.sample)

        def one_pass(policy: Trained, _: None) -> tuple[Trained, tuple[Array, dict[str, Array], Array]]:
            policy, value, told = descend_in_parts(policy, loss, given, self._optimiser(), largest=largest)
            return policy, (value, told, policy.moments[0])

        policy, (values, told, norms) = jax.lax.scan(one_pass, state["policy"], None, length=self.epochs)
        reward = jnp.sum(batch.reward, axis=-1)
        metrics = {
            "surrogate": values[-1], "reward": jnp.mean(reward), "answers_apart": jnp.mean(jnp.std(reward, axis=1) > 0),
            "parts": jnp.mean(jnp.sum(parts, axis=-1)), "gradient": norms[-1], "truncated": jnp.mean(cut),
            "log_ratio": told["log_ratio"][-1], "kl": told["kl"][0] if "kl" in told else jnp.zeros(()), "entropy": told["entropy"][0],
        }  # fmt: skip
        return {**state, "policy": policy}, metrics

    def _ends(self, batch: Rated, parts: Bool[Array, "batch group part"]) -> Bool[Array, "batch group part"]:
        """Where steps end: where the batch says so, at the last part of each turn, and at the separators."""
        ends = parts & ~jnp.pad(parts, ((0, 0), (0, 0), (0, 1)))[..., 1:]
        ends = ends | (parts & batch.ends) if batch.ends.shape == parts.shape else ends
        if isinstance(batch.sample, Tokens) and self.separators:
            ends = ends | (parts & jnp.isin(batch.sample.ids, jnp.asarray(self.separators, jnp.int32)))
        return ends

    def products(self, state: dict[str, Any]) -> dict[str, Any]:
        """`policy`, `explorer` (the policy sampling), and the `reference` where there is one."""
        policy = state["policy"].model
        kept = {"reference": reference_of(state)} if "reference" in state else {}
        return {"policy": policy, "explorer": policy, **kept}


def to_go(each: Float[Array, "*batch part"]) -> Float[Array, "*batch part"]:
    """The sum from every part on."""
    return jnp.flip(jnp.cumsum(jnp.flip(each, -1), -1), -1)
