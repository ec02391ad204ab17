"""PETS: plan in a probabilistic ensemble that is learned on the way (Chua et al. 2018, arXiv 1805.12114)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import PRNGKeyArray, PyTree

from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request
from policylab.learners.worldmodel.ensemble import EnsembleDynamics
from policylab.learners.worldmodel.rescaled import Rescaled
from policylab.planners.cross_entropy import CrossEntropy
from policylab.worlds.ensemble import DynamicsEnsemble


@settings
class PETS(Learner):
    """The world is fitted to all real steps, and who acts is the cross-entropy method in the world as it is now (algorithm 1):

        repeat: fit p(s', r | s, a) on the real data; at every step plan a_t .. a_t+H by CEM, each plan the mean return of
        `particles` walks through the ensemble, of which every step asks another member (TS1); do the first action

    On a `Replay` it learns as it acts; on a dataset it learns a world to plan in. The settings of the planner are those of the paper's
    half-cheetah (500 plans of 30 steps, 5 iterations, 50 elites, 20 particles, 5 networks); acting is what costs. The reward is learned
    with the dynamics, where the paper's tasks know it.
    """

    dynamics: Learner = setting(
        EnsembleDynamics(DynamicsEnsemble(members=5, elites=5, width=200, depth=4)), "how the world is learned"
    )
    horizon: int = setting(30, "steps of a plan", low=1)
    population: int = setting(500, "plans per iteration", low=1)
    elites: int = setting(50, "best plans that the next iteration draws around", low=1)
    iterations: int = setting(5, "iterations per step", low=1)
    particles: int = setting(20, "walks through the ensemble per plan", low=1)
    discount: float = setting(1.0, "of the rewards of a plan, per step", low=0.0, high=1.0)

    title: ClassVar[str] = "Planning in a learned ensemble (PETS)"
    actions: ClassVar[str] = "continuous"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def fitter(self) -> Learner:
        """The dynamics, in the scales of what has been seen so far."""
        return Rescaled(self.dynamics)

    @property
    def needs(self) -> Mapping[str, Request]:
        """What the dynamics need."""
        return self.dynamics.needs

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """A fresh world."""
        return self.fitter.init(spec, key=key, given=given)

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """A step of the world's."""
        return self.fitter.update(state, batch, clock=clock, key=key)

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`world`, and the planner in it as `policy`."""
        world = self.fitter.products(state)["world"]
        planner = CrossEntropy(
            world, discount=self.discount, horizon=self.horizon, population=self.population, elites=self.elites,
            iterations=self.iterations, particles=self.particles,
        )  # fmt: skip
        return {"world": world, "policy": planner}
