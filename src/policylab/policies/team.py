"""Policies of all players of a game, acting together."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.policy import Policy

Memories = dict[str, PyTree]


class Team(Policy):
    """One policy for each of `roles`, which acts on its own part of a joint observation (those of `Joint`); the action is a dict by role."""

    members: dict[str, Policy]
    roles: tuple[str, ...] = eqx.field(static=True)

    def initial_memory(self, *, key: PRNGKeyArray) -> Memories:
        """Each one's own."""
        keys = jax.random.split(key, len(self.roles))
        return {role: self.members[role].initial_memory(key=k) for role, k in zip(self.roles, keys, strict=True)}

    def act(self, observation: dict[str, PyTree], memory: Memories, *, key: PRNGKeyArray) -> tuple[dict[str, PyTree], Memories]:
        """Everybody's action."""
        keys = zip(self.roles, jax.random.split(key, len(self.roles)), strict=True)
        done = {role: self.members[role].act(observation[role], memory[role], key=k) for role, k in keys}
        return {role: done[role][0] for role in self.roles}, {role: done[role][1] for role in self.roles}

    def sample(
        self, observation: dict[str, PyTree], memory: Memories, *, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], Float[Array, " player"], Memories]:
        """Everybody's action, and the log-probability of each in the order of the roles."""
        keys = zip(self.roles, jax.random.split(key, len(self.roles)), strict=True)
        done = {role: self.members[role].sample(observation[role], memory[role], key=k) for role, k in keys}
        log_prob = jnp.stack([done[role][1] for role in self.roles])
        return {role: done[role][0] for role in self.roles}, log_prob, {role: done[role][2] for role in self.roles}

    def mode(self) -> Policy:
        """Everybody's mode."""
        return Team({role: member.mode() for role, member in self.members.items()}, self.roles)


class Alike(Policy):
    """`roles` whose policies have one form: `players` holds them all, arrays with a leading player axis, and they act in one program.
    With `numbered`, `players` is a single policy for all, which sees {"observation": ..., "player": number}."""

    players: Policy
    roles: tuple[str, ...] = eqx.field(static=True)
    numbered: bool = eqx.field(static=True, default=False)

    def _over(self, method: str, observation: dict[str, PyTree], memory: PyTree, key: PRNGKeyArray) -> tuple:
        joint = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(observation[role] for role in self.roles))
        if self.numbered:
            joint = {"observation": joint, "player": jnp.arange(len(self.roles))}
        keys = jax.random.split(key, len(self.roles))
        one = lambda policy, seen, memory, k: getattr(policy, method)(seen, memory, key=k)
        return jax.vmap(one, in_axes=(None if self.numbered else 0, 0, 0, 0))(self.players, joint, memory, keys)

    def _apart(self, joint: PyTree) -> dict[str, PyTree]:
        return {role: jax.tree.map(lambda leaf, i=i: leaf[i], joint) for i, role in enumerate(self.roles)}

    def initial_memory(self, *, key: PRNGKeyArray) -> PyTree:
        """Leaves [player, ...]."""
        keys = jax.random.split(key, len(self.roles))
        begin = lambda policy, k: policy.initial_memory(key=k)
        return jax.vmap(begin, in_axes=(None if self.numbered else 0, 0))(self.players, keys)

    def act(self, observation: dict[str, PyTree], memory: PyTree, *, key: PRNGKeyArray) -> tuple[dict[str, PyTree], PyTree]:
        """Everybody's action, a dict by role."""
        action, memory = self._over("act", observation, memory, key)
        return self._apart(action), memory

    def sample(
        self, observation: dict[str, PyTree], memory: PyTree, *, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], Float[Array, " player"], PyTree]:
        """Everybody's action and the log-probability of each."""
        action, log_prob, memory = self._over("sample", observation, memory, key)
        return self._apart(action), log_prob, memory

    def mode(self) -> Policy:
        """Everybody's mode."""
        players = self.players.mode() if self.numbered else jax.vmap(lambda player: player.mode())(self.players)
        return Alike(players, self.roles, self.numbered)
