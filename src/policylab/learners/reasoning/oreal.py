"""OREAL: imitate what is right, push down what is wrong, and let a token reward say where (Lyu et al. 2025, arXiv 2502.06781)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from policylab.errors import BadInput
from policylab.experience import Rated, Spec, Tokens
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request
from policylab.networks.optimisation import Trained, descend, noting, select, trained
from policylab.policies.anchoring import anchored, reference_of
from policylab.policies.answering import Answers, group_log_probs
from policylab.policies.language import LanguagePolicy
from policylab.policy import Form, Policy
from policylab.scorers.token_reward import TokenReward, likely_right, likely_wrong, token_reward

_SMALL = 1e-6


@settings
class OREAL(Learner):
    r"""Of each prompt whose answers are neither all right nor all wrong, one right answer y+ and one wrong answer y- (by chance):

        min  - sum_t u+_t A+ log pi(y+_t) / |y+|  +  negative sum_t u-_t |A-| log [ pi(y-_t) / pi_old(y-_t) ] / |y-|  +  kl KL(pi || ref)

    each sum over all tokens of the batch over their number. A is leave-one-out, r_i minus the mean of the other answers (RLOO): with pass
    rate p it is 1 - p where an answer is right and -p where it is wrong, so that the wrong answers are weighted as best-of-n sampling
    demands (section 3.2). u are weights by a token reward w, which learns from outcomes alone that sigma( mean_t w_t ) is whether the answer is
    right: u+ = max(2 sigma(w) - 1, 0), u- = max(1 - 2 sigma(w), 0). For the first `warm_up` updates only it is trained. The divergence is
    estimated by ref/pi - log (ref/pi) - 1.

    Switches: `token_weights=False` sets u to 1 and needs no token reward (any policy with log-probabilities will do), `reshaped=False`
    sets A to 1 and -1, `negative=0` clones the right answers alone. Small models need more to learn a token reward from: `reward_of_all`,
    `reward_passes`. Defaults are those of the released configuration: 64 prompts, 16 answers,
    negative 0.5, kl 0.01, rates 5e-7 and 2e-6, weight decay 0.01, ten updates of warm-up; the rates do not fall here.
    """

    negative: float = setting(0.5, "weight of the wrong answers", low=0.0)
    kl: float = setting(0.01, "weight of the divergence from the reference, per nat", low=0.0)
    token_weights: bool = setting(True, "whether a learned token reward says which tokens count")
    reshaped: bool = setting(True, "whether answers count by their leave-one-out advantage, else by 1 and -1")
    threshold: float = setting(0.5, "answers with a reward above it are right")
    learning_rate: float = setting(5e-7, "of AdamW, of the policy", above=0.0)
    reward_rate: float = setting(2e-6, "of AdamW, of the token reward", above=0.0)
    reward_of_all: bool = setting(False, "whether the token reward learns from all answers, else from the chosen ones")
    reward_passes: int = setting(1, "passes of the token reward over each batch", low=1)
    weight_decay: float = setting(0.01, "decoupled, per unit of learning rate", low=0.0)
    largest_gradient: float = setting(1.0, "norm at which gradients are cut off", above=0.0)
    warm_up: int = setting(10, "updates that train the token reward alone", low=0)
    group: int = setting(16, "answers to each prompt", low=2)
    batch_size: int = setting(64, "prompts per update", low=1)
    policy: Form | None = setting(None, "the form of the policy without a start; None chooses by the action space")

    title: ClassVar[str] = "Outcome-reward learning with token weights"
    takes: ClassVar[tuple[str, ...]] = ("start", "reference")
    on_policy: ClassVar[bool] = True

    @property
    def needs(self) -> Mapping[str, Request]:
        """Groups of rated answers of the policy as it is."""
        return {"answers": Answers(self.batch_size, group=self.group)}

    def _optimiser(self, rate: Any) -> optax.GradientTransformation:
        clipped = optax.clip_by_global_norm(self.largest_gradient)
        return optax.chain(noting(), clipped, optax.adamw(rate, weight_decay=self.weight_decay))

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, Any]:
        """The policy, the reference, and a token reward with the start's weights. Raises `BadInput` for token weights of no text."""
        state = anchored(self.policy, self.learning_rate, spec, key=key, given=given)
        start = state["policy"].model
        state = {**state, "policy": trained(start, self._optimiser(self.learning_rate))}
        if not self.token_weights:
            return state
        if not isinstance(start, LanguagePolicy):
            raise BadInput(
                f"token weights are read by a language policy and start is a {type(start).__name__}: set token_weights=False"
            )
        return {**state, "reward": trained(token_reward(start), self._optimiser(self.reward_rate))}

    def advantages(self, right: Float[Array, "batch group"]) -> Float[Array, "batch group"]:
        """r_i - mean of the others; or 1 and -1."""
        others = (jnp.sum(right, axis=1, keepdims=True) - right) / (self.group - 1)
        return right - others if self.reshaped else 2.0 * right - 1.0

    def losses(
        self,
        log_probs: Float[Array, "batch two part"],
        before: Float[Array, "batch two part"],
        frozen: Float[Array, "batch two part"],
        weights: Float[Array, "batch two part"],
        advantage: Float[Array, "batch two"],
        counts: Bool[Array, "batch two part"],
    ) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
        """The three terms, of right and wrong answers [batch, (right, wrong), part]: imitation, what is pushed down, divergence."""
        mean = lambda x, of: jnp.sum(jnp.where(of, x, 0.0)) / jnp.maximum(jnp.sum(of), 1)
        each = weights * jnp.abs(advantage)[..., None]
        imitated = -mean((each * log_probs)[:, 0], counts[:, 0])
        pushed = mean((each * (log_probs - before))[:, 1], counts[:, 1])
        back = jnp.where(counts, frozen - log_probs, 0.0)
        return imitated, pushed, mean(jnp.exp(back) - back - 1.0, counts)

    def update(
        self, state: dict[str, Any], batch: Rated, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """One step of the token reward and, after the warm-up, one of the policy."""
        right = (jnp.sum(batch.reward, axis=-1) > self.threshold).astype(jnp.float32)
        rate = jnp.mean(right, axis=1)
        learned = (rate > 0.0) & (rate < 1.0) & jnp.all(batch.weight > 0.0, axis=1)
        sample, advantage = self._chosen(batch, right, key)
        before = jax.lax.stop_gradient(group_log_probs(state["policy"].model, batch.prompt, sample))
        frozen = jax.lax.stop_gradient(group_log_probs(reference_of(state), batch.prompt, sample))
        parts = sample.kind == 2 if isinstance(sample, Tokens) else jnp.ones(before.shape, bool)
        counts = parts & learned[:, None, None]
        told = {"reward": jnp.mean(right), "learned": jnp.mean(learned), "parts": jnp.mean(jnp.sum(parts, axis=-1))}
        weights = jnp.ones(before.shape)
        if self.token_weights:
            chosen = (
                sample,
                jnp.broadcast_to(jnp.asarray([1.0, 0.0]), (*learned.shape, 2)),
                jnp.repeat(learned[:, None], 2, axis=1),
            )
            seen = (batch.sample, right, batch.weight) if self.reward_of_all else (*chosen[:2], chosen[2].astype(jnp.float32))
            reward, told["outcome_loss"], told["outcome_accuracy"] = self._fit(state["reward"], batch.prompt, *seen)
            weights = jax.lax.stop_gradient(self._weights(reward.model, batch.prompt, sample))
            state = {**state, "reward": reward}

        def loss(policy: Policy) -> tuple[Array, tuple[Array, ...]]:
            log_probs = group_log_probs(policy, batch.prompt, sample)
            terms = self.losses(log_probs, before, frozen, weights, advantage, counts)
            return terms[0] + self.negative * terms[1] + self.kl * terms[2], terms

        policy, _, terms = descend(state["policy"], loss, self._optimiser(self.learning_rate))
        if self.token_weights:
            policy = select(clock.step < self.warm_up, state["policy"], policy)
        told |= dict(zip(("imitated", "pushed", "divergence"), terms, strict=True))
        return {**state, "policy": policy}, {**told, "gradient": policy.moments[0]}

    def _chosen(
        self, batch: Rated, right: Float[Array, "batch group"], key: PRNGKeyArray
    ) -> tuple[Any, Float[Array, "batch two"]]:
        """One right and one wrong answer to each prompt by chance, leaves [batch, 2, ...], and their advantages."""
        chance = jax.random.uniform(key, (2, *right.shape))
        member = jnp.argmax(chance + 2.0 * jnp.stack([right, 1.0 - right]), axis=-1).T
        take = lambda leaf: jnp.take_along_axis(leaf, member.reshape(*member.shape, *[1] * (leaf.ndim - 2)), axis=1)
        return jax.tree.map(take, batch.sample), take(self.advantages(right))

    def _weights(self, reward: TokenReward, prompt: Tokens, sample: Tokens) -> Float[Array, "batch two part"]:
        w = jnp.stack([reward.weights(prompt, jax.tree.map(lambda leaf, i=i: leaf[:, i], sample)) for i in range(2)], axis=1)
        return jnp.stack([likely_right(w[:, 0]), likely_wrong(w[:, 1])], axis=1)

    def _fit(
        self,
        state: Trained,
        prompt: Tokens,
        samples: Tokens,
        right: Float[Array, "batch some"],
        weight: Float[Array, "batch some"],
    ) -> tuple[Trained, Float[Array, ""], Float[Array, ""]]:
        """Steps of the token reward on whether answers are right; the last loss, and how often it said so."""
        many = jax.tree.map(lambda leaf: jnp.repeat(leaf[:, None], right.shape[1], axis=1), prompt)
        share = weight / jnp.maximum(jnp.sum(weight), _SMALL)

        def loss(reward: TokenReward) -> tuple[Array, Array]:
            length = jnp.maximum(jnp.sum(samples.kind == 2, axis=-1), 1)
            signed = jnp.sum(reward.weights(many, samples), axis=-1) / length * (2.0 * right - 1.0)
            return -jnp.sum(share * jax.nn.log_sigmoid(signed)), jnp.sum(share * (0.5 + 0.5 * jnp.sign(signed)))

        def one_pass(state: Trained, number: None) -> tuple[Trained, tuple[Array, Array]]:
            state, value, accuracy = descend(state, loss, self._optimiser(self.reward_rate))
            return state, (value, accuracy)

        state, (values, accuracies) = jax.lax.scan(one_pass, state, None, length=self.reward_passes)
        return state, values[-1], accuracies[0]

    def products(self, state: dict[str, Any]) -> dict[str, Any]:
        """`policy`, `explorer` (the policy sampling), `reference`, and `reward`, a score of every token, where one is learned."""
        policy = state["policy"].model
        kept = {"reward": state["reward"].model} if "reward" in state else {}
        return {"policy": policy, "explorer": policy, "reference": reference_of(state), **kept}
