"""Rollout: what the learner's explorer does in an environment, fresh for every update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PRNGKeyArray, PyTree

from policylab.environment import Environment, unroll
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.learner import Clock, Request, WholeEpisodes, Windows
from policylab.policies.population import Population
from policylab.policy import Policy
from policylab.source import Source
from policylab.sources.acting import Actors, begin, explorer_of, identity, move, move_keys, require_one_player


class Rollout(Source):
    """On-policy experience: every batch is acted by `products["explorer"]` as it is now, for one update.

    For `Windows(environments, future=steps)` each of the copies of the environment goes on for `steps` steps from where the last
    batch left it: leaves [environment, time], the policy's memory at the start in `memory`. Where an episode ends inside, the next
    begins: `terminal` (the process ended) and `truncated` (its time was up) say so, and `next_observation` is what the step led
    to, never the reset that followed, so that values are bootstrapped right. For `WholeEpisodes(count)` every batch holds `count`
    new episodes from their start to their end, padded to `steps` (`valid` is False there). Where the explorer is a `Population`, every
    member plays, whole episodes all from the same starts, windows in copies of its own, and leaves are [member, episode, time].

    `steps` and `environments` replace what the learner asks for; 0 leaves it so, and takes the environment's horizon for whole
    episodes. Fields: `log_prob` (windows), `return_to_go` (whole episodes, undiscounted).
    """

    environment: Environment
    steps: int = eqx.field(static=True, default=0)
    environments: int = eqx.field(static=True, default=0)
    needs: tuple[tuple[str, Request], ...] = eqx.field(static=True, default=())

    def __check_init__(self) -> None:
        require_one_player(self.environment, "Rollout")
        if self.steps < 0 or self.environments < 0:
            raise BadInput(
                f"{self.steps} steps of {self.environments} environments: give at least 1, or 0 for the learner's wish"
            )

    @property
    def spec(self) -> Spec:
        """The environment's own."""
        return self.environment.spec

    @property
    def on_policy(self) -> bool:
        """It is."""
        return True

    def fingerprint(self) -> str:
        """Of the environment and the settings."""
        return identity(self, self.environment, self.steps, self.environments)

    def serve(self, needs: Mapping[str, Request]) -> Rollout:
        """This rollout, ready to answer one request for windows from now on, or for whole episodes."""
        if len(needs) != 1:
            raise BadInput(f"a rollout answers one request, not {len(needs)} ({', '.join(needs)}): blend several sources")
        name, request = next(iter(needs.items()))
        episodes = isinstance(request, WholeEpisodes)
        if not episodes and not (isinstance(request, Windows) and request.past == 0):
            raise BadInput(
                f"a rollout gives what is done from now on, windows without a past or whole episodes, not {request} "
                f"(asked for as {name!r}): use Replay for transitions"
            )
        if request.goals is not None:
            raise BadInput(f"a rollout draws no goals, which {name!r} needs: use a Dataset")
        known = ("return_to_go",) if episodes else ("log_prob",)
        missing = [field for field in request.fields if field not in known]
        if missing:
            raise BadInput(
                f"a rollout knows no {missing[0]!r} of {type(request).__name__}, which {name!r} needs: it knows {known[0]}"
            )
        if episodes and not (self.steps or self.spec.horizon):
            raise BadInput(
                "whole episodes need a longest length: put a TimeLimit around the environment, or give Rollout steps="
            )
        return replace(self, needs=tuple(needs.items()))

    @property
    def _shape(self) -> tuple[int, int]:
        """Environments and steps of a batch."""
        request = self.needs[0][1]
        asked = request.future if isinstance(request, Windows) else self.spec.horizon
        return self.environments or request.count, self.steps or asked

    def init(self, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Actors | None:
        """Fresh episodes; nothing where every batch begins with fresh ones."""
        if isinstance(self.needs[0][1], WholeEpisodes):
            return None
        policy, start = explorer_of(products), lambda one, k: begin(self.environment, one, self._shape[0], key=k)
        if isinstance(policy, Population):
            return jax.vmap(start)(policy.members, jax.random.split(key, policy.size))
        return start(policy, key)

    @property
    def restorable(self) -> bool:
        """Whether the environment is, or every batch begins anew anyway."""
        return self.environment.restorable or isinstance(self.needs[0][1], WholeEpisodes)

    def resumed(self, state: PyTree, products: Mapping[str, Any], *, key: PRNGKeyArray) -> PyTree:
        """Fresh episodes."""
        return self.init(products, key=key)

    def next(self, state: PyTree, products: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray) -> tuple[PyTree, Window]:
        """The next windows [environment, time]."""
        policy, request = explorer_of(products), self.needs[0][1]
        if isinstance(request, WholeEpisodes):
            played = lambda one: self._episodes(one, *self._shape, request, key)
            return state, jax.vmap(played)(policy.members) if isinstance(policy, Population) else played(policy)
        if isinstance(policy, Population):
            return jax.vmap(self._windows)(policy.members, state, jax.random.split(key, policy.size))
        return self._windows(policy, state, key)

    def _windows(self, policy: Policy, state: Actors, key: PRNGKeyArray) -> tuple[Actors, Window]:
        (environments, steps), request = self._shape, self.needs[0][1]

        def forward(actors: Actors, keys: Key[Array, "environment purpose"]) -> tuple[Actors, Window]:
            return move(self.environment, policy, actors, key=keys, log_prob="log_prob" in request.fields)

        memory = state.memory
        keys = jax.vmap(lambda one: move_keys(one, environments))(jax.random.split(key, steps))
        state, rows = jax.lax.scan(forward, state, keys)
        return state, replace(jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), rows), memory=memory)

    def _episodes(self, policy: Policy, count: int, horizon: int, request: Request, key: PRNGKeyArray) -> Window:
        found = unroll(policy, self.environment, episodes=count, horizon=horizon, key=key)
        reward = jnp.where(found.valid, found.reward, 0.0)
        to_go = jnp.flip(jnp.cumsum(jnp.flip(reward, axis=1), axis=1), axis=1)
        return Window(
            observation=jax.tree.map(lambda leaf: leaf[:, :-1], found.observation),
            action=found.action,
            reward=reward,
            next_observation=jax.tree.map(lambda leaf: leaf[:, 1:], found.observation),
            terminal=found.terminal,
            truncated=found.truncated,
            valid=found.valid,
            duration=jnp.ones(found.valid.shape, jnp.int32),
            extra={"return_to_go": to_go} if "return_to_go" in request.fields else {},
        )
