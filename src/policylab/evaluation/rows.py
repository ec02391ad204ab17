"""Rows: a recording as plain matrices, which everything on the dataset card is computed from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, PyTree, Shaped

from policylab import spaces
from policylab.data.recording import Recording

WIDEST = 256  # a Box with more entries (an image) is represented by random projections
PROJECTED = 64
_PIECE = 2**26


@dataclass(frozen=True)
class Column:
    """One column of a matrix: its name and, for a choice, among how many (0: a number)."""

    name: str
    choices: int = 0


@dataclass(frozen=True)
class Rows:
    """The looked-at steps. `observed` has one row more than steps in every episode, as in a Recording; a choice is one column.

    `row` and `number` are the places of each step and each episode in the recording that they came from. `projected` counts the
    entries of an observation that random projections stand for (0: none).
    """

    observed: Float[np.ndarray, "observation state"]
    action: Float[np.ndarray, "step action"]
    reward: Float[np.ndarray, " step"] | None
    terminal: Bool[np.ndarray, " step"]
    truncated: Bool[np.ndarray, " step"]
    lengths: Int[np.ndarray, " episode"]
    row: Int[np.ndarray, " step"]
    number: Int[np.ndarray, " episode"]
    state_columns: tuple[Column, ...]
    action_columns: tuple[Column, ...]
    total: int
    projected: int = 0

    @property
    def steps(self) -> int:
        """Number of looked-at steps."""
        return len(self.action)

    @property
    def episode(self) -> Int[np.ndarray, " step"]:
        """For every step the place of its episode in `lengths`."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def starts(self) -> Int[np.ndarray, " episode"]:
        """The first step of every episode."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def before(self) -> Int[np.ndarray, " step"]:
        """For every step the row of `observed` that it answered; add one for what followed."""
        return np.arange(self.steps) + self.episode

    @property
    def state(self) -> Float[np.ndarray, "step state"]:
        """The observation that each step answered."""
        return self.observed[self.before]

    @property
    def finite(self) -> bool:
        """Whether observations and actions are choices or whole numbers throughout, so that rows repeat by nature."""
        whole = all(
            column.choices > 0 or np.array_equal(values, np.rint(values))
            for column, values in zip(self.state_columns, self.observed.T)
        )
        return whole and all(column.choices > 0 for column in self.action_columns)

    @property
    def sequential(self) -> bool:
        """Whether steps follow one another (False for logged bandits, whose episodes have one step)."""
        return bool(self.lengths.max(initial=0) > 1)


def rows_of(recording: Recording, *, limit: int, seed: int) -> Rows:
    """The recording's rows: all of them, or whole episodes drawn at random until `limit` steps are reached."""
    total, number, starts = recording.steps, np.arange(recording.episodes), recording.starts
    if total > limit:
        order = np.random.default_rng(seed).permutation(recording.episodes)
        taken = np.searchsorted(np.cumsum(recording.lengths[order]), limit, side="right")
        number = np.sort(order[: max(1, taken)])
        recording = recording.select(number)
    lengths = np.asarray(recording.lengths, np.int64)
    row = np.repeat(starts[number] - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
    observed, state_columns, projected = _matrix(recording.observation, recording.spec.observation)
    action, action_columns, _ = _matrix(recording.action, recording.spec.action)
    reward = recording.reward
    if reward is not None:
        reward = np.asarray(reward, np.float64)
        reward = reward.reshape(len(reward), -1).sum(axis=1)
    return Rows(
        observed, action, reward, np.asarray(recording.terminal), np.asarray(recording.truncated), lengths, row, number,
        state_columns, action_columns, total, projected,
    )  # fmt: skip


@dataclass(frozen=True)
class Scaling:
    """A matrix in which Euclidean distance makes sense: numbers in standard deviations, constant columns left out, a choice as
    one-hot over sqrt(2), so that two different choices are at distance 1 (beyond 64 choices: random directions instead).

    A standard deviation is the distance of the 5% and 95% quantiles over 3.29 (its value for a normal distribution; spikes
    don't change it), or the ordinary one where these quantiles are equal.
    """

    columns: tuple[Column, ...]
    center: Float[np.ndarray, " column"]
    scale: Float[np.ndarray, " column"]

    @staticmethod
    def of(values: Float[np.ndarray, "row column"], columns: tuple[Column, ...]) -> Scaling:
        """The scaling for these rows; a constant column has scale 0."""
        values = values[sample(len(values), 100_000, 0)].astype(np.float64)
        low, center, high = np.quantile(values, (0.05, 0.5, 0.95), axis=0)
        scale = np.where(high > low, (high - low) / 3.29, values.std(axis=0))
        return Scaling(columns, center, np.where(scale > 1e-7 * np.abs(values).max(axis=0, initial=1e-30), scale, 0.0))

    def __call__(self, values: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row _"]:
        """The scaled matrix."""
        parts = []
        for values_of, column, center, scale in zip(values.T, self.columns, self.center, self.scale):
            if column.choices:
                parts.append(_corners(column.choices)[values_of.astype(np.int64)])
            elif scale > 0:
                parts.append((values_of[:, None].astype(np.float64) - center) / scale)
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(values), 0))


def sample(count: int, size: int, seed: int) -> Int[np.ndarray, " row"]:
    """At most `size` of `count` rows, drawn without replacement, in order."""
    if count <= size:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, size, replace=False))


def hashed(values: Shaped[np.ndarray, "row column"]) -> Shaped[np.ndarray, " row"]:
    """A 64-bit number per row, equal for equal rows and different for different ones but with probability around 2^-60."""
    if np.issubdtype(values.dtype, np.floating):
        values = (np.asarray(values, np.float32) + np.float32(0)).view(np.uint32)  # adding 0 makes -0 and 0 equal
    with np.errstate(over="ignore"):
        factors = np.random.default_rng(7).integers(1, 2**63, values.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        total = np.zeros(len(values), np.uint64)
        for column, factor in zip(values.T, factors):
            mixed = column.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            total += (mixed ^ (mixed >> np.uint64(29))) * factor
    return total


def _corners(choices: int) -> Float[np.ndarray, "choice _"]:
    if choices <= 64:
        return np.eye(choices) / np.sqrt(2)
    directions = np.random.default_rng(choices).standard_normal((choices, 32))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True) / np.sqrt(2)


def _matrix(tree: PyTree, space: spaces.Space) -> tuple[Float[np.ndarray, "row column"], tuple[Column, ...], int]:
    """All leaves side by side, the names of the columns, and how many entries were projected."""
    parts, columns, projected = [], [], 0
    for name, leaf, part in _leaves("", tree, space):
        if isinstance(part, spaces.Discrete):
            parts.append(np.asarray(leaf).reshape(-1, 1).astype(np.float32))
            columns.append(Column(name, part.n))
        elif spaces.size(part) > WIDEST:
            parts.append(_projected(leaf))
            columns += [Column(f"{name}~{i}") for i in range(PROJECTED)]
            projected += spaces.size(part)
        else:
            parts.append(np.asarray(leaf).reshape(len(leaf), -1).astype(np.float32))
            columns += [Column(name if spaces.size(part) == 1 else f"{name}[{i}]") for i in range(spaces.size(part))]
    return np.concatenate(parts, axis=1), tuple(columns), projected


def _leaves(label: str, tree: PyTree, space: spaces.Space) -> Iterator[tuple[str, np.ndarray, spaces.Space]]:
    if not isinstance(space, spaces.Composite):
        yield label, tree, space
        return
    for name, part in space.parts:
        yield from _leaves(f"{label}/{name}" if label else name, tree[name], part)


def _projected(leaf: np.ndarray) -> Float[np.ndarray, "row _"]:
    """Random projections keep distances within some 20% (Johnson & Lindenstrauss 1984); done in pieces."""
    width = int(np.prod(leaf.shape[1:]))
    directions = np.random.default_rng(width).standard_normal((width, PROJECTED)).astype(np.float32) / np.float32(
        np.sqrt(width)
    )
    out = np.empty((len(leaf), PROJECTED), np.float32)
    size = max(1, _PIECE // (4 * width))
    for start in range(0, len(leaf), size):
        out[start : start + size] = np.asarray(leaf[start : start + size], np.float32).reshape(-1, width) @ directions
    return out
