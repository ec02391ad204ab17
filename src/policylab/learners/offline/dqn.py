"""DQN, on logged data or a replay: deep Q-learning (Mnih et al. 2015) with double Q targets (van Hasselt et al. 2016, arXiv 1509.06461)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Each, Learner, Request, Steps
from policylab.networks.optimisation import descend, trained
from policylab.policies.greedy import Greedy
from policylab.scorers.choice import ChoiceValue


def huber(error: Float[Array, "*batch"], threshold: float = 1.0) -> Float[Array, "*batch"]:
    """0.5 e^2 where |e| is below `threshold`, linear beyond."""
    size = jnp.abs(error)
    return jnp.where(size <= threshold, 0.5 * error**2, threshold * (size - 0.5 * threshold))


@settings
class DQN(Learner):
    r"""min E[ huber( r + gamma (1 - terminal) Qbar(s', a*) - Q(s, a) ) ],  a* = argmax Q(s', .) (double) or argmax Qbar(s', .)

    The target Qbar becomes a copy of Q every `target_period` updates. Learning rate, batch size and period are those of offline
    studies on small environments (Schweighofer et al. 2022, arXiv 2111.04714), where the period is 100 and the rate 1e-4. On a replay the
    explorer's random choices become rarer along a line, as in Mnih et al.
    """

    discount: float = setting(0.99, "gamma per step", low=0.0, high=1.0)
    learning_rate: float = setting(1e-4, "of Adam", above=0.0)
    first_epsilon: float = setting(1.0, "share of random choices when exploring, at the start", low=0.0, high=1.0)
    epsilon: float = setting(0.05, "share of random choices when exploring, in the end", low=0.0, high=1.0)
    exploring: float = setting(0.1, "share of the run in which the first epsilon becomes the last", above=0.0, high=1.0)
    target_period: int = setting(100, "updates between copies of the critic into its target", low=1)
    batch_size: int = setting(128, "transitions per update", low=1)
    width: int = setting(256, "hidden units", low=1)
    depth: int = setting(2, "hidden layers", low=1)
    double: bool = setting(True, "whether the critic, not its target, picks the next choice")
    dueling: bool = setting(False, "whether the critic adds advantages to a value")

    title: ClassVar[str] = "Deep Q-learning"
    actions: ClassVar[str] = "discrete"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Transitions."""
        return {"transitions": Steps(self.batch_size)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """A fresh critic; the target equals it."""
        critic = self.fresh_critic(spec, key)
        return {
            "critic": trained(critic, optax.adam(self.learning_rate)),
            "target": critic,
            "epsilon": jnp.asarray(self.first_epsilon, jnp.float32),
        }

    def fresh_critic(self, spec: Spec, key: PRNGKeyArray) -> ChoiceValue:
        """A critic that knows nothing."""
        return ChoiceValue(spec, dueling=self.dueling, width=self.width, depth=self.depth, key=key)

    def explored(self, state: Mapping[str, PyTree], clock: Clock) -> Float[Array, ""]:
        """The share of random choices after this update; a run that goes on elsewhere does not begin to explore anew."""
        done = jnp.minimum((clock.step + 1) / (self.exploring * clock.total), 1.0)
        return jnp.minimum(state["epsilon"], self.first_epsilon + done * (self.epsilon - self.first_epsilon))

    def goal(self, state: dict[str, PyTree], batch: Window) -> Float[Array, " batch"]:
        """What Q(s, a) is regressed on."""
        after = jax.vmap(state["target"].values)(batch.next_observation)
        chooser = jax.vmap(state["critic"].model.values)(batch.next_observation) if self.double else after
        best = jnp.take_along_axis(after, jnp.argmax(chooser, axis=-1)[:, None], axis=-1)[:, 0]
        return batch.reward + self.discount**batch.duration * batch.continues * best

    def extra_loss(self, values: Float[Array, "batch choice"], batch: Window) -> Float[Array, ""]:
        """What extensions add to the loss."""
        return jnp.zeros(())

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict, dict[str, Any]]:
        """The critic, and at the end of a period its target."""
        goal = self.goal(state, batch)

        def loss(critic: ChoiceValue) -> tuple[Array, tuple[Array, Array]]:
            values = jax.vmap(critic.values)(batch.observation)
            taken = jnp.take_along_axis(values, batch.action[:, None], axis=-1)[:, 0]
            extra = self.extra_loss(values, batch)
            return jnp.mean(batch.weight * huber(taken - goal)) + extra, (taken, extra)

        critic, error, (q, extra) = descend(state["critic"], loss, optax.adam(self.learning_rate))
        due = (clock.step + 1) % self.target_period == 0
        target = jax.lax.cond(due, lambda: critic.model, lambda: state["target"])
        metrics = {"critic_loss": error, "q": jnp.mean(q), "extra_loss": extra, "td_error": Each(jnp.abs(q - goal))}
        return {**state, "critic": critic, "target": target, "epsilon": self.explored(state, clock)}, metrics

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy` (greedy), `explorer` (epsilon-greedy), `critic`."""
        critic = state["critic"].model
        explorer = Greedy(critic, state["epsilon"])
        return {"policy": explorer.mode(), "explorer": explorer, "critic": critic}
