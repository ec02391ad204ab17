"""REINFORCE: the policy gradient of whole episodes (Williams 1992, "Simple statistical gradient-following algorithms", ML 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from policylab import spaces
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, WholeEpisodes
from policylab.networks.optimisation import Trained, descend, trained
from policylab.policies.categorical import Categorical
from policylab.policies.gaussian import Gaussian
from policylab.policy import Form, log_prob


@settings
class REINFORCE(Learner):
    r"""One gradient step on `episodes` whole episodes of the policy as it is:

        max E[ sum_t log pi(a_t | s_t) (G_t - b_t) ],   G_t = sum_{k >= t} gamma^(k - t) r_k

    The baseline b_t is the mean of G_t over the *other* episodes at the same time since their start (0 for those that are over), which
    leaves the gradient unbiased; without `baseline` it is 0. Nothing is bootstrapped: what a time limit cuts off counts as 0. The
    sum over steps is divided by the number of episodes and by `scale`, a constant that makes gradients comparable between horizons.
    """

    discount: float = setting(0.99, "gamma per step", low=0.0, high=1.0)
    learning_rate: float = setting(1e-3, "of Adam", above=0.0)
    baseline: bool = setting(True, "whether the mean of the other episodes is subtracted")
    scale: float = setting(100.0, "the sum over an episode's steps is divided by this", above=0.0)
    episodes: int = setting(16, "episodes per update, at least 2 with a baseline", low=1)
    width: int = setting(64, "hidden units, unless the form is given", low=1)
    depth: int = setting(2, "hidden layers, unless the form is given", low=1)
    policy: Form | None = setting(None, "the form of the policy; None chooses by the action space")

    title: ClassVar[str] = "Policy gradient of whole episodes"
    uses: ClassVar[tuple[str, ...]] = ("reward",)
    on_policy: ClassVar[bool] = True

    @property
    def needs(self) -> Mapping[str, Request]:
        """Whole episodes."""
        return {"episodes": WholeEpisodes(self.episodes)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> Trained:
        """A fresh policy."""
        own = Gaussian(width=self.width, depth=self.depth, activation="tanh", squash="sample")
        if isinstance(spec.action, spaces.Discrete):
            own = Categorical(width=self.width, depth=self.depth, activation="tanh")
        return trained((self.policy or own).build(spec, key=key), optax.adam(self.learning_rate))

    def update(self, state: Trained, batch: Window, *, clock: Clock, key: PRNGKeyArray) -> tuple[Trained, dict[str, Array]]:
        """One step on the whole batch."""
        gain = discounted_to_go(jnp.where(batch.valid, batch.reward, 0.0), self.discount)
        count = gain.shape[0]
        others = (jnp.sum(gain, axis=0) - gain) / max(count - 1, 1)
        advantage = gain - others if self.baseline and count > 1 else gain

        def loss(policy: Any) -> tuple[Array, None]:
            return -jnp.sum(batch.weight * log_prob(policy, batch) * advantage) / (count * self.scale), None

        state, error, _ = descend(state, loss, optax.adam(self.learning_rate))
        return state, {
            "policy_loss": error, "return": jnp.mean(jnp.sum(jnp.where(batch.valid, batch.reward, 0.0), axis=1)),
            "length": jnp.mean(jnp.sum(batch.valid, axis=1)),
        }  # fmt: skip

    def products(self, state: Trained) -> dict[str, Any]:
        """`policy` and `explorer` (the policy sampling)."""
        return {"policy": state.model, "explorer": state.model}


def discounted_to_go(reward: Float[Array, "episode time"], discount: Float[Array, ""] | float) -> Float[Array, "episode time"]:
    """G_t = r_t + discount G_{t+1}, of every row."""

    def back(later: Array, now: Array) -> tuple[Array, Array]:
        here = now + discount * later
        return here, here

    return jax.lax.scan(back, jnp.zeros(reward.shape[0]), reward.T, reverse=True)[1].T
