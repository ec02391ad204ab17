"""What a joint process looks like from the seat of each of its players."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from policylab.environments.joint import GAINED, PLAYING
from policylab.errors import BadInput
from policylab.experience import Window


def seat(batch: Window, roles: tuple[str, ...], role: str) -> Window:
    """Transitions or windows of `Joint` as those of one role: its own part of observations and actions, its own reward, and its own
    log-probability (that of all together where there is but one). Its process ends (`terminal`) when it leaves the game; what comes
    after is not `valid`.

    Raises `BadInput` for extra fields that belong to nobody.
    """
    number = roles.index(role)
    before, after = batch.observation[PLAYING][..., number] > 0, batch.next_observation[PLAYING][..., number] > 0
    unknown = [name for name in batch.extra if name != "log_prob"]
    if unknown:
        raise BadInput(f"{unknown[0]!r} of a game belongs to no single player: use learners that do without it")
    return Window(
        observation=batch.observation[role],
        action=batch.action[role],
        reward=batch.next_observation[GAINED][..., number],
        next_observation=batch.next_observation[role],
        terminal=batch.terminal | (before & ~after),
        truncated=batch.truncated,
        valid=batch.valid & before,
        duration=batch.duration,
        extra={name: value[..., number] if value.ndim > batch.reward.ndim else value for name, value in batch.extra.items()},
    )


def players(batch: Window, roles: tuple[str, ...]) -> Window:
    """The seats of all roles, which are alike: leaves [player, ...]."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(seat(batch, roles, role) for role in roles))
