"""What learners that hold a policy to a frozen reference share: their settings, their state and what they offer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from policylab.experience import Rated, Spec
from policylab.hyperparameters import setting, settings
from policylab.learner import Learner, Request
from policylab.policies.anchoring import anchored, reference_of
from policylab.policies.answering import Answers
from policylab.policy import Form
from policylab.scorers.log_ratio import LogRatio


@settings
class Anchored(Learner):
    """A policy and the reference that it is held to by `beta`, as `anchored` makes them."""

    beta: float = setting(0.1, "how strongly the policy is held to the reference, in nats per unit of reward", above=0.0)
    learning_rate: float = setting(1e-6, "of Adam", above=0.0)
    policy: Form | None = setting(None, "the form of the policy without a start; None chooses by the action space")

    takes: ClassVar[tuple[str, ...]] = ("start", "reference")

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, Any]:
        """The policy with its optimiser, and the reference (None: it is inside the policy)."""
        return anchored(self.policy, self.learning_rate, spec, key=key, given=given)

    def products(self, state: dict[str, Any]) -> dict[str, Any]:
        """`policy`, `explorer` (the policy sampling), `reference`, and `reward`, which the policy implies beside it."""
        policy, reference = state["policy"].model, reference_of(state)
        reward = LogRatio(policy, reference, self.beta)
        return {"policy": policy, "explorer": policy, "reference": reference, "reward": reward}


@settings
class Labelled(Anchored):
    """Learns from answers that are good or bad: those with a reward above `threshold`, and the others."""

    threshold: float = setting(0.5, "answers with a reward above it are good")
    batch_size: int = setting(64, "answers per update", low=1)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Rated answers."""
        return {"answers": Answers(self.batch_size)}

    def good(self, batch: Rated) -> Float[Array, " batch"]:
        """1 for good answers, 0 for bad ones."""
        return (jnp.sum(batch.reward, axis=-1) > self.threshold).astype(jnp.float32)
