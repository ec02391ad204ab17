"""QR-DQN: distributional learning by quantile regression (Dabney et al. 2018, arXiv 1710.10044)."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock
from policylab.learners.offline.dqn import DQN, huber
from policylab.networks.optimisation import descend
from policylab.scorers.choice import ChoiceValue


def quantile_huber_loss(quantiles: Float[Array, " quantile"], goals: Float[Array, " goal"]) -> Float[Array, ""]:
    """Sum over quantiles of the mean over goals of |tau - 1(u < 0)| huber(u), u = goal - quantile (equation 10, kappa 1).

    Goals are constants: no gradient goes to them. That to the quantiles is written out, so that none of the quantile x goal
    tables has to be kept for a backward pass.
    """
    count, fixed = quantiles.shape[0], jax.lax.stop_gradient(quantiles)
    tau = (jnp.arange(count) + 0.5) / count
    error = jax.lax.stop_gradient(goals)[None, :] - fixed[:, None]
    weight = jnp.abs(tau[:, None] - (error < 0))
    slope = -jnp.mean(weight * jnp.clip(error, -1.0, 1.0), axis=1)
    return jnp.sum(jnp.mean(weight * huber(error), axis=1)) + jnp.sum(slope * (quantiles - fixed))


@settings
class QRDQN(DQN):
    r"""Learns `quantiles` equally likely returns of every choice; the choice with the highest mean is taken.

    As in the paper the target network picks the next choice (no double Q); 200 quantiles.
    """

    quantiles: int = setting(200, "returns per choice", low=1)
    double: bool = setting(False, "whether the critic, not its target, picks the next choice")

    title: ClassVar[str] = "Quantile-regression DQN"

    def fresh_critic(self, spec: Spec, key: PRNGKeyArray) -> ChoiceValue:
        """A critic that knows nothing."""
        shape: dict[str, Any] = {"width": self.width, "depth": self.depth}
        return ChoiceValue(spec, quantiles=self.quantiles, dueling=self.dueling, **shape, key=key)

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict, dict[str, Array]]:
        """The quantiles of the taken choices, and at the end of a period the target."""
        after = jax.vmap(state["target"].quantiles)(batch.next_observation)
        chooser = jax.vmap(state["critic"].model.values)(batch.next_observation) if self.double else after.mean(axis=-1)
        best = jax.vmap(lambda quantiles, a: quantiles[a])(after, jnp.argmax(chooser, axis=-1))
        goals = batch.reward[:, None] + (self.discount**batch.duration * batch.continues)[:, None] * best

        def loss(critic: ChoiceValue) -> tuple[Array, Array]:
            quantiles = jax.vmap(lambda o, a: critic.quantiles(o)[a])(batch.observation, batch.action)
            return jnp.mean(jax.vmap(quantile_huber_loss)(quantiles, goals)), jnp.mean(quantiles)

        critic, error, q = descend(state["critic"], loss, optax.adam(self.learning_rate))
        due = (clock.step + 1) % self.target_period == 0
        target = jax.lax.cond(due, lambda: critic.model, lambda: state["target"])
        state = {"critic": critic, "target": target, "epsilon": self.explored(state, clock)}
        return state, {"critic_loss": error, "q": q}
