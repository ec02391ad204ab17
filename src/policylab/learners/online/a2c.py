"""A2C: advantage actor-critic, the synchronous form of A3C (Mnih et al. 2016, arXiv 1602.01783)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import Unsupported
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Windows
from policylab.networks.mlp import MLP
from policylab.networks.optimisation import Trained, descend, trained
from policylab.networks.running import Seen
from policylab.policies.categorical import Categorical, CategoricalPolicy
from policylab.policies.gaussian import Gaussian, GaussianPolicy
from policylab.policy import Form, Policy, log_prob
from policylab.scorers.advantage import advantages
from policylab.scorers.critic import StateValue


@settings
class A2C(Learner):
    r"""One gradient step on every window of fresh experience:

        min E[ -log pi(a | s) A  +  value_weight (V(s) - R)^2  -  entropy_weight H(pi(. | s)) ],   R = A + V(s) at the start

    A is the generalised advantage with `trace` (1: the whole return of the window, bootstrapped at its end, as in the paper). Defaults are
    those that the implementations agree on: 16 environments, 5 steps, RMSprop at 7e-4 with decay 0.99, gradients clipped at norm 0.5.
    `policy=None` takes a softmax for choices and a normal squashed by tanh for continuous actions. The last layer of the policy starts at
    a hundredth of its usual size, so that all actions are nearly equal at first (Andrychowicz et al. 2021, arXiv 2006.05990).
    """

    discount: float = setting(0.99, "gamma per step", low=0.0, high=1.0)
    trace: float = setting(1.0, "lambda of the generalised advantage", low=0.0, high=1.0)
    learning_rate: float = setting(7e-4, "of the optimiser, at the start", above=0.0)
    anneal: bool = setting(False, "whether the learning rate falls to 0 over the run, linearly")
    value_weight: float = setting(0.5, "weight of the squared error of the values", low=0.0)
    entropy_weight: float = setting(0.01, "weight of the entropy in nats", low=0.0)
    largest_gradient: float = setting(0.5, "gradients are scaled down to this norm", above=0.0)
    environments: int = setting(16, "copies of the environment per update", low=1)
    steps: int = setting(5, "steps of each copy per update", low=1)
    width: int = setting(64, "hidden units of the value, and of the policy unless given", low=1)
    depth: int = setting(2, "hidden layers of the value, and of the policy unless given", low=1)
    normalise: bool = setting(False, "whether observations are normalised by the mean and deviation of all that were seen")
    policy: Form | None = setting(None, "the form of the policy; None chooses by the action space")

    title: ClassVar[str] = "Advantage actor-critic"
    uses: ClassVar[tuple[str, ...]] = ("reward",)
    on_policy: ClassVar[bool] = True

    @property
    def needs(self) -> Mapping[str, Request]:
        """Windows [environment, time] of the policy as it is."""
        return {"windows": Windows(self.environments, future=self.steps)}

    def optimiser(self, clock: Clock | None = None) -> optax.GradientTransformation:
        """RMSprop on clipped gradients."""
        return optax.chain(
            optax.clip_by_global_norm(self.largest_gradient),
            optax.rmsprop(self.rate(clock), decay=0.99, eps=1e-5, eps_in_sqrt=False),
        )

    def rate(self, clock: Clock | None) -> Float[Array, ""] | float:
        """The learning rate at this time."""
        return self.learning_rate * (1.0 - clock.progress) if self.anneal and clock is not None else self.learning_rate

    def form(self, spec: Spec) -> Form:
        """The form of the policy for these actions."""
        if self.policy is not None:
            return self.policy
        if isinstance(spec.action, spaces.Discrete):
            return Categorical(width=self.width, depth=self.depth, activation="tanh")
        return Gaussian(width=self.width, depth=self.depth, activation="tanh", squash="sample")

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """A fresh policy and value under one optimiser."""
        policy_key, value_key = jax.random.split(key)
        model = {
            "policy": _hesitant(self.form(spec).build(spec, key=policy_key)),
            "value": StateValue(spec, width=self.width, depth=self.depth, activation="tanh", key=value_key),
        }
        return {"model": trained(model, self.optimiser())} | ({"seen": Seen.nothing(spec)} if self.normalise else {})

    def learned(self, state: dict[str, PyTree], model: Trained, batch: Window) -> dict[str, PyTree]:
        """The state after an update. Normalisers change only here: until the next one, sampling and training see the same numbers."""
        if not self.normalise:
            return {**state, "model": model}
        seen = state["seen"].with_more(batch)
        return {"model": replace(model, model=seen.within(model.model)), "seen": seen}

    def judged(
        self, model: Mapping[str, Any], batch: Window
    ) -> tuple[Float[Array, "environment time"], Float[Array, "environment time"]]:
        """Advantages, and the returns that the values are regressed on, both as the value sees them now."""
        value = jax.vmap(jax.vmap(model["value"]))(batch.observation)
        next_value = jax.vmap(jax.vmap(model["value"]))(batch.next_observation)
        estimate = lambda window, v, after: advantages(window, v, after, discount=self.discount, trace=self.trace)
        advantage = jax.vmap(estimate)(replace(batch, memory=None), value, next_value)
        return advantage, advantage + value

    def entropies(self, policy: Policy, observation: PyTree, *, key: PRNGKeyArray) -> Float[Array, " row"]:
        """The entropy at each observation in nats: in closed form, else -log p of one reparameterised sample, which estimates it."""
        try:
            return jax.vmap(policy.entropy)(observation)
        except Unsupported:
            keys = jax.random.split(key, jax.tree.leaves(observation)[0].shape[0])
            return -jax.vmap(lambda o, k: policy.sample(o, None, key=k)[1])(observation, keys)

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """One step on the whole batch."""
        advantage, goal = self.judged(state["model"].model, batch)
        mean = lambda each: jnp.sum(batch.weight * each) / jnp.maximum(jnp.sum(batch.weight), 1e-6)

        def loss(model: dict[str, Any]) -> tuple[Array, tuple[Array, Array, Array]]:
            policy_error = -mean(log_prob(model["policy"], batch) * advantage)
            value_error = mean((jax.vmap(jax.vmap(model["value"]))(batch.observation) - goal) ** 2)
            entropy = mean(jax.vmap(lambda o, k: self.entropies(model["policy"], o, key=k))(batch.observation, keys))
            total = policy_error + self.value_weight * value_error - self.entropy_weight * entropy
            return total, (policy_error, value_error, entropy)

        keys = jax.random.split(key, batch.reward.shape[0])
        model, _, parts = descend(state["model"], loss, self.optimiser(clock))
        metrics = dict(zip(("policy_loss", "value_loss", "entropy"), parts, strict=True))
        return self.learned(state, model, batch), metrics

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy`, `explorer` (the policy sampling) and `value` (of the state)."""
        model = state["model"].model
        return {"policy": model["policy"], "explorer": model["policy"], "value": model["value"]}


def _hesitant(policy: Policy) -> Policy:
    if not isinstance(policy, CategoricalPolicy | GaussianPolicy) or not isinstance(policy.network, MLP):
        return policy
    last = lambda policy: (policy.network.layers[-1].weight, policy.network.layers[-1].bias)
    return eqx.tree_at(last, policy, tuple(0.01 * leaf for leaf in last(policy)))
