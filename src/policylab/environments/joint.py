"""A game of several players as one process, which sources and rollouts of one player can play."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.environment import Environment, Step
from policylab.errors import BadInput
from policylab.experience import Spec

PLAYING, GAINED = "playing", "gained"


class Table(eqx.Module):
    """The game, and who still plays."""

    game: PyTree[Array]
    playing: Bool[Array, " player"]


class Joint(Environment):
    """`game` (alike players who move at once, a leading player axis) as the process of all its players together: what is observed and done
    is a dict by role, the reward the sum of the players' rewards. The observation has two parts more, both [player] in the order of the
    roles: `gained`, each one's own reward in the step that led here, and `playing`, 1 for who is in the game, 0 for who has left it, whose
    actions count no more and who gets no reward. A player leaves when its own `terminal` or `truncated` is set. The episode ends when
    nobody plays: `truncated` if all who were left went by the clock at the same time (then their `playing` stays 1, as for a `TimeLimit`
    around this), else `terminal`.

    Raises `BadInput` for games of one player.
    """

    game: Environment

    def __check_init__(self) -> None:
        roles = self.game.spec.roles
        if len(roles) < 2 or {PLAYING, GAINED} & set(roles):
            raise BadInput(
                f"Joint puts the players of a game together, but this one has the roles {roles}: it takes two or more"
            )

    @property
    def roles(self) -> tuple[str, ...]:
        """The players' names."""
        return self.game.spec.roles

    @property
    def spec(self) -> Spec:
        """A dict of the game's observations and actions by role, who plays, and who gained what."""
        own = self.game.spec
        count = len(own.roles)
        seats = ((PLAYING, spaces.Box((count,), 0.0, 1.0)), (GAINED, spaces.Box((count,))))
        observation = spaces.Composite((*((role, own.observation) for role in own.roles), *seats))
        action = spaces.Composite(tuple((role, own.action) for role in own.roles))
        return dataclasses.replace(own, observation=observation, action=action, roles=(), statistics={})

    @property
    def hosted(self) -> bool:
        """As the game."""
        return self.game.hosted

    @property
    def restorable(self) -> bool:
        """As the game."""
        return self.game.restorable

    def _shown(
        self, observation: PyTree, playing: Bool[Array, " player"], gained: Float[Array, " player"]
    ) -> dict[str, PyTree]:
        return {**apart(observation, self.roles), PLAYING: playing.astype(jnp.float32), GAINED: gained}

    def reset(self, key: PRNGKeyArray) -> tuple[Table, dict[str, PyTree]]:
        """A fresh game with everybody in it."""
        game, observation = self.game.reset(key)
        playing = jnp.ones(len(self.roles), bool)
        return Table(game, playing), self._shown(observation, playing, jnp.zeros(len(self.roles)))

    def step(self, state: Table, action: dict[str, PyTree], key: PRNGKeyArray) -> tuple[Table, Step]:
        """All move at once; what the game says of those who have left is not heard."""
        game, step = self.game.step(state.game, together(action, self.roles), key)
        late = state.playing & step.truncated & ~step.terminal
        gone = state.playing & (step.terminal | step.truncated)
        nobody = ~jnp.any(state.playing & ~gone)
        by_clock = nobody & jnp.all(late == state.playing)
        playing = jnp.where(by_clock, state.playing, state.playing & ~gone)
        reward = jnp.where(state.playing, step.reward, 0.0)
        shown = self._shown(step.observation, playing, reward.astype(jnp.float32))
        return Table(game, playing), Step(shown, jnp.sum(reward), nobody & ~by_clock, by_clock, info=step.info)

    def renew(
        self, state: Table, observation: PyTree, ended: Bool[Array, ""], key: PRNGKeyArray
    ) -> tuple[Table, dict[str, PyTree]]:
        """A fresh game where `ended`."""
        game, seen = self.game.renew(state.game, together(observation, self.roles), ended, key)
        playing = state.playing | ended
        return Table(game, playing), self._shown(seen, playing, jnp.where(ended, 0.0, observation[GAINED]))


def together(by_role: dict[str, PyTree], roles: tuple[str, ...]) -> PyTree:
    """The entries of these roles with a leading player axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(by_role[role] for role in roles))


def apart(joint: PyTree, roles: tuple[str, ...]) -> dict[str, PyTree]:
    """Each role's row of the leading player axis."""
    return {role: jax.tree.map(lambda leaf, i=i: leaf[i], joint) for i, role in enumerate(roles)}


def one_player(spec: Spec) -> Spec:
    """The spec of each player of a joint spec. Raises `BadInput` for other specs, and for players that are not alike."""
    roles = joint_roles(spec)
    first = role_spec(spec, roles[0])
    for role in roles[1:]:
        role_spec(spec, role).require(first, ours=f"the player {role}", theirs=f"the player {roles[0]}")
    return first


def joint_roles(spec: Spec) -> tuple[str, ...]:
    """The roles of a joint spec. Raises `BadInput` for other specs."""
    names = tuple(name for name, _ in spec.observation.parts) if isinstance(spec.observation, spaces.Composite) else ()
    if not {PLAYING, GAINED} <= set(names):
        raise BadInput("this learner plays for several players: give it lab.Rollout(lab.Joint(game)), not one player's process")
    return tuple(name for name in names if name not in (PLAYING, GAINED))


def role_spec(spec: Spec, role: str) -> Spec:
    """One player's spec of a joint spec."""
    assert isinstance(spec.observation, spaces.Composite)
    assert isinstance(spec.action, spaces.Composite)
    observation, action = dict(spec.observation.parts)[role], dict(spec.action.parts)[role]
    return dataclasses.replace(spec, observation=observation, action=action, reward_shape=(), roles=(), statistics={})
