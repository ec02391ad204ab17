"""VaGraM: dynamics fitted where the values depend on them (Voelcker et al. 2022, arXiv 2204.01464)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Learner
from policylab.learners.online.sac import SAC
from policylab.learners.worldmodel.dyna import Dyna
from policylab.learners.worldmodel.ensemble import EnsembleDynamics
from policylab.policy import Policy
from policylab.scorers.critic import ActionValue
from policylab.worlds.ensemble import DynamicsEnsemble, EnsembleWorld

GRADIENT = "value_gradient"


@settings
class ValueWeightedDynamics(EnsembleDynamics):
    r"""Deterministic members that minimise errors of the next state as far as values change along them (equation 6):

        (1 / V) sum_v sum_j ( dV_v/ds_j (s') )^2 ( s^_j - s'_j )^2  +  (r^ - r)^2  +  plain * (1 / D) sum_j ( (s^_j - s'_j) / std_j )^2

    with the gradients of V value functions at the real next state in `extra["value_gradient"]`, [value, number]. Without `split` the first
    term is ( sum_j dV_v/ds_j (s^_j - s'_j) )^2 instead, the Taylor expansion of the value error itself, which many wrong predictions
    make 0. In a batch, gradients longer than the `quantile` of all their lengths are shortened to it (1: none is). Dimensions along which no
    value changes are not fitted at all unless `plain` is above 0, as in the authors' code by default. Elites are ranked by the same loss.
    """

    plain: float = setting(0.0, "weight of the plain squared error, in standard deviations of the data", low=0.0)
    quantile: float = setting(0.95, "of the gradients' lengths, to which longer ones are shortened", above=0.0, high=1.0)
    split: bool = setting(True, "whether every dimension's error counts by itself")

    title: ClassVar[str] = "Dynamics weighted by the gradient of values"

    def losses(
        self, world: EnsembleWorld, batch: Window
    ) -> tuple[Float[Array, "batch members"], Float[Array, "batch members"]]:
        """The weighted errors, twice: they are minimised and rank the members. Raises `BadInput` without gradients in the batch."""
        if GRADIENT not in batch.extra:
            raise BadInput(
                f"these dynamics are weighted by gradients of values, which stand in extra[{GRADIENT!r}]: use VaGraM"
            )
        gradient = shortened(batch.extra[GRADIENT], self.quantile)

        def one(observation: PyTree, action: PyTree, after: PyTree, reward: Array, gradient: Array) -> Float[Array, " members"]:
            mean, _ = world.predictions(observation, action)
            error = mean - world.target(observation, after, reward)
            along = gradient[:, None, :] * (error[:, :-1] * world.normaliser.std)
            weighted = jnp.sum(along**2, axis=-1) if self.split else jnp.sum(along, axis=-1) ** 2
            paid = (error[:, -1] * world.reward_normaliser.std[0]) ** 2
            return jnp.mean(weighted, axis=0) + paid + self.plain * jnp.mean(error[:, :-1] ** 2, axis=-1)

        loss = jax.vmap(one)(batch.observation, batch.action, batch.next_observation, batch.reward, gradient)
        return loss, loss


def shortened(
    gradient: Float[Array, "batch value number"], quantile: Float[Array, ""] | float
) -> Float[Array, "batch value number"]:
    """Gradients longer than the `quantile` of the batch's lengths, of each value function, cut to that length."""
    length = jnp.linalg.norm(gradient, axis=-1, keepdims=True)
    longest = jnp.quantile(length, quantile, axis=0, keepdims=True)
    return gradient * jnp.minimum(1.0, longest / jnp.maximum(length, 1e-12))


def value_gradients(
    critics: tuple[ActionValue, ...], policy: Policy, observation: PyTree, *, key: PRNGKeyArray
) -> Float[Array, "value number"]:
    """dV/ds at one observation, in environment units: V(s) = Q(s, a) of every member of every critic, a the policy's mode held fixed."""
    space = critics[0].observation_space
    action, _ = policy.mode().act(observation, None, key=key)

    def values(flat: Float[Array, " number"]) -> Float[Array, " value"]:
        place = spaces.unflatten(space, flat)
        return jnp.concatenate([critic.values(place, action) for critic in critics])

    return jax.lax.stop_gradient(jax.jacrev(values)(spaces.flatten(space, observation)))


@settings
class VaGraM(Dyna):
    """MBPO whose world is fitted by `ValueWeightedDynamics`, with the gradients of the agent's critics and of their targets as they are now.

    The authors cache the gradients between two fits of the world; here they are as fresh as the critics. Settings as in their code, where
    rollouts grow from 1 to 5 steps. Use it on `Imagined(Replay(environment, updates=20))`, as MBPO.
    """

    agent: Learner = setting(SAC(), "who learns from imagined transitions; its critics weigh the errors")
    dynamics: EnsembleDynamics = setting(
        EnsembleDynamics(DynamicsEnsemble(deterministic=True)), "the world's shape, rates, batches; its loss is replaced"
    )
    plain: float = setting(0.0, "weight of the plain squared error, in standard deviations of the data", low=0.0)
    quantile: float = setting(0.95, "of the gradients' lengths, to which longer ones are shortened", above=0.0, high=1.0)
    split: bool = setting(True, "whether every dimension's error counts by itself")

    title: ClassVar[str] = "Value-gradient weighted model learning"
    actions: ClassVar[str] = "continuous"

    @property
    def fitter(self) -> ValueWeightedDynamics:
        """`dynamics` with the weighted loss."""
        own = self.dynamics
        blank = ValueWeightedDynamics(world=own.world, batch_size=own.batch_size, split=self.split)
        numbers = lambda fitter: (fitter.learning_rate, fitter.weight_decay, fitter.held_out, fitter.plain, fitter.quantile)
        # Put in afterwards: inside a compiled program they are no longer plain numbers.
        return eqx.tree_at(numbers, blank, (own.learning_rate, own.weight_decay, own.held_out, self.plain, self.quantile))

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Both learners' states. Raises `BadInput` for an agent without SAC's critics."""
        if not isinstance(self.agent, SAC):
            raise BadInput(f"VaGraM weighs errors by the critics of SAC or of a kind of it, not of {type(self.agent).__name__}")
        return Dyna.init(self, spec, key=key)

    def real_batch(self, state: dict[str, PyTree], batch: Window) -> Window:
        """The batch with the gradients of the values at its next observations."""
        agent = state["agent"]
        critics, key = (agent["critic"].model, agent["target"]), jax.random.key(0)  # modes draw nothing
        gradient = jax.vmap(lambda o: value_gradients(critics, agent["policy"].model, o, key=key))(batch.next_observation)
        return replace(batch, extra={**batch.extra, GRADIENT: gradient})
