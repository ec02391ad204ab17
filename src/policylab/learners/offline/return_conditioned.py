"""Return-conditioned behaviour cloning: supervised learning told the return (Schmidhuber 2019; Kumar, Peng and Levine 2019, arXiv
1912.13465; Emmons et al. 2021, "RvS", arXiv 2112.10751)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Windows
from policylab.networks.optimisation import descend, trained
from policylab.policies.categorical import Categorical
from policylab.policies.conditioned import Conditioned, conditioned_spec
from policylab.policies.gaussian import Gaussian
from policylab.policy import Form


@settings
class ReturnConditioned(Learner):
    r"""min E[ -log pi(a_t | s_t, R_t) ] with R_t the return of the next `future` steps; acting asks for `share` of the largest R_t that
    the data hold.

    This is what a Decision Transformer (Chen et al. 2021, arXiv 2106.01345) learns in a process whose state is seen. Where outcomes
    are luck, asking for a high return asks for the actions that the lucky took, not for those that bring luck: pi(a | s, R) is
    proportional to behaviour(a | s) p(R | s, a). Rewards already had are not taken off the return that is asked for, since policies
    do not see them.
    """

    future: int = setting(1, "steps whose rewards make the return", low=1)
    discount: float = setting(1.0, "gamma per step", low=0.0, high=1.0)
    share: float = setting(1.0, "what is asked for, as a share of the largest return of the data", low=0.0)
    learning_rate: float = setting(1e-3, "of Adam", above=0.0)
    batch_size: int = setting(64, "windows per update", low=1)
    width: int = setting(64, "units per hidden layer", low=1)
    depth: int = setting(2, "hidden layers", low=1)
    policy: Form | None = setting(None, "the form of pi; None chooses by the action space")

    title: ClassVar[str] = "Return-conditioned behaviour cloning"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Windows of the future."""
        return {"windows": Windows(self.batch_size, future=self.future)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """A fresh policy, and no return seen yet."""
        shape: dict[str, Any] = {"width": self.width, "depth": self.depth}
        form = self.policy or (Categorical(**shape) if isinstance(spec.action, spaces.Discrete) else Gaussian(**shape))
        policy = form.build(conditioned_spec(spec, spaces.Box((1,))), key=key)
        return {"policy": trained(policy, optax.adam(self.learning_rate)), "largest": jnp.full((), -jnp.inf)}

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """One step on the imitation loss of the windows' first actions."""
        returns = jnp.sum(batch.reward * batch.valid * self.discount ** jnp.arange(batch.reward.shape[1]), axis=1)
        first = jax.tree.map(lambda leaf: leaf[:, :1], replace(batch, memory=None))
        first = replace(first, observation={"observation": first.observation, "condition": returns[:, None, None]})
        weight, keys = first.weight[:, 0], jax.random.split(key, returns.shape[0])

        def loss(policy: Any) -> tuple[Float[Array, ""], None]:
            each = jax.vmap(lambda window, k: policy.imitation_loss(window, key=k))(first, keys)[:, 0]
            return jnp.sum(weight * each) / jnp.maximum(jnp.sum(weight), 1.0), None

        policy, value, _ = descend(state["policy"], loss, optax.adam(self.learning_rate))
        largest = jnp.maximum(state["largest"], jnp.max(jnp.where(weight > 0, returns, -jnp.inf)))
        return {"policy": policy, "largest": largest}, {"imitation_loss": value, "largest": largest}

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy`: what was learned, asked for the largest return; before any data for a return of 0."""
        asked: Array = jnp.where(jnp.isfinite(state["largest"]), self.share * state["largest"], 0.0)
        policy = Conditioned(state["policy"].model, asked[None])
        return {"policy": policy, "explorer": policy}
