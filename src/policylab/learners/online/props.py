"""PROPS: on-policy learning without on-policy sampling, by a second policy that makes up for what chance left out (Corrado and Hanna
2023, arXiv 2311.08290)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import Unsupported
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Sometimes
from policylab.learners.online.ppo import PPO
from policylab.networks.optimisation import Trained, descend, select, trained
from policylab.policy import Policy, log_prob


@settings
class PROPS(PPO):
    r"""PPO on the last `batches` batches as if they were on-policy, while a behaviour policy pi_phi acts such that they nearly are:

        after every `steps` steps: phi <- theta, then over all (s, a) that are kept
            min E[ max( rho, clip(rho, 1 - epsilon, 1 + epsilon) ) + lambda KL( pi_theta(. | s) || pi_phi(. | s) ) ],
            rho = pi_phi(a | s) / pi_theta(a | s)                                                   (equations 5 to 7)
        after every `period` times `steps` steps: PPO for theta on all that is kept, against log-probabilities and advantages of the
            theta of that moment; then the oldest batch goes.

    Actions that the kept data have more often than pi_theta would become less likely. Its source is a Rollout; `policy` is pi_theta and
    `explorer` pi_phi. With `behaviour_epochs` 0 it is PPO on a buffer of several batches, with `batches` 1 in addition plain PPO; ROS
    (Zhong et al. 2022) is steps=1, behaviour_epochs=1, behaviour_parts=1 and no clip or KL to speak of. Settings follow the authors' code for
    choices (a clip of 0.3, lambda 0.1, phi stops where the mean KL exceeds 0.03); we follow the paper where that code does not reset phi.
    PPO does not stop early here. For policies without memory.
    """

    learning_rate: float = setting(1e-3, "of Adam for theta, at the start", above=0.0)
    entropy_weight: float = setting(0.01, "weight of the entropy in nats", low=0.0)
    steps: int = setting(16, "m: steps of each copy between updates of phi", low=1)
    period: int = setting(16, "updates of phi per update of theta: a batch is steps x period of each copy", low=1)
    batches: int = setting(2, "b: batches that are kept", low=1)
    epochs: int = setting(4, "passes of PPO over what is kept", low=1)
    normalise: bool = setting(False, "whether observations are normalised by the mean and deviation of all that were seen")
    behaviour_rate: float = setting(1e-3, "of Adam for phi, begun anew at every update", above=0.0)
    behaviour_epochs: int = setting(4, "passes over what is kept per update of phi; 0: phi is theta", low=0)
    behaviour_parts: int = setting(4, "minibatches of each of these passes", low=1)
    behaviour_clip: float = setting(0.3, "epsilon for phi", above=0.0)
    behaviour_kl: float = setting(0.1, "lambda, weight of the KL divergence", low=0.0)
    behaviour_stop: float = setting(0.03, "phi's update ends where the mean KL divergence exceeds this", above=0.0)

    title: ClassVar[str] = "Proximal robust on-policy sampling"

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Fresh networks, phi equal to theta, and nothing kept."""
        state = PPO.init(self, spec, key=key, given=given)
        return {**state, "behaviour": state["model"].model["policy"], "kept": self._nothing(spec)}

    def _nothing(self, spec: Spec) -> Window:
        shape = (self.environments, self.batches * self.period * self.steps)
        fill = lambda leaf: jnp.zeros((*shape, *jnp.shape(leaf)), jnp.asarray(leaf).dtype)
        observation, action = (jax.tree.map(fill, spaces.zeros(space)) for space in (spec.observation, spec.action))
        no, number = jnp.zeros(shape, bool), jnp.zeros(shape)
        return Window(
            observation, action, number, observation, no, no, no, jnp.ones(shape, jnp.int32), extra={"log_prob": number}
        )  # fmt: skip

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """Keeps the new steps; theta where it is time; then phi."""
        target_key, behaviour_key = jax.random.split(key)
        batch = replace(batch, memory=None, extra={"log_prob": batch.extra["log_prob"]})
        push = lambda old, new: jnp.concatenate([old[:, self.steps :], new.astype(old.dtype)], axis=1)
        state = {**state, "kept": jax.tree.map(push, state["kept"], batch)}
        learn = lambda state: self._target(state, clock, target_key)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(learn, state)[1])
        gathered = clock.step % self.period + 1  # parts of the newest batch
        due = gathered == self.period
        state, metrics = jax.lax.cond(due, learn, lambda state: (state, nothing), state)
        # After an update of theta the oldest batch is gone: only the rest is made up for.
        length = self.steps * (self.period * (self.batches - 1) + jnp.where(due, 0, gathered))
        recent = jnp.arange(self.steps * self.period * self.batches) >= self.steps * self.period * self.batches - length
        behaviour, kl = self._behaviour(state["model"].model["policy"], state["kept"], recent, behaviour_key)
        return {**state, "behaviour": behaviour}, {
            **{name: Sometimes(value, due) for name, value in metrics.items()}, "behaviour_kl": kl,
        }  # fmt: skip

    def _target(self, state: dict[str, PyTree], clock: Clock, key: PRNGKeyArray) -> tuple[dict[str, PyTree], dict[str, Any]]:
        kept = state["kept"]
        now = log_prob(state["model"].model["policy"], kept)
        return PPO.update(self, state, replace(kept, extra={"log_prob": now}), clock=clock, key=key)

    def learned(self, state: dict[str, PyTree], model: Trained, batch: Window) -> dict[str, PyTree]:
        """As of PPO; normalisers see each step once."""
        newest = jax.tree.map(lambda leaf: leaf[:, -self.steps * self.period :], batch)
        return PPO.learned(self, state, model, newest)

    def _behaviour(
        self, target: Policy, kept: Window, recent: Bool[Array, " time"], key: PRNGKeyArray
    ) -> tuple[Policy, Float[Array, ""]]:
        """pi_phi from pi_theta, and the mean KL divergence between them."""
        if self.behaviour_epochs == 0:
            return target, jnp.zeros(())
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), replace(kept, valid=kept.valid & recent))
        old, rows = log_prob(target, flat), flat.reward.shape[0]
        optimiser = optax.chain(optax.clip_by_global_norm(self.largest_gradient), optax.adam(self.behaviour_rate, eps=1e-5))
        size = -(-rows // self.behaviour_parts)

        def part(carry: tuple[Trained, Array, Array], chosen: tuple[Array, PRNGKeyArray]) -> tuple[tuple, None]:
            state, going, _ = carry
            index, noise = chosen
            some, before = jax.tree.map(lambda leaf: leaf[index], (flat, old))
            moved, _, kl = descend(state, lambda policy: self._behaviour_loss(policy, target, some, before, noise), optimiser)
            going &= kl <= self.behaviour_stop
            return (select(going, moved, state), going, kl), None

        def epoch(carry: tuple, key: PRNGKeyArray) -> tuple[tuple, None]:
            order = jax.random.permutation(key, jnp.arange(size * self.behaviour_parts) % rows).reshape(
                self.behaviour_parts, size
            )
            return jax.lax.scan(part, carry, (order, jax.random.split(key, self.behaviour_parts)))

        start = (trained(target, optimiser), jnp.asarray(True), jnp.zeros(()))
        (state, _, kl), _ = jax.lax.scan(epoch, start, jax.random.split(key, self.behaviour_epochs))
        return state.model, kl

    def _behaviour_loss(
        self, policy: Policy, target: Policy, batch: Window, before: Float[Array, " row"], key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        mean = lambda each: jnp.sum(batch.weight * each) / jnp.maximum(jnp.sum(batch.weight), 1.0)
        kl = mean(divergences(target, policy, batch, key=key))
        return mean(avoided(log_prob(policy, batch) - before, self.behaviour_clip)) + self.behaviour_kl * kl, kl

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy` (theta), `explorer` (phi) and `value` (of the state)."""
        return {**PPO.products(self, state), "explorer": state["behaviour"]}


def avoided(log_ratio: Float[Array, "*row"], clip: Float[Array, ""] | float) -> Float[Array, "*row"]:
    """max( rho, clip(rho, 1 - clip, 1 + clip) ): what every action that was seen costs (PPO's objective with an advantage of -1)."""
    ratio = jnp.exp(log_ratio)
    return jnp.maximum(ratio, jnp.clip(ratio, 1.0 - clip, 1.0 + clip))


def divergences(target: Policy, policy: Policy, batch: Window, *, key: PRNGKeyArray) -> Float[Array, " row"]:
    """KL( target || policy ) at every row in nats: exact where choices can be listed, else log p - log q of one action of the target,
    whose gradient is that of the divergence on average."""
    try:
        p, q = (jax.nn.log_softmax(policy.logits(batch)) for policy in (target, policy))
        return jnp.sum(jnp.exp(p) * (p - q), axis=-1)
    except Unsupported:
        keys = jax.random.split(key, batch.reward.shape[0])
        act = lambda o, k: target.act(o, None, key=k)[0]
        drawn = replace(batch, action=jax.vmap(act)(batch.observation, keys))
        return log_prob(target, drawn) - log_prob(policy, drawn)
