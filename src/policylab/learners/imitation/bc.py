"""Fit: minimise a form's own loss; behaviour cloning is its most common use (Pomerleau 1988)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from policylab import spaces
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Steps, Windows
from policylab.networks.optimisation import Trained, descend, trained
from policylab.policies.categorical import Categorical
from policylab.policies.deterministic import Deterministic
from policylab.policies.windowed import Windowed
from policylab.policy import Form, imitation_loss


@settings
class BC(Learner):
    r"""Behaviour cloning: min E[ imitation_loss(s, a) ], the form's own loss: squared error, minus log-likelihood, denoising ...

    `policy=None` takes a deterministic tanh perceptron for continuous actions and a categorical one for discrete actions.
    A form that is fitted to several steps at once (`Sequence`, `Chunk`) is given windows of as many. Steps whose weight is 0 do not
    count. Defaults: 2 x 256 units and Adam at 3e-4, as the cloning baselines of the offline
    literature (Fujimoto and Gu 2021; Tarasov et al. 2022).
    """

    learning_rate: float = setting(3e-4, "of Adam", above=0.0)
    batch_size: int = setting(256, "steps or windows per update", low=1)
    policy: Form | None = setting(None, "the form of the policy; None chooses by the action space")

    title: ClassVar[str] = "Behaviour cloning"

    @property
    def needs(self) -> Mapping[str, Request]:
        """Steps, or windows where the form reads several."""
        if isinstance(self.policy, Windowed):
            return {"windows": Windows(self.batch_size, past=self.policy.past, future=self.policy.future)}
        return {"steps": Steps(self.batch_size)}

    def _form(self, spec: Spec) -> Form:
        if self.policy is not None:
            return self.policy
        return Categorical() if isinstance(spec.action, spaces.Discrete) else Deterministic()

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> Trained:
        """A fresh policy."""
        return trained(self._form(spec).build(spec, key=key), optax.adam(self.learning_rate))

    def update(self, state: Trained, batch: Window, *, clock: Clock, key: PRNGKeyArray) -> tuple[Trained, dict[str, Array]]:
        """One step on the weighted mean of the imitation loss."""

        def loss(policy: Any) -> tuple[Array, None]:
            each = imitation_loss(policy, batch, key=key)
            return jnp.sum(batch.weight * each) / jnp.maximum(jnp.sum(batch.weight), 1.0), None

        state, value, _ = descend(state, loss, optax.adam(self.learning_rate))
        return state, {"imitation_loss": value}

    def products(self, state: Trained) -> dict[str, Any]:
        """`policy` and `explorer` (the policy sampling)."""
        return {"policy": state.model, "explorer": state.model}
