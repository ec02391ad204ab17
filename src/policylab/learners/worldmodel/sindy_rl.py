"""SINDy-RL: PPO in a sparse polynomial world, and a polynomial policy from it (Zolman et al. 2024, arXiv 2403.09110)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Steps, Windows
from policylab.learners.online.ppo import PPO
from policylab.learners.worldmodel.dyna import Dyna
from policylab.learners.worldmodel.ensemble import bootstrap
from policylab.learners.worldmodel.sparse import SINDy, ridge
from policylab.networks.periodic import where_due
from policylab.policies.continuous import box_of
from policylab.policies.polynomial import PolynomialPolicy, Weights
from policylab.policy import Policy

_MOST = 256  # observations of an update that the policy is distilled at


@settings
class SINDyAnew(SINDy):
    """SINDy from the beginning at every update: all `iterations` of thresholded least squares on a draw of `rows` real transitions."""

    rows: int = setting(2048, "transitions that every fit sees, drawn with replacement", low=1)
    iterations: int = setting(10, "of solving and thresholding, per fit", low=1)

    title: ClassVar[str] = "Sparse identification, anew at every update"

    @property
    def needs(self) -> Mapping[str, Request]:
        """Many transitions."""
        return {"transitions": Steps(self.rows)}

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Array]]:
        """A fresh fit; what was known before is forgotten."""
        again = lambda state: SINDy.update(self, state, batch, clock=clock, key=key)
        start = {**state, "kept": jnp.ones_like(state["kept"])}
        _, metrics = jax.eval_shape(again, start)
        blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics)
        return jax.lax.fori_loop(0, self.iterations, lambda _, loop: again(loop[0]), (start, blank))


@settings
class SINDyRL(Dyna):
    r"""Dyna with a world that can be read, and a policy that can:

    1. `fit_every` updates apart, the world s' = s + Theta(s, a) Xi, r = Theta(s, a) xi is fitted anew to the real steps so far, by
       thresholded least squares on bootstrap samples (coefficient-wise medians of `dynamics.world.members`);
    2. PPO learns from episodes in that world that begin at real observations;
    3. at the same updates the mean action of PPO's policy is regressed in the same way on Theta(s) at the observations that it meets in the
       world since the last time: the product `distilled`, polynomials of `degree` clipped to the bounds.

    Use it on `Dreamed(Replay(environment, collect=..., updates=10, warmup=...))`: so many real steps every ten updates of PPO, after a
    warmup of random ones. The authors distil once, after training, with bootstrap samples; here the last
    fit is that, of all rows once: monomials of a cosine and its sine depend on one another, and medians over different supports mean nothing.
    """

    agent: Learner = setting(PPO(environments=32, steps=64), "who learns in the world")
    dynamics: Learner = setting(SINDyAnew(), "how the world is learned from real steps")
    fit_share: float = setting(0.0, "share of the updates at the start that fit the world alone", low=0.0, below=1.0)
    fit_every: int = setting(10, "updates between two fits of world and distilled policy", low=1)
    degree: int = setting(3, "of the distilled policy's polynomials", low=1)
    threshold: float = setting(1e-2, "coefficients of the distilled policy below it become 0, in units of the action", low=0.0)
    penalty: float = setting(5e-5, "ridge of the distilled policy", low=0.0)
    bags: int = setting(1, "bootstrap samples whose median coefficients the distilled policy has; 1 fits all rows once", low=1)

    title: ClassVar[str] = "SINDy-RL: learning in a world of equations"
    actions: ClassVar[str] = "continuous"

    def branched(self, request: Request) -> Request:
        """Windows, as PPO wants them. Raises `BadInput` for agents of single transitions."""
        if not isinstance(request, Windows):
            raise BadInput(
                f"SINDyRL lets an agent of whole windows dream, such as PPO, not {type(self.agent).__name__}: see Dyna"
            )
        return request

    @property
    def _kept(self) -> int:
        """Observations of every update that are kept for distillation."""
        (request,) = self.agent.needs.values()
        return min(_MOST, request.count * getattr(request, "future", 1))

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Both learners' states, a distilled policy that does nothing, and room for what is met between two fits."""
        blank = PolynomialPolicy.blank(spec, self.degree)
        met = jnp.zeros((self.fit_every, self._kept, *spaces.zeros(spec.observation).shape))
        return {**Dyna.init(self, spec, key=key), "distilled": blank, "met": met}

    def update(
        self, state: dict[str, PyTree], batch: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """As ever, and the distilled policy after it."""
        inner, metrics = Dyna.update(self, {name: state[name] for name in ("agent", "dynamics")}, batch, clock=clock, key=key)
        (seen,) = (part.observation for name, part in batch.items() if name != "world")
        rows = seen.reshape(-1, *seen.shape[2:])
        some = rows[jnp.linspace(0, rows.shape[0] - 1, self._kept).astype(jnp.int32)]
        # Several windows: imagined episodes go on together, and a single window may show their ends alone.
        met = jnp.where(clock.step == 0, some[None], state["met"].at[clock.step % self.fit_every].set(some))
        policy = Dyna.products(self, inner)["policy"]
        due = (clock.step % self.fit_every == 0) | (clock.step == clock.total - 1)
        every = met.reshape(-1, *met.shape[2:])
        regress = lambda blank: self.distil(blank, policy, every, key=jax.random.fold_in(key, 1))
        distilled, found = where_due(due, regress, state["distilled"])
        return {**inner, "distilled": distilled, "met": met}, {**metrics, **found}

    def distil(
        self, blank: PolynomialPolicy, policy: Policy, observation: PyTree, *, key: PRNGKeyArray
    ) -> tuple[PolynomialPolicy, dict[str, Array]]:
        """Polynomials of the mean action at these observations, leaves [row, ...].

        What is regressed is clipped when it acts: where the action is at a bound (within 2% of the range), a polynomial beyond it is right."""
        theta, mode = jax.vmap(blank.terms)(observation), policy.mode()
        space = box_of(blank.specification, "SINDyRL")
        act = lambda o: spaces.flatten(space, mode.act(o, None, key=key)[0])
        target = jax.vmap(act)(observation)
        low, high = (jnp.asarray(bound, jnp.float32).reshape(-1) for bound in space.bounds())
        top, bottom = target >= high - 0.02 * (high - low), target <= low + 0.02 * (high - low)
        rows = theta.shape[0]
        counts = bootstrap(jnp.arange(rows), self.bags, key=key)
        weight = counts if self.bags > 1 else jnp.ones_like(counts)

        def fit(weight: Float[Array, " row"]) -> Float[Array, "term size"]:
            share = (weight / jnp.maximum(jnp.sum(weight), 1.0))[:, None]
            gram = theta.T @ (share * theta)
            solve = jax.vmap(lambda m, k: ridge(gram, m, k, self.penalty), in_axes=1, out_axes=1)

            def again(_: Array, loop: tuple) -> tuple[Array, Bool[Array, "term size"]]:
                now = theta @ loop[0]
                wanted = jnp.where((top & (now > target)) | (bottom & (now < target)), now, target)
                values = solve(theta.T @ (share * wanted), loop[1])
                kept = loop[1] & (jnp.abs(values) >= self.threshold)
                return jnp.where(kept, values, 0.0), kept

            shape = (theta.shape[1], target.shape[1])
            return jax.lax.fori_loop(0, 20, again, (jnp.zeros(shape), jnp.ones(shape, bool)))[0]

        values = jnp.median(jax.vmap(fit, in_axes=1)(weight), axis=0)
        error = jnp.mean((jnp.clip(theta @ values, low, high) - target) ** 2)
        found = {"distilled_error": error, "distilled_terms": jnp.sum(values != 0).astype(jnp.float32)}
        return eqx.tree_at(lambda p: p.weights, blank, Weights(values)), found

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """What PPO offers, `world` (whose `equations` can be read) and `distilled`."""
        return {**Dyna.products(self, state), "distilled": state["distilled"]}
