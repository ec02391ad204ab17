"""Monte-Carlo tree search over listed choices, for one player or two, on top of the mctx library."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.environment import Environment
from policylab.errors import BadInput
from policylab.planners.imagination import require_imaginable
from policylab.planners.shooting import number
from policylab.policy import Policy

IMPOSSIBLE = -1e9  # a logit


class Node(eqx.Module):
    """What the tree keeps per node: the environment's state, whether the game is over, and the randomness of what follows."""

    state: PyTree[Array]
    over: Bool[Array, ""]
    key: PRNGKeyArray


class Search(eqx.Module):
    """What a search found out: the share of visits of each choice at the root, the root's value for the mover, and the tree."""

    visits: Float[Array, "*batch choice"]
    value: Float[Array, "*batch"]
    tree: Any


class MonteCarloTreeSearch(Policy):
    r"""PUCT with `simulations` expansions per move (Silver et al. 2017; selection, constants and the normalisation of values as in
    MuZero, Schrittwieser et al. 2020, appendix B, by the mctx library).

        choose  argmax_a  qhat(s, a) + p(a | s) sqrt(sum_b n_b) / (1 + n_a) (c_1 + log((sum_b n_b + c_2 + 1) / c_2))

    `prior(observation)` gives logits over choices (none: uniform over the available ones), `value(observation)` what a leaf is
    worth to the player who sees it; without one, the mean of `rollouts` random games of at most `depth` moves, or 0 if there are
    none. Choices that the environment does not make available are never visited. What follows a terminal step is worth 0. With
    two players (`spec.roles`) rewards must add up to 0, and each node maximises for the player to move.

    `act` draws a choice by visits^(1 / temperature) (0: the most visited); `exploration` mixes Dirichlet(`concentration`) noise
    into the prior at the root. Needs the extra `search`. Raises `BadInput` for other than discrete choices, more than two
    players, or environments that are stepped on the host.
    """

    environment: Environment
    prior: Any = None
    value: Any = None
    discount: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    temperature: Float[Array, ""] = eqx.field(converter=number, default=0.0)
    exploration: Float[Array, ""] = eqx.field(converter=number, default=0.0)
    concentration: Float[Array, ""] = eqx.field(converter=number, default=0.3)
    first_constant: Float[Array, ""] = eqx.field(converter=number, default=1.25)
    second_constant: Float[Array, ""] = eqx.field(converter=number, default=19652.0)
    simulations: int = eqx.field(static=True, default=64)
    rollouts: int = eqx.field(static=True, default=0)
    depth: int = eqx.field(static=True, default=50)
    fixed: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        spec = self.environment.spec
        require_imaginable(self.environment, "tree search")
        if not isinstance(spec.action, spaces.Discrete):
            raise BadInput(
                f"tree search needs listed choices, and these actions are {spaces.describe(spec.action)}: use CrossEntropy"
            )
        if len(spec.roles) > 2:
            raise BadInput(f"tree search plays games of one or two players, and this one has {len(spec.roles)}")
        if isinstance(self.simulations, bool) or not isinstance(self.simulations, int) or self.simulations < 1:
            raise BadInput(f"tree search needs at least one simulation per move, a whole number, and not {self.simulations!r}")

    def mode(self) -> Policy:
        """The most visited choice, without noise, with the same random numbers at every step."""
        return dataclasses.replace(self, temperature=jnp.zeros(()), exploration=jnp.zeros(()), fixed=True)

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[Int[Array, ""], PyTree]:
        """A choice by the visits at the root, for the player to move."""
        choose, search = jax.random.split(jax.random.key(0) if self.fixed else key)
        visits = self.search(observation, key=search).visits
        # Gumbel noise scaled by the temperature: a temperature of 0 takes the most visited without a special case.
        noise = self.temperature * jax.random.gumbel(choose, visits.shape)
        scores = jnp.where(visits > 0, jnp.log(jnp.maximum(visits, 1e-9)) + noise, -jnp.inf)
        return jnp.argmax(scores).astype(jnp.int32), memory

    def search(self, observation: PyTree, *, key: PRNGKeyArray) -> Search:
        """The whole tree grown from `observation`. Under `vmap` all searches run as one batch."""
        arrays, static = eqx.partition(self, eqx.is_array)
        batched = lambda arrays, observations, keys: eqx.combine(arrays, static)._searches(observations, keys)

        @jax.custom_batching.custom_vmap
        def one(arrays: PyTree, observation: PyTree, key: PRNGKeyArray) -> Search:
            found = batched(arrays, *jax.tree.map(lambda leaf: leaf[None], (observation, key)))
            return jax.tree.map(lambda leaf: leaf[0], found)

        @one.def_vmap
        def many(size: int, axes: list, arrays: PyTree, observation: PyTree, key: Any) -> tuple[Search, Any]:
            spread = lambda tree, flags: jax.tree.map(
                lambda leaf, on: leaf if on else jnp.broadcast_to(leaf, (size, *leaf.shape)), tree, flags
            )
            observations, keys = spread(observation, axes[1]), spread(key, axes[2])
            if any(jax.tree.leaves(axes[0])):  # several planners: each searches by itself
                alone = lambda a, o, k: jax.tree.map(lambda leaf: leaf[0], batched(a, *jax.tree.map(lambda x: x[None], (o, k))))
                found = jax.vmap(alone)(spread(arrays, axes[0]), observations, keys)
            else:
                found = batched(arrays, observations, keys)
            return found, jax.tree.map(lambda _: True, found)

        return one(arrays, observation, key)

    def _searches(self, observations: PyTree, keys: Key[Array, " batch"]) -> Search:
        mctx = _library()

        def begin(observation: PyTree, key: PRNGKeyArray) -> tuple[Array, Array, Node]:
            state = self.environment.at(observation)
            noise, leaf, after = jax.random.split(key, 3)
            logits, value = self._judge(state, observation, key=leaf)
            dirichlet = jax.random.dirichlet(noise, jnp.full(logits.shape, self.concentration))
            mixed = (1.0 - self.exploration) * jax.nn.softmax(logits) + self.exploration * dirichlet
            return (
                jnp.where(logits > IMPOSSIBLE / 2, jnp.log(mixed + 1e-30), IMPOSSIBLE),
                value,
                Node(state, jnp.zeros((), bool), after),
            )

        def expand(node: Node, action: Int[Array, ""]) -> tuple[tuple, Node]:
            step_key, leaf, after = jax.random.split(node.key, 3)
            mover, (state, step) = self._mover(node.state), self._play(node.state, action, step_key)
            over = node.over | jnp.any(step.terminal)
            logits, value = self._judge(state, self._seen(state, step.observation), key=leaf)
            reward = jnp.where(node.over, 0.0, step.reward[mover] if step.reward.ndim else step.reward)
            sign = jnp.where(self._mover(state) == mover, 1.0, -1.0)
            return (reward, jnp.where(over, 0.0, sign * self.discount), logits, jnp.where(over, 0.0, value)), Node(
                state, over, after
            )

        def recurrent(_: None, __: Any, action: Int[Array, " batch"], node: Node) -> tuple:
            output, node = jax.vmap(expand)(node, action)
            return mctx.RecurrentFnOutput(reward=output[0], discount=output[1], prior_logits=output[2], value=output[3]), node

        logits, value, root = jax.vmap(begin)(observations, keys)
        result = mctx.muzero_policy(
            None, jax.random.key(0), mctx.RootFnOutput(prior_logits=logits, value=value, embedding=root), recurrent,
            self.simulations, logits <= IMPOSSIBLE / 2, dirichlet_fraction=0.0, temperature=0.0,
            pb_c_init=self.first_constant, pb_c_base=self.second_constant,
        )  # fmt: skip
        summary = result.search_tree.summary()
        return Search(summary.visit_probs, summary.value, result.search_tree)

    def _mover(self, state: PyTree) -> Int[Array, ""]:
        return jnp.argmax(self.environment.turn(state))

    def _play(self, state: PyTree, action: Int[Array, ""], key: PRNGKeyArray) -> tuple[PyTree, Any]:
        players = len(self.environment.spec.roles)
        return self.environment.step(state, jnp.broadcast_to(action, (players,)) if players else action, key)

    def _judge(self, state: PyTree, seen: PyTree, *, key: PRNGKeyArray) -> tuple[Float[Array, " choice"], Float[Array, ""]]:
        """Prior logits and the value of a state, for the player to move."""
        available = self.environment.available(state)
        logits = jnp.zeros(spaces.size(self.environment.spec.action)) if self.prior is None else self.prior(seen)
        if available is not None:
            logits = jnp.where(available, logits, IMPOSSIBLE)
        if self.value is not None:
            return logits, self.value(seen)
        if self.rollouts == 0:
            return logits, jnp.zeros(())
        games = jax.vmap(lambda k: self._random_game(state, key=k))(jax.random.split(key, self.rollouts))
        return logits, jnp.mean(games)

    def _seen(self, state: PyTree, observation: PyTree) -> PyTree:
        """The view of the player to move."""
        return jax.tree.map(lambda leaf: leaf[self._mover(state)], observation) if self.environment.spec.roles else observation

    def _random_game(self, state: PyTree, *, key: PRNGKeyArray) -> Float[Array, ""]:
        """What random play to the end, or for `depth` moves, gives the player to move now."""
        player = self._mover(state)

        def move(carry: tuple, time: Array) -> tuple[tuple, None]:
            state, weight, total = carry
            choose, step_key = jax.random.split(jax.random.fold_in(key, time))
            available = self.environment.available(state)
            logits = jnp.zeros(spaces.size(self.environment.spec.action))
            action = jax.random.categorical(choose, logits if available is None else jnp.where(available, logits, IMPOSSIBLE))
            state, step = self._play(state, action.astype(jnp.int32), step_key)
            reward = step.reward[player] if step.reward.ndim else step.reward
            going = weight * self.discount * (1.0 - jnp.any(step.terminal).astype(jnp.float32))
            return (state, going, total + weight * reward), None

        (_, _, total), _ = jax.lax.scan(move, (state, jnp.ones(()), jnp.zeros(())), jnp.arange(self.depth))
        return total


def _library() -> Any:
    try:
        import mctx
    except ImportError as error:
        raise BadInput('tree search needs the library mctx: pip install "policylab[search]"') from error
    return mctx
