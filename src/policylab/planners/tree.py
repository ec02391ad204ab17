"""The tree that planners share: fixed arrays, grown by several leaves at once, with every operator pluggable.

A search is a loop over operators, as in the vocabulary of Besta et al. 2025 (arXiv 2501.11223): `Select` says which leaves to grow,
`Expand` what might be done there, `Evaluate` what the children are worth, `Backup` what follows for those above, `Extract` which node is
the result. Best-of-n, beams, vote and tree searches are choices of these (`planners.selection`, `planners.expansion`, `planners.backup`).
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from policylab.environment import Environment
from policylab.environments.text.draft import Draft
from policylab.errors import BadInput
from policylab.experience import Tokens
from policylab.planners.imagination import require_imaginable
from policylab.planners.shooting import number
from policylab.policy import Policy


class Tree(eqx.Module):
    """What a search has found. Node 0 is the root; the first `count` of the nodes are in use. Under `vmap` every leaf has batch axes.

    `action` led from `parent` (-1 at the root) to a node, with log-probability `prior` in nats; `gain` is the sum of rewards on the way
    from the root; `judged` is what the evaluation said of it alone and `value` what is thought of it after backing up; `visits` counts
    searches that went through it. `expanded` nodes have been grown once. `spent` is what all of it cost: tokens that were written for
    texts, else steps that were tried.
    """

    parent: Int[Array, "*batch node"]
    depth: Int[Array, "*batch node"]
    action: PyTree[Array]
    prior: Float[Array, "*batch node"]
    gain: Float[Array, "*batch node"]
    judged: Float[Array, "*batch node"]
    value: Float[Array, "*batch node"]
    visits: Float[Array, "*batch node"]
    terminal: Bool[Array, "*batch node"]
    expanded: Bool[Array, "*batch node"]
    state: PyTree[Array]
    observation: PyTree[Array]
    count: Int[Array, "*batch"]
    spent: Float[Array, "*batch"]

    @property
    def used(self) -> Bool[Array, "*batch node"]:
        """Which nodes there are."""
        return jnp.arange(self.parent.shape[-1]) < self.count[..., None]

    @property
    def finished(self) -> Bool[Array, "*batch node"]:
        """Which nodes are ends."""
        return self.used & self.terminal

    @property
    def leaf(self) -> Bool[Array, "*batch node"]:
        """Which nodes have no children. One tree; `vmap` for several."""
        parent = jnp.where(self.parent < 0, self.parent.shape[-1], self.parent)
        return self.used & (jnp.zeros(self.parent.shape, jnp.int32).at[parent].add(1, mode="drop") == 0)

    def children(self, node: Int[Array, ""]) -> Bool[Array, " node"]:
        """Which nodes are children of `node`. One tree."""
        return self.used & (self.parent == node)

    def first_step(self, node: Int[Array, ""]) -> Int[Array, ""]:
        """The child of the root on the way to `node` (the root itself for the root). One tree."""
        return jax.lax.while_loop(lambda n: self.parent[n] > 0, lambda n: self.parent[n], node)

    def along(self, node: Int[Array, ""], amount: Float[Array, ""], to: Float[Array, " node"]) -> Float[Array, " node"]:
        """`to` with `amount` added at `node` and at all above it; nothing is added for a node of -1. One tree."""

        def climb(carry: tuple) -> tuple:
            at, to = carry
            return self.parent[at], to.at[at].add(amount)

        return jax.lax.while_loop(lambda carry: carry[0] >= 0, climb, (node, to))[1]


class Proposed(eqx.Module):
    """What might be done at one leaf: actions [child, ...], their log-probabilities, which of them count, and what they cost."""

    action: PyTree[Array]
    log_prob: Float[Array, " child"]
    present: Bool[Array, " child"]
    spent: Float[Array, ""]


class Reached(eqx.Module):
    """What that led to: leaves [child, ...]. `gain` is the sum of rewards since the root."""

    state: PyTree[Array]
    observation: PyTree[Array]
    action: PyTree[Array]
    gain: Float[Array, "*leaf child"]
    terminal: Bool[Array, "*leaf child"]
    present: Bool[Array, "*leaf child"]


class Operator(eqx.Module):
    """A part of a search."""

    def using(self, products: Mapping[str, Any]) -> Any:
        """This operator with what a learner has learned by now in its place; itself where it uses nothing learned."""
        return self


class Select(Operator):
    """Which leaves to grow next."""

    @abstractmethod
    def __call__(self, tree: Tree, leaves: int, *, key: PRNGKeyArray) -> Int[Array, " leaf"]:
        """`leaves` nodes, -1 in the place of a missing one; an end may be among them, which is visited and not grown."""


class Expand(Operator):
    """What might be done at a leaf."""

    @property
    @abstractmethod
    def branch(self) -> int:
        """The most children of a leaf."""

    @abstractmethod
    def __call__(self, environment: Environment, state: PyTree, observation: PyTree, *, key: PRNGKeyArray) -> Proposed:
        """Actions at one leaf."""


class Evaluate(Operator):
    """What the children of a leaf are worth."""

    @abstractmethod
    def __call__(
        self, environment: Environment, reached: Reached, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " child"], Float[Array, ""]]:
        """A value for each child, and what finding it cost."""


class Backup(Operator):
    """What follows for the nodes above."""

    @abstractmethod
    def __call__(self, tree: Tree, leaves: Int[Array, " leaf"], made: Int[Array, "leaf child"]) -> Tree:
        """The tree after `leaves` (-1: none) were grown by the nodes `made` (an index beyond the capacity: none)."""


class Extract(Operator):
    """Which node is the result."""

    @abstractmethod
    def __call__(self, tree: Tree, *, key: PRNGKeyArray) -> Int[Array, ""]:
        """The node that the search recommends to go to."""


def cost(action: PyTree) -> Float[Array, ""]:
    """What trying an action costs: the tokens that were written of a text, else 1."""
    return jnp.sum(action.kind == 2).astype(jnp.float32) if isinstance(action, Tokens) else jnp.ones(())


class TreeSearch(Policy):
    """Grows a tree for at most `rounds` rounds, `leaves` leaves at once, and acts on what it found.

    The search ends before a round once `spent` has reached `budget` (tokens or steps; a round may go beyond it), when nothing is left to
    grow, or when an end is valued at `threshold` or more. `environment` is where it looks ahead: it has to be able to go `at` an
    observation and to be stepped inside a compiled program. Its rewards are seen only by operators that say so.

    With `whole`, an action is everything from the root to the chosen node (an answer, in a `Draft`), else the first step towards it.
    `mode()` uses the same random numbers at every call.
    """

    environment: Environment
    expand: Expand
    evaluate: Evaluate
    select: Select
    backup: Backup
    extract: Extract
    budget: Float[Array, ""] = eqx.field(converter=number, default=jnp.inf)
    threshold: Float[Array, ""] = eqx.field(converter=number, default=jnp.inf)
    rounds: int = eqx.field(static=True, default=16)
    leaves: int = eqx.field(static=True, default=1)
    whole: bool = eqx.field(static=True, default=False)
    fixed: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        require_imaginable(self.environment, "tree search")
        if min(self.rounds, self.leaves, self.expand.branch) < 1:
            raise BadInput(
                f"a search of {self.rounds} rounds, {self.leaves} leaves at once and {self.expand.branch} children grows nothing:"
                " give at least 1 of each"
            )
        if self.whole and not isinstance(self.environment, Draft):
            raise BadInput("only a Draft has whole answers: leave whole=False, and the first step is the action")

    @property
    def capacity(self) -> int:
        """Nodes that there is room for: all that can be made."""
        return 1 + self.rounds * self.leaves * self.expand.branch

    def using(self, products: Mapping[str, Any]) -> TreeSearch:
        """This search with what a learner has learned by now in its operators."""
        names = ("expand", "evaluate", "select", "backup", "extract")
        return dataclasses.replace(self, **{name: getattr(self, name).using(products) for name in names})

    def mode(self) -> Policy:
        """The same search with the same random numbers at every step."""
        return dataclasses.replace(self, fixed=True)

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """Searches from `observation` and gives what the chosen node stands for."""
        key = jax.random.key(0) if self.fixed else key
        tree = self.search(observation, self.environment.at(observation), key=key)
        return self.chosen(tree, key=key), memory

    def chosen(self, tree: Tree, *, key: PRNGKeyArray) -> PyTree:
        """The action that a finished search recommends."""
        node = self.extract(tree, key=jax.random.fold_in(key, self.rounds))
        if self.whole and isinstance(self.environment, Draft):
            return self.environment.answer(jax.tree.map(lambda leaf: leaf[node], tree.state))
        first = tree.first_step(node)
        return jax.tree.map(lambda leaf: leaf[first], tree.action)

    def search(self, observation: PyTree, state: PyTree, *, key: PRNGKeyArray) -> Tree:
        """The whole tree grown from one state and its observation."""
        if isinstance(self.environment, Draft):  # a prompt may have been seen in less room than prompt and answer need
            observation = self.environment.shown(state)

        def going(carry: tuple) -> Bool[Array, ""]:
            number, tree, over = carry
            return (number < self.rounds) & ~over & (tree.spent < self.budget)

        def step(carry: tuple) -> tuple:
            number, tree, _ = carry
            choose, grow = jax.random.split(jax.random.fold_in(key, number))
            chosen = self.select(tree, self.leaves, key=choose)
            tree = self._grown(tree, chosen, grow)
            over = jnp.all(chosen < 0) | jnp.any(tree.finished & (tree.value >= self.threshold))
            return number + 1, tree, over

        start = (jnp.zeros((), jnp.int32), self._root(observation, state), jnp.zeros((), bool))
        return jax.lax.while_loop(going, step, start)[1]

    def _root(self, observation: PyTree, state: PyTree) -> Tree:
        size = self.capacity
        room = lambda leaf: jnp.zeros((size, *jnp.shape(leaf)), jnp.asarray(leaf).dtype).at[0].set(leaf)
        proposed = jax.eval_shape(lambda: self.expand(self.environment, state, observation, key=jax.random.key(0)))
        action = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape[1:]), leaf.dtype), proposed.action)
        zero, none, no = jnp.zeros(size), jnp.full(size, -1, jnp.int32), jnp.zeros(size, bool)
        return Tree(
            none, jnp.zeros(size, jnp.int32), action, zero, zero, zero, zero, zero, no, no,
            jax.tree.map(room, state), jax.tree.map(room, observation), jnp.ones((), jnp.int32), jnp.zeros(()),
        )  # fmt: skip

    def _grown(self, tree: Tree, leaves: Int[Array, " leaf"], key: PRNGKeyArray) -> Tree:
        """The tree with the children of all `leaves`, found and judged in one batch."""
        at = jnp.maximum(leaves, 0)
        alive = (leaves >= 0) & ~tree.terminal[at]
        here = lambda tree: jax.tree.map(lambda leaf: leaf[at], tree)
        keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i), 3))(jnp.arange(self.leaves))
        state = here(tree.state)
        propose = lambda s, o, k: self.expand(self.environment, s, o, key=k)
        proposed = jax.vmap(propose)(state, here(tree.observation), keys[:, 0])
        step = lambda s, a, k: self.environment.step(s, a, k)
        step_keys = jax.vmap(lambda k: jax.random.split(k, self.expand.branch))(keys[:, 1])
        states, steps = jax.vmap(jax.vmap(step, in_axes=(None, 0, 0)))(state, proposed.action, step_keys)
        reached = Reached(
            states, steps.observation, proposed.action, tree.gain[at][:, None] + steps.reward, steps.terminal | steps.truncated,
            proposed.present & alive[:, None],
        )  # fmt: skip
        value, more = jax.vmap(lambda r, k: self.evaluate(self.environment, r, key=k))(reached, keys[:, 2])
        spent = tree.spent + jnp.sum(jnp.where(alive, proposed.spent + more, 0.0))

        present = reached.present.reshape(-1)
        slots = jnp.where(present, tree.count + jnp.cumsum(present) - 1, self.capacity).astype(jnp.int32)
        flat = lambda tree: jax.tree.map(lambda leaf: leaf.reshape(slots.shape[0], *leaf.shape[2:]), tree)
        put = lambda old, new: jax.tree.map(lambda a, b: a.at[slots].set(b, mode="drop"), old, new)
        parent = jnp.repeat(at, self.expand.branch)
        tree = Tree(
            put(tree.parent, parent), put(tree.depth, tree.depth[parent] + 1), put(tree.action, flat(proposed.action)),
            put(tree.prior, flat(proposed.log_prob)), put(tree.gain, flat(reached.gain)), put(tree.judged, flat(value)),
            put(tree.value, flat(value)), tree.visits, put(tree.terminal, flat(reached.terminal)),
            tree.expanded.at[jnp.where(alive, at, self.capacity)].set(True, mode="drop"), put(tree.state, flat(states)),
            put(tree.observation, flat(steps.observation)), tree.count + jnp.sum(present).astype(jnp.int32), spent,
        )  # fmt: skip
        return self.backup(tree, leaves, slots.reshape(self.leaves, -1))
