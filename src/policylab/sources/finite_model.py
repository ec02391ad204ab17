"""FiniteModel: the transitions of a finite process itself, as data that cannot be had more exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab.environment import Environment
from policylab.environments.tabular import Tabular
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.learner import Clock, Everything, Request, Steps
from policylab.source import Source


class FiniteModel(Source):
    """For `Everything` every possible transition once, its probability as weight. For `Steps` a state and a choice drawn uniformly
    and their successor from the table: the generative model of Kearns and Singh 1999, "Finite-sample convergence rates".
    """

    process: Tabular
    state: Int[Array, " row"]
    action: Int[Array, " row"]
    following: Int[Array, " row"]
    probability: Float[Array, " row"]
    needs: tuple[tuple[str, Request], ...] = eqx.field(static=True, default=())

    @staticmethod
    def of(process: Environment) -> FiniteModel:
        """Raises `BadInput` for anything but a `Tabular` process (a time limit would make the clock part of the state)."""
        if not isinstance(process, Tabular):
            raise BadInput(f"FiniteModel lists the transitions of a Tabular process, not of {type(process).__name__}")
        places = np.nonzero(np.asarray(process.transition) > 0)
        state, action, following = (jnp.asarray(place, jnp.int32) for place in places)
        return FiniteModel(process, state, action, following, process.transition[state, action, following])

    @property
    def spec(self) -> Spec:
        """The process's own."""
        return self.process.spec

    def serve(self, needs: Mapping[str, Request]) -> FiniteModel:
        """Raises `BadInput` for requests other than `Everything` and single steps without extra fields."""
        for name, request in needs.items():
            simple = isinstance(request, Everything) or (isinstance(request, Steps) and request.n == 1 and request.best == 1.0)
            if not simple or request.fields or request.goals:
                raise BadInput(
                    f"a finite model answers requests for Everything and for single Steps, not {request} (asked for as {name!r})"
                )
        return replace(self, needs=tuple(needs.items()))

    def next(self, state: PyTree, products: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray) -> tuple[PyTree, Any]:
        """One batch per request."""
        keys = jax.random.split(key, len(self.needs))
        batches = {name: self._answer(request, k) for (name, request), k in zip(self.needs, keys, strict=True)}
        return state, batches[self.needs[0][0]] if len(batches) == 1 else batches

    def _answer(self, request: Request, key: PRNGKeyArray) -> Window:
        if isinstance(request, Everything):
            return self._window(self.state, self.action, self.following, {"weight": self.probability})
        first, second, third = jax.random.split(key, 3)
        state = jax.random.randint(first, (request.count,), 0, self.process.states)
        action = jax.random.randint(second, (request.count,), 0, self.process.choices)
        following = jax.random.categorical(third, jnp.log(self.process.transition[state, action])).astype(jnp.int32)
        return self._window(state, action, following, {})

    def _window(
        self, state: Int[Array, " row"], action: Int[Array, " row"], following: Int[Array, " row"], extra: dict[str, PyTree]
    ) -> Window:
        return Window(
            observation=state,
            action=action,
            reward=self.process.reward[state, action, following],
            next_observation=following,
            terminal=self.process.terminal[following],
            truncated=jnp.zeros(state.shape, bool),
            valid=jnp.ones(state.shape, bool),
            duration=jnp.ones_like(state),
            extra=extra,
        )
