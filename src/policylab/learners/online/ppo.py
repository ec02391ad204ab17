"""PPO: proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Request, Windows
from policylab.learners.online.a2c import A2C
from policylab.networks.optimisation import Trained, descend
from policylab.policy import log_prob


@settings
class PPO(A2C):
    r"""Several epochs of minibatches on every window of fresh experience:

        max E[ min( w A, clip(w, 1 - epsilon, 1 + epsilon) A ) - value_weight (V(s) - R)^2 + entropy_weight H ]   (equations 7 and 9)
        w = pi(a | s) / pi_old(a | s),   A by generalised advantage estimation,   R = A + V_old(s)

    pi_old is the log-probability that the source stored when it acted. Advantages are normalised per minibatch. Settings are those
    of the paper's continuous control (table 3), with Adam's epsilon 1e-5, gradients clipped at norm 0.5 and
    normalised observations as its code has them (rewards are left as they are).
    With many compiled environments, ask for more of them and fewer steps: PPO(environments=32, steps=64).
    """

    trace: float = setting(0.95, "lambda of the generalised advantage", low=0.0, high=1.0)
    learning_rate: float = setting(3e-4, "of Adam, at the start", above=0.0)
    entropy_weight: float = setting(0.0, "weight of the entropy in nats", low=0.0)
    environments: int = setting(1, "copies of the environment per update", low=1)
    steps: int = setting(2048, "steps of each copy per update", low=1)
    clip: float = setting(0.2, "epsilon: how far the ratio pays", above=0.0)
    epochs: int = setting(10, "passes over each batch", low=1)
    batch_size: int = setting(64, "steps per minibatch; it divides environments x steps", low=1)
    normalise: bool = setting(True, "whether observations are normalised by the mean and deviation of all that were seen")
    normalise_advantages: bool = setting(True, "whether each minibatch's advantages get mean 0 and deviation 1")

    title: ClassVar[str] = "Proximal policy optimisation"

    @property
    def needs(self) -> Mapping[str, Request]:
        """Windows [environment, time] with the log-probability of the policy that acted."""
        return {"windows": Windows(self.environments, future=self.steps, fields=("log_prob",))}

    def optimiser(self, clock: Clock | None = None) -> optax.GradientTransformation:
        """Adam on clipped gradients."""
        return optax.chain(optax.clip_by_global_norm(self.largest_gradient), optax.adam(self.rate(clock), eps=1e-5))

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """All epochs on one batch. Raises `BadInput` if minibatches do not divide it."""
        rows = batch.reward.size
        if rows % self.batch_size:
            raise BadInput(
                f"PPO.batch_size is {self.batch_size}, which does not divide the {rows} steps of a batch: choose one that does"
            )
        advantage, goal = self.judged(state["model"].model, batch)
        flat = jax.tree.map(lambda leaf: leaf.reshape(rows, *leaf.shape[2:]), (replace(batch, memory=None), advantage, goal))

        def minibatch(model: Trained, chosen: tuple[Int[Array, " row"], PRNGKeyArray]) -> tuple[Trained, dict[str, Array]]:
            index, noise = chosen
            part = jax.tree.map(lambda leaf: leaf[index], flat)
            model, _, metrics = descend(model, lambda m: self._loss(m, *part, noise), self.optimiser(clock))
            return model, metrics

        def epoch(model: Trained, key: PRNGKeyArray) -> tuple[Trained, dict[str, Array]]:
            order = jax.random.permutation(key, rows).reshape(-1, self.batch_size)
            return jax.lax.scan(minibatch, model, (order, jax.random.split(key, order.shape[0])))

        model, metrics = jax.lax.scan(epoch, state["model"], jax.random.split(key, self.epochs))
        spread = jnp.var(goal) + 1e-8
        return self.learned(state, model, batch), {
            **{name: jnp.mean(value) for name, value in metrics.items()},
            "kl": jnp.mean(metrics["kl"][-1]),
            "explained": 1.0 - jnp.var(advantage) / spread,
        }

    def _loss(
        self,
        model: Mapping[str, Any],
        batch: Window,
        advantage: Float[Array, " row"],
        goal: Float[Array, " row"],
        key: PRNGKeyArray,
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        total = jnp.maximum(jnp.sum(batch.weight), 1e-6)
        mean = lambda each: jnp.sum(batch.weight * each) / total
        if self.normalise_advantages:
            centred = advantage - mean(advantage)
            advantage = centred / (jnp.sqrt(mean(centred**2)) + 1e-8)
        log_ratio = log_prob(model["policy"], batch) - batch.extra["log_prob"]
        policy_error = -mean(clipped_objective(log_ratio, advantage, self.clip))
        value_error = mean((jax.vmap(model["value"])(batch.observation) - goal) ** 2)
        entropy = mean(self.entropies(model["policy"], batch.observation, key=key))
        ratio = jnp.exp(log_ratio)
        return policy_error + self.value_weight * value_error - self.entropy_weight * entropy, {
            "policy_loss": policy_error, "value_loss": value_error, "entropy": entropy,
            "kl": mean(ratio - 1.0 - log_ratio),  # an estimate that is never negative
            "clipped": mean(jnp.abs(ratio - 1.0) > self.clip),
        }  # fmt: skip


def clipped_objective(
    log_ratio: Float[Array, "*batch"], advantage: Float[Array, "*batch"], clip: Float[Array, ""] | float
) -> Float[Array, "*batch"]:
    """min( w A, clip(w, 1 - clip, 1 + clip) A ) with w = exp(log_ratio) (equation 7)."""
    ratio = jnp.exp(log_ratio)
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)
