"""Fit: minimise the own loss of a scorer's form: reward models, general preference models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from policylab.experience import Spec
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request
from policylab.networks.optimisation import Trained, descend, trained
from policylab.scorers.bradley_terry import BradleyTerry
from policylab.scorers.fitted import FittedForm


@settings
class Fit(Learner):
    r"""min E[ weight * loss(row) ], the loss being the form's own: Bradley and Terry's likelihood for `BradleyTerry`, that of an
    antisymmetric comparison for `GeneralPreference`.

    What is learned is the product that the form names (`reward`). With `weight_decay` the optimiser is AdamW. `start` goes on from a
    fitted scorer.
    """

    form: FittedForm = setting(BradleyTerry(), "the form of the scorer")
    learning_rate: float = setting(3e-4, "of Adam", above=0.0)
    weight_decay: float = setting(0.0, "decoupled, per unit of learning rate", low=0.0)
    batch_size: int = setting(64, "rows per update", low=1)

    title: ClassVar[str] = "Fitting a scorer to judgements"
    takes: ClassVar[tuple[str, ...]] = ("start",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """What the form's loss reads."""
        return {"judged": self.form.request(self.batch_size)}

    def _optimiser(self) -> optax.GradientTransformation:
        return optax.adamw(self.learning_rate, weight_decay=self.weight_decay)

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> Trained:
        """A fresh scorer, or `start`."""
        return trained(given["start"] if "start" in given else self.form.build(spec, key=key), self._optimiser())

    def update(self, state: Trained, batch: Any, *, clock: Clock, key: PRNGKeyArray) -> tuple[Trained, dict[str, Array]]:
        """One step on the weighted mean of the loss."""

        def loss(scorer: Any) -> tuple[Array, None]:
            each = scorer.losses(batch, key=key)
            return jnp.sum(batch.weight * each) / jnp.maximum(jnp.sum(batch.weight), 1e-6), None

        state, value, _ = descend(state, loss, self._optimiser())
        return state, {"loss": value}

    def products(self, state: Trained) -> dict[str, Any]:
        """The scorer, by the name that its form gives it."""
        return {self.form.product: state.model}
