"""The direct method for logged choices: learn what each choice earns, take the best (or mostly the best)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Steps
from policylab.networks.optimisation import Trained, descend, trained
from policylab.policies.greedy import Greedy, Softmax
from policylab.scorers.choice import ChoiceValue


@settings
class RewardRegression(Learner):
    r"""min E[ (r - q(x, a))^2 ] + decay |q's weights|^2, policy argmax_a q(x, a)   (the direct method; Dudik et al. 2011, arXiv 1103.4601)

    Least squares also for rewards in {0, 1}: what matters is the mean reward of a choice, and clicks are too rare for the link
    function to matter. `depth=0` is a linear model. AdamW's decay keeps rare choices near the overall mean.
    """

    learning_rate: float = setting(1e-3, "of Adam", above=0.0)
    decay: float = setting(1e-2, "decoupled weight decay", low=0.0)
    batch_size: int = setting(256, "decisions per update", low=1)
    width: int = setting(64, "hidden units", low=1)
    depth: int = setting(1, "hidden layers; 0 is a linear model", low=0)

    title: ClassVar[str] = "Reward regression, greedy"
    actions: ClassVar[str] = "discrete"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Decisions."""
        return {"decisions": Steps(self.batch_size)}

    def _optimiser(self) -> optax.GradientTransformation:
        return optax.adamw(self.learning_rate, weight_decay=self.decay)

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> Trained:
        """A fresh model of the reward."""
        return trained(ChoiceValue(spec, width=self.width, depth=self.depth, key=key), self._optimiser())

    def update(self, state: Trained, batch: Window, *, clock: Clock, key: PRNGKeyArray) -> tuple[Trained, dict[str, Array]]:
        """One step of least squares."""

        def loss(model: ChoiceValue) -> tuple[Array, None]:
            return jnp.mean((taken_values(model, batch) - batch.reward) ** 2), None

        state, error, _ = descend(state, loss, self._optimiser())
        return state, {"reward_loss": error}

    def products(self, state: Trained) -> dict[str, Any]:
        """`policy`, `explorer`, `critic` (the model of the reward)."""
        policy = Greedy(state.model, jnp.zeros(()))
        return {"policy": policy, "explorer": policy, "critic": state.model}


@settings
class SoftmaxRegression(RewardRegression):
    r"""The same model of the reward; the policy takes choice a with probability softmax(q(x, .) / temperature)_a."""

    temperature: float = setting(0.01, "in units of the reward: smaller is greedier", above=0.0)

    title: ClassVar[str] = "Reward regression, stochastic"

    def products(self, state: Trained) -> dict[str, Any]:
        """`policy`, `explorer`, `critic` (the model of the reward)."""
        policy = Softmax(state.model, jnp.asarray(self.temperature, jnp.float32))
        return {"policy": policy, "explorer": policy, "critic": state.model}


def taken_values(model: ChoiceValue, batch: Window) -> Float[Array, " batch"]:
    """q(x, a) of the logged choices."""
    values = jax.vmap(model.values)(batch.observation)
    return jnp.take_along_axis(values, batch.action[:, None], axis=-1)[:, 0]
