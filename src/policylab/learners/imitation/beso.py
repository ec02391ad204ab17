"""BESO: goal-conditioned imitation with score-based diffusion policies (Reuss et al. 2023, arXiv 2304.02532)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Goals, Learner, Request, Steps
from policylab.learners.imitation.goal_conditioned import Hindsight
from policylab.networks.optimisation import descend, follow, trained
from policylab.policies.diffusion import Diffusion
from policylab.policy import Form, imitation_loss


@settings
class BESO(Learner):
    r"""A denoiser D(a + sigma n; s, g, sigma) of actions, given the state and a goal from later in the same play, and few steps to sample.

    min E[ |F - (a - c_skip (a + sigma n)) / c_out|^2 ],  sigma log-logistic, n normal                  (equation 3)
    weights used to act: average <- decay average + (1 - decay) weights

    With `mask_share` above 0 in its `Diffusion`, goals are hidden in that share of the steps, and `guidance` lambda of the policy goes
    from goal-free (0) to goal-conditioned (1) and beyond. The authors' code hides each number of a goal on its own; we hide goals
    whole, as the paper says, since a goal-free policy is asked about goals that are hidden whole.

    Defaults are those of the authors' configuration for the kitchen: AdamW at 1e-4 with weight decay 0.01, the rate times 0.99 every
    100 updates, EMA 0.999, batches of 1024, 3 DDIM steps from 1 to 0.005, exponentially spaced. Their network is a transformer over
    a history of 4 steps; ours is the form's perceptron on the present one.
    """

    future: float = setting(
        1.0, "share of goals from later in the episode; the others are the step's own observation", low=0.0, high=1.0
    )
    ahead: str = setting("uniform", "how far ahead goals lie: uniform over the rest of the episode, or geometric")
    discount: float = setting(0.99, "chance of each further step to a geometric goal", above=0.0, below=1.0)
    learning_rate: float = setting(1e-4, "of AdamW at the start", above=0.0)
    decay_rate: float = setting(0.99, "factor of the learning rate every 100 updates", above=0.0, high=1.0)
    weight_decay: float = setting(0.01, "of AdamW", low=0.0)
    average: float = setting(0.999, "share of the averaged weights that stays, per update", low=0.0, below=1.0)
    batch_size: int = setting(1024, "steps per update", low=1)
    part: str = setting("", "the part of the observation that states a goal; empty: all of it")
    into: str = setting("", "the part of the observation that tells the goal; empty: none does")
    policy: Form = setting(Diffusion(levels=3, masked="goal"), "the form of the policy")

    title: ClassVar[str] = "Score-based diffusion policies for goals"
    actions: ClassVar[str] = "continuous"

    @property
    def needs(self) -> Mapping[str, Request]:
        """Steps with goals."""
        # `ahead` is plain text here; whoever draws the goals checks the word and names the two that there are.
        goals = Goals(1.0 - self.future, self.future, 0.0, self.ahead, self.discount, self.part)  # ty: ignore[invalid-argument-type]
        return {"steps": Steps(self.batch_size, goals=goals)}

    def _optimiser(self, clock: Clock | None = None) -> optax.GradientTransformation:
        times = 0.0 if clock is None else jnp.floor(clock.step / 100)
        return optax.adamw(self.learning_rate * self.decay_rate**times, weight_decay=self.weight_decay)

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """A fresh policy, and its average, which equals it."""
        view = Hindsight(self.part, self.into)
        policy = self.policy.build(view.spec(spec), key=key)
        return {"policy": trained(policy, self._optimiser()), "average": policy, "goal": view.start(spec)}

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Array]]:
        """One step of AdamW, then the average follows."""
        batch = Hindsight(self.part, self.into).batch(batch)

        def loss(policy: Any) -> tuple[Array, None]:
            each = imitation_loss(policy, batch, key=key)
            return jnp.sum(batch.weight * each) / jnp.maximum(jnp.sum(batch.weight), 1.0), None

        policy, value, _ = descend(state["policy"], loss, self._optimiser(clock))
        average = follow(state["average"], policy.model, 1.0 - self.average)
        return {"policy": policy, "average": average, "goal": state["goal"]}, {"imitation_loss": value}

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy`, with the averaged weights, and `explorer` (the policy sampling)."""
        policy = Hindsight(self.part, self.into).policy(state["average"], state["goal"])
        return {"policy": policy, "explorer": policy}
