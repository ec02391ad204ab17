"""Dichotomy of Control (Yang, Schuurmans, Abbeel and Nachum 2022, arXiv 2210.13435)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Windows
from policylab.networks.frozen import Normaliser, observation_normaliser
from policylab.networks.mlp import MLP
from policylab.networks.optimisation import descend, trained
from policylab.networks.reading import Network, network_for
from policylab.policies.categorical import Categorical
from policylab.policies.conditioned import conditioned_spec, told
from policylab.policies.gaussian import Gaussian
from policylab.policies.latent import LatentFuture
from policylab.policy import Form, Policy


class Steps(eqx.Module):
    """The steps of a window as vectors: what was seen, done, and what came of it."""

    observation: Float[Array, "*batch observation"]
    action: Float[Array, "*batch action"]
    outcome: Float[Array, "*batch outcome"]

    @staticmethod
    def of(batch: Window, spec: Spec, normaliser: Normaliser) -> Steps:
        """The outcome is the reward, the next observation and whether the process ended."""

        def one(observation: PyTree, action: PyTree, reward: Array, following: PyTree, terminal: Array) -> Steps:
            read = lambda seen: normaliser(spaces.flatten(spec.observation, seen))
            outcome = jnp.concatenate([jnp.stack([reward, terminal.astype(jnp.float32)]), read(following)])
            return Steps(read(observation), spaces.flatten(spec.action, action), outcome)

        return jax.vmap(jax.vmap(one))(batch.observation, batch.action, batch.reward, batch.next_observation, batch.terminal)


class Model(eqx.Module):
    """Everything but the energy: posterior q(z | future), prior p(z | s), policy pi(a | s, z), value V(s, z)."""

    step: MLP
    future: MLP
    prior: Network
    value: Network
    policy: Policy

    def posterior(self, steps: Steps, valid: Array) -> Float[Array, "batch latent"]:
        """log q(z | future): every step is read with its place in the window; their sum is read again."""
        place = jnp.broadcast_to(jnp.eye(valid.shape[1]), (*valid.shape, valid.shape[1]))
        each = jax.vmap(jax.vmap(self.step))(jnp.concatenate([steps.observation, steps.action, steps.outcome, place], axis=-1))
        return jax.nn.log_softmax(jax.vmap(self.future)(jnp.sum(each * valid[..., None], axis=1)))


class Energy(eqx.Module):
    """phi(s, a, z, outcome) = <f(s, a)_z, g(outcome)> / sqrt(size), for all latents at once."""

    context: MLP
    outcome: MLP
    latents: int = eqx.field(static=True)

    def excess(
        self, steps: Steps, others: Float[Array, "other outcome"], counts: Float[Array, " other"]
    ) -> Float[Array, "batch time latent"]:
        """phi(pos) - log E_rho[ exp phi ] with the outcomes `others`, those with `counts` 1, and the step's own one as rho: without its
        own, an outcome that is not among the others would be worth an infinite phi."""
        given = jax.vmap(jax.vmap(self.context))(jnp.concatenate([steps.observation, steps.action], axis=-1))
        given = given.reshape(*given.shape[:2], self.latents, -1)
        scale = given.shape[-1] ** -0.5
        positive = jnp.einsum("btzd,btd->btz", given, jax.vmap(jax.vmap(self.outcome))(steps.outcome)) * scale
        negative = jnp.einsum("btzd,nd->btzn", given, jax.vmap(self.outcome)(others)) * scale
        total = jnp.logaddexp(positive, jax.nn.logsumexp(negative, axis=-1, b=counts))
        return positive - total + jnp.log(counts.sum() + 1.0)


@settings
class DichotomyOfControl(Learner):
    r"""Imitation that is conditioned on a latent z of the future, out of which everything is pressed that actions do not control:

        min_{q, p, pi, V} max_phi  E_{q(z | future)}[ -log pi(a_t | s_t, z) + value_weight (V(s, z) - R)^2 ] + prior_weight KL(q || p)
                     + energy_weight E[ phi(s_t, a_t, z, o_t) - log E_{o ~ rho} exp phi(s_t, a_t, z, o) ]

    with the outcome o_t = (r_t, s_{t+1}, whether it ended), rho outcomes of the batch, R the return of the next `future` steps
    under `discount`. At its best phi makes the last term I(o; z | s, a) plus what does not depend on z, which the encoder q takes
    away (equations 7 to 9 of the paper). Acting takes, of the latents that the prior holds likely, the one with the highest value.

    The latent is one of `latents` classes, as in the released tabular code, and expectations over it are sums, not straight-through
    samples. That code lets the encoder raise the last term together with phi (`joint`), against the paper's constraint; ours is
    min-max. The prior is always fitted to q; `prior_weight` says how much q is drawn to it (tabular code 0, neural code 1).
    `energy_weight` 0 is the future-conditioned variational autoencoder without the constraint. `held`: one latent per episode.
    """

    latents: int = setting(8, "how many classes of futures", low=2)
    future: int = setting(1, "steps of the future that a latent stands for, the present one included", low=1)
    discount: float = setting(1.0, "gamma per step in R", low=0.0, high=1.0)
    energy_weight: float = setting(10.0, "weight of the constraint (released code 1)", low=0.0)
    value_weight: float = setting(1.0, "weight of the value's error", low=0.0)
    prior_weight: float = setting(0.0, "how much the posterior is drawn to the prior", low=0.0)
    learning_rate: float = setting(1e-3, "of Adam", above=0.0)
    energy_rate: float = setting(3e-3, "of the energy's Adam", above=0.0)
    energy_steps: int = setting(2, "steps of the energy per update", low=1)
    negatives: int = setting(128, "outcomes of the batch that stand for rho", low=1)
    batch_size: int = setting(64, "windows per update", low=1)
    width: int = setting(64, "units per hidden layer", low=1)
    depth: int = setting(2, "hidden layers", low=1)
    joint: bool = setting(False, "the released code's sign: the encoder raises the bound together with phi")
    held: bool = setting(False, "whether an episode keeps the latent of its start; else every step chooses anew")
    policy: Form | None = setting(None, "the form of pi; None chooses by the action space")

    title: ClassVar[str] = "Dichotomy of control"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Windows of the future."""
        return {"windows": Windows(self.batch_size, future=self.future)}

    def _form(self, spec: Spec) -> Form:
        shape: dict[str, Any] = {"width": self.width, "depth": self.depth}
        return self.policy or (Categorical(**shape) if isinstance(spec.action, spaces.Discrete) else Gaussian(**shape))

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Fresh networks."""
        keys = jax.random.split(key, 7)
        seen, done = spaces.size(spec.observation), spaces.size(spec.action)
        shape: dict[str, Any] = {"width": self.width, "depth": self.depth}
        model = Model(
            MLP(2 * seen + done + 2 + self.future, self.width, **shape, key=keys[0]),
            MLP(self.width, self.latents, **shape, key=keys[1]),
            network_for(spec.observation, self.latents, **shape, key=keys[2]),
            network_for(spec.observation, self.latents, **shape, key=keys[3]),
            self._form(spec).build(conditioned_spec(spec, spaces.Discrete(self.latents)), key=keys[4]),
        )
        energy = Energy(
            MLP(seen + done, self.latents * self.width, **shape, key=keys[5]),
            MLP(seen + 2, self.width, **shape, key=keys[6]),
            self.latents,
        )
        return {
            "model": trained(model, optax.adam(self.learning_rate)),
            "energy": trained(energy, optax.adam(self.energy_rate)),
            "lasting": Lasting(observation_normaliser(spec), spec),
        }

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """`energy_steps` steps of the energy, then one of everything else."""
        draw, play = jax.random.split(key)
        lasting = state["lasting"]
        steps, valid = Steps.of(batch, lasting.spec, lasting.normaliser), batch.weight
        rows = jax.random.permutation(draw, valid.size)[: self.negatives]
        others = steps.outcome.reshape(valid.size, -1)[rows], valid.reshape(-1)[rows]
        held = jnp.exp(state["model"].model.posterior(steps, valid))

        def bound(energy: Energy) -> tuple[Array, None]:
            return -_mean(jnp.sum(held[:, None] * energy.excess(steps, *others), axis=-1), valid), None

        rise = lambda energy, _: (descend(energy, bound, optax.adam(self.energy_rate))[0], None)
        energy = jax.lax.scan(rise, state["energy"], length=self.energy_steps)[0]
        excess = jax.lax.stop_gradient(energy.model.excess(steps, *others))
        model, _, metrics = descend(
            state["model"], lambda m: self._loss(m, batch, steps, excess, play), optax.adam(self.learning_rate)
        )
        return {"model": model, "energy": energy, "lasting": lasting}, metrics

    def _loss(
        self, model: Model, batch: Window, steps: Steps, excess: Float[Array, "batch time latent"], key: PRNGKeyArray
    ) -> tuple[Array, dict[str, Array]]:
        log_posterior, valid = model.posterior(steps, batch.weight), batch.weight
        posterior = jnp.exp(log_posterior)
        keys = jax.random.split(key, valid.shape[0])

        def imitation(window: Window, key: PRNGKeyArray) -> Float[Array, "time latent"]:
            under = lambda z: model.policy.imitation_loss(told(window, z), key=key)
            return jax.vmap(under, out_axes=1)(jnp.arange(self.latents))

        over_latents = lambda each: _mean(jnp.sum(posterior[:, None] * each, axis=-1), valid)
        cloned = over_latents(jax.vmap(imitation)(batch, keys))
        first = steps.observation[:, 0]
        returns = jnp.sum(batch.reward * batch.valid * self.discount ** jnp.arange(valid.shape[1]), axis=1)
        error = jnp.sum(posterior * (jax.vmap(model.value)(first) - returns[:, None]) ** 2, axis=-1).mean()
        log_prior = jax.nn.log_softmax(jax.vmap(model.prior)(first))
        drawn = jnp.sum(posterior * (log_posterior - jax.lax.stop_gradient(log_prior)), axis=-1).mean()
        fitted = -jnp.sum(jax.lax.stop_gradient(posterior) * log_prior, axis=-1).mean()
        told_more = over_latents(excess)
        loss = cloned + self.value_weight * error + self.prior_weight * drawn + fitted
        loss += self.energy_weight * (-told_more if self.joint else told_more)
        return loss, {"imitation_loss": cloned, "value_error": error, "bound": told_more, "prior_divergence": drawn}

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy` (its `promised` is the return that it expects of itself)."""
        model, lasting = state["model"].model, state["lasting"]
        policy = LatentFuture(model.policy, model.prior, model.value, lasting.normaliser, lasting.spec.observation, self.held)
        return {"policy": policy, "explorer": policy}


class Lasting(eqx.Module):
    """What never changes."""

    normaliser: Normaliser
    spec: Spec


def _mean(each: Float[Array, "batch time"], weight: Float[Array, "batch time"]) -> Float[Array, ""]:
    return jnp.sum(each * weight) / jnp.maximum(jnp.sum(weight), 1.0)
