"""Intervention: the explorer acts and an expert takes over by a rule; a replay that knows who did what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Window
from policylab.fingerprints import fingerprint
from policylab.learner import Clock, Everything, Request, Steps
from policylab.policies.takeover import Rule, TakeOver
from policylab.policy import Policy
from policylab.sources.acting import Actors, explorer_of, move
from policylab.sources.replay import Replay, Stored

_TRIES = 16  # rows that are looked at for each row of a batch of which only some will do
_FIELDS = ("intervened", "before_takeover", "expert_action")


class Intervention(Replay):
    """A replay of episodes that the learner's explorer and `expert` share: where `rule` calls, the expert acts for `hold` steps.
    The rule judges what the learner did last (`watching`), or else what it is about to do, which is then not done.

    `keep` says whose rows batches hold: "all", the learner's "own", or the "expert"'s; of 16 rows drawn for each place of the batch
    the first that will do is taken, and where none does the weight is 0. With `relabel` the actions of a batch are the expert's also
    where it did not act. So behaviour cloning is

    * DAgger (Ross, Gordon and Bagnell 2011, arXiv 1011.0686) with `relabel`: the expert says everywhere what it would do;
    * HG-DAgger (Kelly et al. 2019, arXiv 1810.02890) with `keep="expert"`: only what the expert did when it took over.

    Fields beside those of a replay: `intervened` (the expert acted), `before_takeover` (the learner acted, and the expert took over at
    the next step of the same episode), `expert_action`. The warmup is shared, too: there is no random one.
    """

    expert: Policy = eqx.field(kw_only=True)
    rule: Rule = eqx.field(kw_only=True)
    hold: int = eqx.field(static=True, default=4)
    watching: bool = eqx.field(static=True, default=True)
    keep: str = eqx.field(static=True, default="all")
    relabel: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if self.hold < 1:
            raise BadInput(f"Intervention.hold is {self.hold}: let the expert act for at least 1 step")
        if self.keep not in ("all", "own", "expert"):
            raise BadInput(f"Intervention.keep is {self.keep!r}: choose all, own or expert")
        if self.prioritised:
            raise BadInput("an intervention draws uniformly: leave prioritised=False")

    def fingerprint(self) -> str:
        """Of the environment, the expert, the rule and the settings."""
        who = (type(self.expert).__name__, type(self.rule).__name__)
        words = repr((Replay.fingerprint(self), *who, self.hold, self.watching, self.keep, self.relabel))
        return fingerprint(np.frombuffer(words.encode(), np.uint8))

    def serve(self, needs: Mapping[str, Request]) -> Intervention:
        """This source, ready to answer `needs`."""
        for name, request in needs.items():
            if "log_prob" in request.fields:
                raise BadInput(f"{name!r} needs log_prob, but where two act in turn no policy has the density of what was done")
            if (self.keep != "all" or self.relabel) and not (isinstance(request, Steps) and request.n == 1):
                raise BadInput(f"{name!r} asks for {request}: keep={self.keep!r} and relabel choose among single Steps")
        plain = {
            name: replace(request, fields=tuple(field for field in request.fields if field not in _FIELDS))
            for name, request in needs.items()
            if not isinstance(request, Everything)
        }
        Replay.serve(self, plain or needs)
        return replace(self, needs=tuple(needs.items()))

    def _sharing(self, products: Mapping[str, Any]) -> dict[str, Policy]:
        blank = jax.tree.map(jnp.asarray, (spaces.zeros(self.spec.observation), spaces.zeros(self.spec.action)))
        return {"explorer": TakeOver(explorer_of(products), self.expert, self.rule, blank, self.hold, self.watching)}

    def init(self, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Stored:
        """The ring after the shared warmup."""
        return Replay.init(replace(self, random_warmup=False), self._sharing(products), key=key)

    def resumed(self, state: Stored, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Stored:
        """As of a replay."""
        return Replay.resumed(self, state, self._sharing(products), key=key)

    def next(self, state: Stored, products: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray) -> tuple[Stored, Any]:
        """Shared steps where it is time, then a batch per request."""
        return Replay.next(self, state, self._sharing(products), clock=clock, key=key)

    def _move(self, policy: Policy, actors: Actors, key: PRNGKeyArray) -> tuple[Actors, Window]:
        notes = lambda memory: {"intervened": memory.intervened, "expert_action": memory.advice}
        return move(self.environment, policy, actors, key=key, notes=notes)

    def _draw(self, state: Stored, request: Request, clock: Clock, key: PRNGKeyArray) -> Window:
        if self.keep == "all":
            return Replay._draw(self, state, request, clock, key)
        filled = jnp.minimum(state.written, self.slots) * self.environments
        tried = jax.random.randint(key, (request.count, _TRIES), 0, filled)
        fits = self._by_row(state.rows.extra["intervened"], tried) == (self.keep == "expert")
        first = jnp.argmax(fits, axis=1)[:, None]
        batch = self._answer(state, request, jnp.take_along_axis(tried, first, axis=1)[:, 0])
        return replace(batch, extra={**batch.extra, "weight": jnp.any(fits, axis=1).astype(jnp.float32)})

    def _answer(self, state: Stored, request: Request, row: Int[Array, " row"]) -> Window:
        plain = tuple(field for field in request.fields if field not in _FIELDS)
        window = Replay._answer(self, state, replace(request, fields=(*plain, "row")), row)
        rows = window.extra["row"]
        found = {
            "intervened": lambda: self._by_row(state.rows.extra["intervened"], rows),
            "before_takeover": lambda: self._before_takeover(state, rows),
            "expert_action": lambda: jax.tree.map(lambda leaf: self._by_row(leaf, rows), state.rows.extra["expert_action"]),
        }
        extra = {name: value for name, value in window.extra.items() if name != "row" or "row" in request.fields}
        extra |= {name: made() for name, made in found.items() if name in request.fields}
        return replace(window, action=found["expert_action"]() if self.relabel else window.action, extra=extra)

    def _by_row(self, ring: Array, rows: Int[Array, "..."]) -> Array:
        return ring[rows // self.environments, rows % self.environments]

    def _before_takeover(self, state: Stored, rows: Int[Array, "..."]) -> Bool[Array, "..."]:
        slot, copy = rows // self.environments, rows % self.environments
        following = (slot + 1) % self.slots
        ended = (state.rows.terminal | state.rows.truncated)[slot, copy]
        newest = slot == (state.written - 1) % self.slots  # what follows it has not happened yet
        by_expert = state.rows.extra["intervened"]
        return ~by_expert[slot, copy] & by_expert[following, copy] & ~ended & ~newest

    @staticmethod
    def share(state: Stored) -> Array:
        """The share of steps that the expert made, of those that are stored."""
        slots = state.rows.reward.shape[0]
        stored = (jnp.arange(slots) < state.written)[:, None] & jnp.ones(state.rows.reward.shape, bool)
        return jnp.sum(state.rows.extra["intervened"] & stored) / jnp.sum(stored)
