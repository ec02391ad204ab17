"""Diffusion Policy: cloning by denoising plans, the weights averaged over training (Chi et al. 2023, arXiv 2303.04137)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Windows
from policylab.networks.optimisation import descend, follow, trained
from policylab.policies.denoisers import UNetDiffusion
from policylab.policies.receding import Receding
from policylab.policies.windowed import Windowed
from policylab.policy import Form, Policy, imitation_loss


@settings
class DiffusionCloning(Learner):
    r"""min E[ |noise - F(noisy plan, observations, level)|^2 ], and what is shipped is not the last network but a mean over training:

        theta_mean <- theta_mean + (1 - d) (theta - theta_mean),   d = min(0.9999, 1 - (1 + update)^(-3/4))

    AdamW with betas 0.95 and 0.999, its rate warmed up linearly and then lowered by a half cosine to 0. Settings are the authors' for
    low-dimensional observations. The form may be any that reads windows; the default is the paper's U-Net (65 million parameters); for
    small tasks `Receding(policy=TransformerDiffusion())`.
    """

    learning_rate: float = setting(1e-4, "of AdamW, at its highest", above=0.0)
    weight_decay: float = setting(1e-6, "of AdamW", low=0.0)
    warmup: float = setting(500.0, "updates until the rate is at its highest", low=0.0)
    batch_size: int = setting(256, "windows per update", low=1)
    policy: Windowed = setting(Receding(policy=UNetDiffusion(levels=100, sampler="ancestral")), "the form of the policy")

    title: ClassVar[str] = "Diffusion Policy"
    actions: ClassVar[str] = "continuous"

    @property
    def needs(self) -> Mapping[str, Request]:
        """Windows, as long as the form reads."""
        return {"windows": Windows(self.batch_size, past=self.policy.past, future=self.policy.future)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, Any]:
        """A fresh policy, and the mean, which it equals."""
        form: Form = self.policy
        policy = form.build(spec, key=key)
        return {"policy": trained(policy, self.optimiser(1.0)), "mean": policy}

    def optimiser(self, share: Float[Array, ""] | float) -> optax.GradientTransformation:
        """AdamW at a share of its rate."""
        return optax.adamw(self.learning_rate * share, b1=0.95, b2=0.999, weight_decay=self.weight_decay)

    def share(self, clock: Clock) -> Float[Array, ""]:
        """Of the highest rate."""
        after = (clock.step - self.warmup) / jnp.maximum(clock.total - self.warmup, 1.0)
        falling = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(after, 0.0, 1.0)))
        return jnp.where(clock.step < self.warmup, (clock.step + 1.0) / jnp.maximum(self.warmup, 1.0), falling)

    def update(
        self, state: dict[str, Any], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """One step, and the mean."""

        def loss(policy: Policy) -> tuple[Array, None]:
            each = imitation_loss(policy, batch, key=key)
            return jnp.sum(batch.weight * each) / jnp.maximum(jnp.sum(batch.weight), 1.0), None

        share = self.share(clock)
        policy, value, _ = descend(state["policy"], loss, self.optimiser(share))
        rate = jnp.maximum(1e-4, (1.0 + clock.step) ** -0.75)
        metrics = {"imitation_loss": value, "learning_rate": self.learning_rate * share}
        return {"policy": policy, "mean": follow(state["mean"], policy.model, rate)}, metrics

    def products(self, state: dict[str, Any]) -> dict[str, Any]:
        """`policy`, the mean, and `explorer`, the same."""
        return {"policy": state["mean"], "explorer": state["mean"]}
