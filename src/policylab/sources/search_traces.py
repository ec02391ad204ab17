"""SearchTraces: problems are searched by what the learner has learned so far, and batches are mined from the trees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from policylab.environment import Environment
from policylab.errors import BadInput
from policylab.experience import Preference, Spec, Window
from policylab.learner import Clock, Pairs, Request, Steps
from policylab.planners.mining import kept_paths, mean_outcome, right_ends, sibling_pairs
from policylab.planners.tree import Tree, TreeSearch
from policylab.scorer import Scorer
from policylab.source import Source
from policylab.sources.acting import require_one_player

Values = Callable[[Tree, Bool[Array, " node"]], tuple[Float[Array, " node"], Float[Array, " node"]]]


class Traces(eqx.Module):
    """Searched trees, and what was mined of them: leaves are [problem, ...]. A weight says how often a node is drawn: of `path` steps that
    lead to right answers, of `value` those whose worth is known, of `pair` the nodes that have siblings `better` and `worse`."""

    tree: Tree
    right: Bool[Array, "*problem node"]
    path: Float[Array, "*problem node"]
    worth: Float[Array, "*problem node"]
    value: Float[Array, "*problem node"]
    better: Int[Array, "*problem node"]
    worse: Int[Array, "*problem node"]
    pair: Float[Array, "*problem node"]

    @property
    def solved(self) -> Float[Array, ""]:
        """The share of the problems to which a right answer was found."""
        return jnp.mean(jnp.any(self.right, axis=-1).astype(jnp.float32))


class SearchTraces(Source):
    """`problems` starts of `environment` are searched with the learner's products in the places of the search's operators, at the start and
    at every `every`-th update (0: never again); each time is a round of self-training, all of them in one program.

    Three kinds of batches are mined. `Steps` are the steps on the way to right answers, at most `keep` answers to a problem (0: all),
    those with the highest values first. `Steps` with the field "return_to_go" are steps whose worth `values(tree, right)` has inferred from
    the whole tree, right ends known ("return_to_go" then is the worth of what the step led to); the default is the share of right ends
    below. `Pairs` are the best and the worst of several steps from one place, where their values differ by `gap` or more.

    An end is right if the environment's rewards up to it add up to 1 or more, or where there is a `checker` (a verifier) if it says 1 of the
    answer; whether it is right never guides the search itself, unless an operator of it says so. Where nothing was found, the rows of a
    batch are not valid.
    """

    search: TreeSearch
    environment: Environment
    checker: Scorer | None = None
    gap: Float[Array, ""] = eqx.field(converter=lambda x: jnp.asarray(x, jnp.float32), default=0.2)
    problems: int = eqx.field(static=True, default=64)
    every: int = eqx.field(static=True, default=0)
    keep: int = eqx.field(static=True, default=4)
    values: Values = eqx.field(static=True, default=mean_outcome)
    needs: tuple[tuple[str, Request], ...] = eqx.field(static=True, default=())

    def __check_init__(self) -> None:
        require_one_player(self.environment, "SearchTraces")
        if self.problems < 1 or self.every < 0 or self.keep < 0:
            raise BadInput(
                f"{self.problems} problems searched every {self.every} updates, {self.keep} answers kept: give at least one problem, and 0"
                " or more of the others"
            )

    @property
    def spec(self) -> Spec:
        """Of single steps."""
        return self.search.environment.spec

    def serve(self, needs: Mapping[str, Request]) -> SearchTraces:
        """These searches, ready to answer `needs`: `Steps`, with or without "return_to_go", and `Pairs`."""
        for name, request in needs.items():
            steps = isinstance(request, Steps) and request.n == 1 and request.best == 1.0 and request.goals is None
            if not (steps or isinstance(request, Pairs)) or set(request.fields) - {"return_to_go"}:
                raise BadInput(
                    f"searches give single steps, with or without return_to_go, and pairs of them, but {name!r} asks for {request}:"
                    " choose a learner of these, such as RestMCTSStar or DPO"
                )
        return replace(self, needs=tuple(needs.items()))

    def init(self, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Traces:
        """The first round."""
        return self.round(products, key=key)

    def round(self, products: Mapping[str, Any], *, key: PRNGKeyArray) -> Traces:
        """Searches fresh problems with these products, and mines the trees."""
        search, inner = self.search.using(products), self.search.environment
        same = type(inner) is type(self.environment)

        def one(key: PRNGKeyArray) -> Traces:
            start, grow = jax.random.split(key)
            state, observation = self.environment.reset(start)
            tree = search.search(observation, state if same else inner.at(observation), key=grow)
            return self.mined(tree)

        return jax.vmap(one)(jax.random.split(key, self.problems))

    def mined(self, tree: Tree) -> Traces:
        """What one tree gives."""
        right = right_ends(tree, self.search.environment, self.checker)
        worth, value = self.values(tree, right)
        better, worse, pair = sibling_pairs(tree, self.gap)
        return Traces(tree, right, kept_paths(tree, right, self.keep), worth, value, better, worse, pair)

    def next(self, state: Traces, products: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray) -> tuple[Traces, Any]:
        """One batch per request, after a new round where it is time for one."""
        round_key, draw_key = jax.random.split(key)
        if self.every:
            due = (clock.step > 0) & (clock.step % self.every == 0)
            state = jax.lax.cond(due, lambda _: self.round(products, key=round_key), lambda old: old, state)
        keys = jax.random.split(draw_key, len(self.needs))
        batches = {name: self._draw(state, request, k) for (name, request), k in zip(self.needs, keys, strict=True)}
        return state, batches[self.needs[0][0]] if len(batches) == 1 else batches

    def _draw(self, traces: Traces, request: Request, key: PRNGKeyArray) -> Window | Preference:
        draw_key, side_key = jax.random.split(key)
        weight = traces.pair if isinstance(request, Pairs) else traces.value if request.fields else traces.path
        total = jnp.cumsum(weight.reshape(-1))
        points = jax.random.uniform(draw_key, (request.count,)) * total[-1]
        drawn = jnp.minimum(jnp.searchsorted(total, points, side="right"), total.shape[0] - 1)
        problem, node = drawn // weight.shape[1], drawn % weight.shape[1]
        there = jnp.broadcast_to(total[-1] > 0, problem.shape)
        at = lambda tree, node: jax.tree.map(lambda leaf: leaf[problem, node], tree)
        tree = traces.tree
        if isinstance(request, Pairs):
            turned = jax.random.bernoulli(side_key, 0.5, problem.shape)
            first, second = at(traces.better, node), at(traces.worse, node)
            a, b = jnp.where(turned, second, first), jnp.where(turned, first, second)
            p = 1.0 - turned.astype(jnp.float32)
            return Preference(at(tree.observation, node), at(tree.action, a), at(tree.action, b), p, there.astype(jnp.float32))
        parent = jnp.maximum(at(tree.parent, node), 0)
        none = jnp.zeros(problem.shape, bool)
        return Window(
            observation=at(tree.observation, parent),
            action=at(tree.action, node),
            reward=at(tree.gain, node) - at(tree.gain, parent),
            next_observation=at(tree.observation, node),
            terminal=at(tree.terminal, node),
            truncated=none,
            valid=there,
            duration=jnp.ones(problem.shape, jnp.int32),
            extra={"return_to_go": at(traces.worth, node)} if request.fields else {},
        )
