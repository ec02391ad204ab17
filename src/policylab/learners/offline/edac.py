"""EDAC: soft actor-critic with many critics that disagree where nothing is known (An et al. 2021, arXiv 2110.01548)."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from policylab import spaces
from policylab.experience import Window
from policylab.hyperparameters import setting, settings
from policylab.learners.online.sac import SAC
from policylab.policies.gaussian import Gaussian
from policylab.policy import Form
from policylab.scorers.critic import ActionValue


@settings
class EDAC(SAC):
    r"""SAC with N critics, whose minimum is a lower bound the lower the more they disagree, and a term that keeps their gradients apart:

        loss of the critics + diversity * E_(s,a) [ sum_(i != j) <g_i, g_j> / (N - 1) ],   g_i = grad_a Q_i(s, a) / |grad_a Q_i(s, a)|

    (equation 6 and algorithm 1). With `diversity` 0 it is SAC-N. Gradients are with respect to the action in units of half its range.
    """

    members: int = setting(10, "critics", low=2)
    depth: int = setting(3, "hidden layers of the critics", low=1)
    diversity: float = setting(1.0, "eta, weight of the critics' similarity", low=0.0)
    policy: Form = setting(
        Gaussian(depth=3, state_dependent_std=True, squash="sample", log_std_range=(-5.0, 2.0)),
        "the form of the policy, with a density",
    )

    title: ClassVar[str] = "Ensemble-diversified actor-critic"

    def critic_penalty(self, critic: ActionValue, batch: Window) -> Float[Array, ""]:
        """The similarity of the critics' gradients."""
        return self.diversity * jnp.mean(
            batch.weight * jax.vmap(lambda o, a: similarity(critic, o, a))(batch.observation, batch.action)
        )


def similarity(critic: ActionValue, observation: PyTree, action: PyTree) -> Float[Array, ""]:
    """The sum of cosines between the action gradients of all ordered pairs of critics, over their number less 1; in [-N / (N - 1), N]."""
    state = critic.normaliser(spaces.flatten(critic.observation_space, observation))
    unit = critic.scaler.to_unit(spaces.flatten(critic.action_space, action))
    value = lambda member, unit: member(jnp.concatenate([state, unit]))[0]
    # Each member gets an action of its own: one backward pass then gives every member's gradient with respect to its own.
    total = lambda units: jnp.sum(eqx.filter_vmap(value)(critic.networks.members, units))
    count = jax.tree.leaves(critic.networks)[0].shape[0]
    gradient = jax.grad(total)(jnp.broadcast_to(unit, (count, unit.shape[0])))
    # The root is taken of a number above 0: the norm of a gradient that is 0 has no derivative.
    direction = gradient * jax.lax.rsqrt(jnp.sum(gradient**2, axis=-1, keepdims=True) + 1e-20)
    return (jnp.sum(jnp.sum(direction, axis=0) ** 2) - jnp.sum(direction**2)) / max(count - 1, 1)
