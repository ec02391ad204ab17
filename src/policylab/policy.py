"""Policy: from what it has seen to what to do next. Signatures are for one sample; callers `vmap`."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.errors import Unsupported
from policylab.experience import Spec, Window


class Policy(eqx.Module):
    """What it has seen -> what to do next. Every leaf is an array; functions and strings are static fields."""

    def initial_memory(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        """What the policy carries within one episode; whoever rolls out renews it at every reset."""
        return None

    @abstractmethod
    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """Sample an action, in environment units, and the next memory."""

    @property
    def own_reference(self) -> Policy | None:
        """The frozen policy that this one is a change of, where it carries that inside (LoRA: its base); else None."""
        return None

    def mode(self) -> Policy:
        """The deterministic version of this policy (itself where it has no randomness)."""
        return self

    def sample(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Float[Array, ""], PyTree]:
        """A reparameterised action, its log-probability (computed before any squashing) and the next memory."""
        raise Unsupported(
            f"{type(self).__name__} has no tractable sampling density: choose a form such as Gaussian or Categorical"
        )

    def log_probs(self, window: Window) -> Float[Array, "time part"]:
        """Log-probability of each action of `window`, one term per factor of the action, 0 where padded."""
        raise Unsupported(f"{type(self).__name__} has no log-probabilities: choose a form such as Gaussian or Categorical")

    def logits(self, window: Window) -> Float[Array, "time choice"]:
        """Unnormalised log-probabilities of all choices, where choices can be listed."""
        raise Unsupported(f"{type(self).__name__} cannot list its choices: use a form over a discrete action space")

    def imitation_loss(self, window: Window, *, key: PRNGKeyArray) -> Float[Array, " time"]:
        """How this form is fitted to an action; minus the log-probability unless a form says otherwise."""
        return -self.log_prob(window)

    def log_prob(self, window: Window) -> Float[Array, " time"]:
        """The sum over parts of `log_probs`."""
        return jnp.sum(self.log_probs(window), axis=-1)

    def entropy(self, observation: PyTree) -> Float[Array, ""]:
        """Entropy of the action distribution in nats, where it has a closed form."""
        raise Unsupported(f"{type(self).__name__} has no entropy in closed form: estimate it from samples")

    def features(self, observation: PyTree) -> Float[Array, " feature"]:
        """An inner representation of the observation, where the form has one."""
        raise Unsupported(f"{type(self).__name__} has no features to give")


@dataclass(frozen=True)
class Form:
    """The shape of a policy before it is built: a frozen dataclass such as `Gaussian(width=256)`; static and hashable."""

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> Policy:
        """A policy with fresh parameters for the spaces of `spec`. Raises `BadInput` if the form cannot do those spaces."""
        raise Unsupported(f"{type(self).__name__} is a form without a way to build itself")


def as_windows(batch: Window) -> Window:
    """A batch of transitions (as `Steps` delivers them) as windows of one: a time axis of length 1 after the batch axis."""
    expand = lambda tree: jax.tree.map(lambda leaf: leaf[:, None], tree)
    return Window(
        **{
            name: expand(getattr(batch, name))
            for name in ("observation", "action", "reward", "next_observation", "terminal", "truncated", "valid", "duration")
        },
        memory=batch.memory,
        extra=expand(batch.extra),
    )


def _over_batch(method: Any, batch: Window, keys: Any = None) -> Array:
    single = batch.reward.ndim == 1
    windows = as_windows(batch) if single else batch
    values = jax.vmap(method)(windows) if keys is None else jax.vmap(lambda w, k: method(w, key=k))(windows, keys)
    return values[:, 0] if single else values


def log_prob(policy: Policy, batch: Window) -> Float[Array, "batch *time"]:
    """Log-probability of every action of a batch, of transitions ([batch]) or of windows ([batch, time])."""
    return _over_batch(policy.log_prob, batch)


def imitation_loss(policy: Policy, batch: Window, *, key: PRNGKeyArray) -> Float[Array, "batch *time"]:
    """The form's own imitation loss for every action of a batch, of transitions ([batch]) or of windows ([batch, time])."""
    return _over_batch(policy.imitation_loss, batch, jax.random.split(key, batch.reward.shape[0]))


def actions(policy: Policy, observation: PyTree, *, key: PRNGKeyArray) -> PyTree:
    """One action per row of a batch of observations, for policies without memory."""
    count = jax.tree.leaves(observation)[0].shape[0]
    return jax.vmap(lambda o, k: policy.act(o, None, key=k)[0])(observation, jax.random.split(key, count))
