"""RLPD: soft actor-critic that learns online with prior data, many critics and many updates (Ball et al. 2023, arXiv 2302.02948)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Sometimes
from policylab.learners.online.sac import SAC
from policylab.networks.mlp import Ensemble
from policylab.scorers.critic import ActionValue


@settings
class RLPD(SAC):
    r"""SAC with three changes (algorithm 1):

    * half of every batch is prior data: `Blend((dataset, Replay(environment, updates=...)))` is its source;
    * N = `members` critics with layer normalisation, of which Z = `subset`, drawn anew at every update, make the target:
      Q_i: min E[ ( r + gamma (1 - terminal) ( min_(j in Z) Qbar_j(s', a') - alpha log pi(a' | s') ) - Q_i(s, a) )^2 ];
    * many updates per step in the environment, after every `policy_period` of which the policy moves, up the mean of all critics.

    For the paper's 20 updates per step of the environment: `Replay(environment, updates=20)` with the period 20 of the defaults. Where the
    paper leaves the entropy out of the target (sparse rewards: AntMaze, Adroit), `entropy_backup` is False.
    """

    entropy_per_action: float = setting(-0.5, "entropy to keep, in nats per action dimension in units of half its range")
    members: int = setting(10, "N, critics", low=1)
    subset: int = setting(2, "Z, critics whose minimum makes the target", low=1)
    policy_period: int = setting(20, "updates of the critics per update of the policy", low=1)
    entropy_backup: bool = setting(True, "whether the target values entropy to come")

    title: ClassVar[str] = "Online learning with prior data"

    def critics(self, spec: Spec, *, key: PRNGKeyArray) -> ActionValue:
        """Fresh critics. Raises `BadInput` if there are fewer than the subset."""
        if self.subset > self.members:
            raise BadInput(f"RLPD.subset is {self.subset} of {self.members} critics: choose at most all of them")
        return ActionValue(spec, width=self.width, depth=self.depth, members=self.members, layer_norm=True, key=key)

    def goal(self, state: Mapping[str, PyTree], batch: Window, *, key: PRNGKeyArray) -> Float[Array, " batch"]:
        """What Q(s, a) is regressed on."""
        draw_key, subset_key = jax.random.split(key)
        action, log_probability = self.draw(state["policy"].model, batch.next_observation, key=draw_key)
        few = some(state["target"], self.subset, key=subset_key)
        value = jnp.min(jax.vmap(few.values)(batch.next_observation, action), axis=-1)
        if self.entropy_backup:
            value = value - jnp.exp(state["log_temperature"].model) * log_probability
        return batch.reward + self.discount**batch.duration * batch.continues * value

    def improved(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """The state after a step of policy and temperature, at every `policy_period`-th update."""
        step = lambda state: SAC.improved(self, state, batch, clock=clock, key=key)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(step, state)[1])
        due = (clock.step + 1) % self.policy_period == 0
        state, metrics = jax.lax.cond(due, step, lambda state: (state, nothing), state)
        return state, {name: Sometimes(value, due) for name, value in metrics.items()}

    def worth(self, values: Float[Array, "batch members"]) -> Float[Array, " batch"]:
        """The mean of all critics."""
        return jnp.mean(values, axis=-1)


def some(critic: ActionValue, count: int, *, key: PRNGKeyArray) -> ActionValue:
    """`count` of the critics, drawn without replacement."""
    members = jax.tree.leaves(critic.networks)[0].shape[0]
    chosen = jax.random.permutation(key, members)[:count]
    few = Ensemble(jax.tree.map(lambda leaf: leaf[chosen], critic.networks.members))
    return eqx.tree_at(lambda critic: critic.networks, critic, few)
