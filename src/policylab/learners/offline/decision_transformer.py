"""Decision Transformer: offline learning as sequence modelling (Chen et al. 2021, arXiv 2106.01345)."""

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
from policylab.networks.frozen import observation_normaliser
from policylab.networks.mlp import MLP
from policylab.networks.optimisation import descend, trained
from policylab.policies.conditioned import conditioned_spec
from policylab.policies.returning import Promise, Returning
from policylab.policies.sequence import Sequence
from policylab.policy import imitation_loss

_REWARD_OPTIMISER = optax.adam(1e-3)  # of the network that is no part of the paper's method


@settings
class DecisionTransformer(Learner):
    r"""min E[ imitation_loss(a_t | ..., R_{t-1}, s_{t-1}, a_{t-1}, R_t, s_t) ], R_t the sum of rewards from step t to the end of the episode.

    Acting asks for `share` of the largest return of the data at first, and for what is left of it from then on. What is taken off is
    the reward that a small network, fitted beside, expects of (s, a), not the reward that came: policies do not see rewards. This
    differs from the paper where rewards are random. Other settings are the paper's for locomotion (table 9); its warm-up of the
    learning rate and its dropout are left out.
    """

    share: float = setting(1.0, "what is asked for, as a share of the largest return of the data", low=0.0)
    scale: float = setting(1000.0, "returns are divided by this before the network sees them", above=0.0)
    learning_rate: float = setting(1e-4, "of AdamW", above=0.0)
    weight_decay: float = setting(1e-4, "of AdamW", low=0.0)
    largest_gradient: float = setting(0.25, "gradients are scaled down to this norm", above=0.0)
    batch_size: int = setting(64, "windows per update", low=1)
    policy: Sequence = setting(Sequence(), "the transformer, its context and its head")

    title: ClassVar[str] = "Decision Transformer"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Windows that end with a step, and the returns to go."""
        return {"windows": Windows(self.batch_size, past=self.policy.past, fields=("return_to_go",))}

    def _optimiser(self) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(self.largest_gradient), optax.adamw(self.learning_rate, weight_decay=self.weight_decay)
        )

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """A fresh transformer, a fresh network of rewards, and no return seen yet."""
        policy_key, reward_key = jax.random.split(key)
        inputs = spaces.size(spec.observation) + spaces.size(spec.action)
        policy = self.policy.build(conditioned_spec(spec, spaces.Box((1,))), key=policy_key)
        account = Returning(
            policy, MLP(inputs, 1, width=self.policy.width, depth=2, key=reward_key), observation_normaliser(spec),
            Promise(jnp.zeros(()), jnp.asarray(self.scale, jnp.float32)), spec.observation, spec.action,
        )  # fmt: skip
        return {
            "policy": trained(account.policy, self._optimiser()),
            "reward": trained(account.reward, _REWARD_OPTIMISER),
            "account": replace(account, policy=None, reward=None),
            "largest": jnp.full((), -jnp.inf),
        }

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """One step on the imitation loss of all steps of the windows, and one on the squared error of the expected rewards."""
        returns, weight, account = batch.extra["return_to_go"], batch.weight, state["account"]
        told = {"observation": batch.observation, "condition": returns[..., None] / self.scale}
        seen = replace(batch, observation=told, memory=None)
        mean = lambda each: jnp.sum(weight * each) / jnp.maximum(jnp.sum(weight), 1.0)

        def reward_loss(reward: MLP) -> tuple[Float[Array, ""], None]:
            expected = jax.vmap(jax.vmap(replace(account, reward=reward).expected))(batch.observation, batch.action)
            return mean((expected - batch.reward) ** 2), None

        policy, imitation, _ = descend(
            state["policy"], lambda policy: (mean(imitation_loss(policy, seen, key=key)), None), self._optimiser()
        )
        reward, error, _ = descend(state["reward"], reward_loss, _REWARD_OPTIMISER)
        largest = jnp.maximum(state["largest"], jnp.max(jnp.where(weight > 0, returns, -jnp.inf)))
        state = {"policy": policy, "reward": reward, "account": account, "largest": largest}
        return state, {"imitation_loss": imitation, "reward_error": error, "largest": largest}

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy`: asked for the largest return; before any data for a return of 0."""
        asked = jnp.where(jnp.isfinite(state["largest"]), self.share * state["largest"], 0.0)
        promise = replace(state["account"].promise, target=asked)
        policy = replace(state["account"], policy=state["policy"].model, reward=state["reward"].model, promise=promise)
        return {"policy": policy, "explorer": policy}
