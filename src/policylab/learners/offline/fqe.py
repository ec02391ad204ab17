"""FQE: fitted Q evaluation (Le, Voloshin and Yue 2019, arXiv 1903.08738, algorithm 3), with a slowly following target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Steps
from policylab.networks.optimisation import descend, follow, trained
from policylab.policy import actions
from policylab.scorer import Scorer
from policylab.scorers.choice import ChoiceValue
from policylab.scorers.critic import ActionValue


@settings
class FQE(Learner):
    r"""What a given policy is worth: min E[ ( r + gamma (1 - terminal) Qbar(s', pi(s')) - Q(s, a) )^2 ], pi fixed.

    The paper refits Q from scratch on every iteration; here the target follows by `target_rate` instead, as in later practice
    (Voloshin et al. 2021, arXiv 1911.06854). `given` holds the `policy`; it must be memoryless.
    """

    discount: float = setting(0.99, "gamma per step", low=0.0, high=1.0)
    target_rate: float = setting(0.005, "share by which the target follows, per update", above=0.0, high=1.0)
    learning_rate: float = setting(3e-4, "of Adam", above=0.0)
    batch_size: int = setting(256, "transitions per update", low=1)
    width: int = setting(256, "hidden units", low=1)
    depth: int = setting(2, "hidden layers", low=1)

    title: ClassVar[str] = "Fitted Q evaluation of a given policy"
    takes: ClassVar[tuple[str, ...]] = ("policy",)
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Transitions."""
        return {"transitions": Steps(self.batch_size)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """A fresh critic beside the fixed policy. Raises `BadInput` without one."""
        if "policy" not in given:
            raise BadInput("FQE evaluates a policy: give it as train(FQE(), data, given={'policy': policy})")
        if isinstance(spec.action, spaces.Discrete):
            critic: Scorer = ChoiceValue(spec, width=self.width, depth=self.depth, key=key)
        else:
            critic = ActionValue(spec, members=1, width=self.width, depth=self.depth, key=key)
        return {"critic": trained(critic, optax.adam(self.learning_rate)), "target": critic, "policy": given["policy"]}

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict, dict[str, Array]]:
        """The critic, then its target."""
        next_action = actions(state["policy"], batch.next_observation, key=key)
        after = jax.vmap(state["target"].score)(batch.next_observation, next_action)
        goal = batch.reward + self.discount**batch.duration * batch.continues * after

        def loss(critic: Scorer) -> tuple[Array, Array]:
            values = jax.vmap(critic.score)(batch.observation, batch.action)
            return jnp.mean((values - goal) ** 2), jnp.mean(values)

        critic, error, q = descend(state["critic"], loss, optax.adam(self.learning_rate))
        target = follow(state["target"], critic.model, self.target_rate)
        return {**state, "critic": critic, "target": target}, {"critic_loss": error, "q": q}

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`critic` of the given `policy`."""
        return {"policy": state["policy"], "critic": state["critic"].model}
