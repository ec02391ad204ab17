"""Is a recording sound? The first thing that is wrong, as one sentence with its row, its value and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import PyTree

from policylab import spaces
from policylab.data.recording import Recording
from policylab.errors import BadInput

_PIECE = 2**26
_SLACK = 1e-4  # bounds are float32 and logs were rounded: this share of the range (or of 1) is no error


def validate(recording: Recording) -> Recording:
    """The recording itself if it is sound.

    Raises `BadInput` at the first of: no episodes, columns of wrong length, shape or dtype, an empty episode, a terminal or
    truncated step before an episode's end, an end that is neither, NaN or infinity, a choice outside its space, an action
    outside its bounds, a propensity outside (0, 1], a group that changes within an episode. Missing rewards and propensities
    are no error. Large columns are read in pieces.
    """
    name = recording.name or "the data"
    _check_episodes(recording, name)
    _check_columns(recording, name)
    _check_values("observation", recording.observation, recording.spec.observation, recording, name)
    _check_values("action", recording.action, recording.spec.action, recording, name)
    if recording.reward is not None:
        _check_finite("reward", recording.reward, recording, name, "leave the reward out if it was not logged, or mend the row")
    for column, values in recording.extra.items():
        if np.issubdtype(values.dtype, np.floating) and column in ("propensity", "context", "weight"):
            _check_finite(column, values, recording, name, "mend the row or leave the column out")
    _check_propensity(recording, name)
    _check_group(recording, name)
    return recording


def _check_episodes(recording: Recording, name: str) -> None:
    lengths = np.asarray(recording.lengths)
    if len(lengths) == 0:
        raise BadInput(f"{name} has no episodes: give at least one episode of one step")
    if (lengths <= 0).any():
        raise BadInput(f"{name}: episode {int(np.argmax(lengths <= 0))} has no steps: leave empty episodes out")
    for flag in ("terminal", "truncated"):
        values = getattr(recording, flag)
        if values.dtype != bool or values.shape != (recording.steps,):
            raise BadInput(
                f"{name}: {flag} is {values.dtype}{list(values.shape)}: give one True or False for each of the "
                f"{recording.steps} steps"
            )
    ended = np.asarray(recording.terminal) | np.asarray(recording.truncated)
    last = recording.starts + lengths - 1
    early = ended.copy()
    early[last] = False
    if early.any():
        row = int(np.argmax(early))
        kind = "terminal" if recording.terminal[row] else "truncated"
        raise BadInput(
            f"{name}: {_place(row, recording)} is {kind}, but its episode goes on: start a new episode after it or "
            f"clear the flag"
        )
    if not ended[last].all():
        episode = int(np.argmin(ended[last]))
        raise BadInput(
            f"{name}: episode {episode} ends at row {int(last[episode])} neither terminal nor truncated: mark what cut it"
        )


def _check_columns(recording: Recording, name: str) -> None:
    for field, tree, space, rows in (
        ("observation", recording.observation, recording.spec.observation, recording.steps + recording.episodes),
        ("action", recording.action, recording.spec.action, recording.steps),
    ):
        for label, leaf, part in _leaves(field, tree, space, name):
            shape = part.shape if isinstance(part, spaces.Box) else ()
            if leaf.shape != (rows, *shape):
                counting = "one row more than steps in every episode" if field == "observation" else "one row per step"
                raise BadInput(
                    f"{name}: {label} has shape {list(leaf.shape)} but {spaces.describe(part)} needs "
                    f"{[rows, *shape]}: give {counting}"
                )
            if not (np.issubdtype(leaf.dtype, np.number) or leaf.dtype == bool):
                raise BadInput(f"{name}: {label} is of type {leaf.dtype}: give numbers (encode words as choices first)")
            if isinstance(part, spaces.Discrete) and not np.issubdtype(leaf.dtype, np.integer):
                raise BadInput(f"{name}: {label} is of type {leaf.dtype} but {spaces.describe(part)} needs whole numbers")
    columns = dict(recording.extra) if recording.reward is None else {"reward": recording.reward, **recording.extra}
    for label, values in columns.items():
        if len(values) != recording.steps:
            raise BadInput(f"{name}: {label} has {len(values)} rows for {recording.steps} steps: give one row per step")
    if recording.reward is not None and recording.reward.shape[1:] != tuple(recording.spec.reward_shape):
        raise BadInput(
            f"{name}: reward rows have shape {list(recording.reward.shape[1:])} but the spec says "
            f"{list(recording.spec.reward_shape)}: make them agree"
        )


def _check_values(field: str, tree: PyTree, space: spaces.Space, recording: Recording, name: str) -> None:
    for label, leaf, part in _leaves(field, tree, space, name):
        if np.issubdtype(leaf.dtype, np.floating):
            _check_finite(label, leaf, recording, name, "mend or leave out that episode", observed=field == "observation")
        for start, rows in _pieces(leaf):
            if isinstance(part, spaces.Discrete):
                wrong = (rows < 0) | (rows >= part.n)
                if wrong.any():
                    row = int(np.argmax(wrong))
                    raise BadInput(
                        f"{name}: {label} at {_place(start + row, recording, field == 'observation')} is "
                        f"{rows[row]}, outside 0 to {part.n - 1}: number the choices from 0 or declare more of them"
                    )
            elif isinstance(part, spaces.Box) and field == "action":
                _check_bounds(label, rows, part, start, recording, name)


def _check_bounds(label: str, rows: np.ndarray, space: spaces.Box, start: int, recording: Recording, name: str) -> None:
    low, high = space.bounds()
    with np.errstate(invalid="ignore"):
        slack = _SLACK * np.where(np.isfinite(high - low), high - low, 1.0)
    wrong = (rows < low - slack) | (rows > high + slack)
    if not wrong.any():
        return
    row, *entry = (int(i) for i in np.argwhere(wrong)[0])
    at = tuple(entry)
    raise BadInput(
        f"{name}: {label}{list(at) if at else ''} at {_place(start + row, recording)} is {rows[(row, *at)]:g}, "
        f"outside [{low[at]:g}, {high[at]:g}]: rescale the actions or declare the space that they were taken in"
    )


def _check_finite(label: str, values: np.ndarray, recording: Recording, name: str, mend: str, observed: bool = False) -> None:
    for start, rows in _pieces(values):
        if np.isfinite(rows.sum(dtype=np.float64)) and np.isfinite(rows).all():
            continue
        row, *entry = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        place = _place(start + row, recording, observed)
        raise BadInput(f"{name}: {label}{entry or ''} at {place} is {rows[(row, *entry)]}: {mend}")


def _check_propensity(recording: Recording, name: str) -> None:
    if "propensity" not in recording.extra:
        return
    values = np.asarray(recording.extra["propensity"])
    wrong = ~((values > 0) & (values <= 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise BadInput(
            f"{name}: propensity at {_place(row, recording)} is {values[row]:g}, outside (0, 1]: give the probability "
            "with which the logging policy chose the logged action, or leave the column out"
        )


def _check_group(recording: Recording, name: str) -> None:
    if "group" not in recording.extra:
        return
    group, episode = np.asarray(recording.extra["group"]), recording.episode_of
    changed = (group[1:] != group[:-1]) & (episode[1:] == episode[:-1])
    if changed.any():
        row = int(np.argmax(changed)) + 1
        raise BadInput(
            f"{name}: group changes from {group[row - 1]} to {group[row]} at {_place(row, recording)}: an episode "
            "belongs to one group; split the episode or choose a coarser group"
        )


def _leaves(label: str, tree: PyTree, space: spaces.Space, name: str) -> Iterator[tuple[str, np.ndarray, spaces.Space]]:
    """The columns of a (possibly nested) field with their names and spaces."""
    if not isinstance(space, spaces.Composite):
        if isinstance(tree, dict):
            raise BadInput(
                f"{name}: {label} has parts {sorted(tree)} but the spec says {spaces.describe(space)}: make them agree"
            )
        yield label, tree, space
        return
    names = {part for part, _ in space.parts}
    if not isinstance(tree, dict) or set(tree) != names:
        found = sorted(tree) if isinstance(tree, dict) else "one column"
        raise BadInput(f"{name}: {label} has {found} but the spec names the parts {sorted(names)}: make them agree")
    for part, inner in space.parts:
        yield from _leaves(f"{label}/{part}", tree[part], inner, name)


def _pieces(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    rows = max(1, _PIECE // max(1, values[:1].nbytes))
    for start in range(0, len(values), rows):
        yield start, np.asarray(values[start : start + rows])


def _place(row: int, recording: Recording, observed: bool = False) -> str:
    """A row of steps (or, if `observed`, of observations, of which every episode has one more) in words."""
    firsts = recording.starts + (np.arange(recording.episodes) if observed else 0)
    episode = int(np.searchsorted(firsts, row, side="right")) - 1
    step = row - int(firsts[episode])
    if step == recording.lengths[episode]:
        return f"the end of episode {episode}, after row {int(recording.starts[episode]) + step - 1},"
    return f"row {int(recording.starts[episode]) + step} (episode {episode}, step {step})"
