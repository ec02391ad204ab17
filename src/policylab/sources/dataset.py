"""Dataset: logged experience on the device, sampled uniformly inside the compiled loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.data.recording import Recording
from policylab.errors import BadInput
from policylab.experience import Spec, Statistics, Window
from policylab.learner import Clock, Everything, Request, Steps, Windows
from policylab.source import Source
from policylab.sources.goals import goal_of, goal_rows, last_step, require_goals, with_goals


class Dataset(Source):
    """Rows of consecutive episodes, T + 1 rows for an episode of T actions, padded to a power of two so that datasets of similar
    size share one compiled program. `count` actions are valid; `row_of` gives the row of each, `ranked` the same rows with those of
    the episodes with the highest returns first.
    """

    observation: PyTree[Array]
    action: PyTree[Array]
    reward: Float[Array, " row"]
    terminal: Bool[Array, " row"]
    truncated: Bool[Array, " row"]
    first: Int[Array, " row"]
    last: Int[Array, " row"]
    extra: dict[str, PyTree[Array]]
    row_of: Int[Array, " capacity"]
    ranked: Int[Array, " capacity"]
    count: Int[Array, ""]
    specification: Spec
    logged_reward: bool = eqx.field(static=True)
    needs: tuple[tuple[str, Request], ...] = eqx.field(static=True, default=())

    @property
    def spec(self) -> Spec:
        """What the batches hold, with the statistics of these data."""
        return self.specification

    @property
    def rewarded(self) -> bool:
        """Whether rewards were logged."""
        return self.logged_reward

    @property
    def fields(self) -> tuple[str, ...]:
        """The extra fields that a request may name."""
        return (*self.extra, "row", "next_action")

    def serve(self, needs: Mapping[str, Request]) -> Dataset:
        """This dataset, ready to answer `needs`."""
        for name, request in needs.items():
            if not isinstance(request, Steps | Windows | Everything):
                raise BadInput(
                    f"a dataset cannot answer {type(request).__name__} (asked for as {name!r}): use a source that makes them"
                )
            missing = [field for field in request.fields if field not in self.fields]
            if missing:
                raise BadInput(
                    f"the data have no column {missing[0]!r}, which {name!r} needs: add it or choose another learner"
                )
            require_goals(request, self.spec, name=name)
        return replace(self, needs=tuple(needs.items()))

    def next(self, state: PyTree, products: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray) -> tuple[PyTree, Any]:
        """One batch per request, uniform over actions with replacement; `Everything` is the data themselves."""
        keys = jax.random.split(key, len(self.needs))
        batches = {name: self._draw(request, k) for (name, request), k in zip(self.needs, keys, strict=True)}
        return state, batches[self.needs[0][0]] if len(batches) == 1 else batches

    def _draw(self, request: Request, key: PRNGKeyArray) -> Window:
        if isinstance(request, Everything):
            return self.everything(request)
        best = request.best if isinstance(request, Steps) else 1.0
        end = self.count if best == 1.0 else jnp.ceil(best * self.count).astype(jnp.int32)
        index = jax.random.randint(key, (request.count,), 0, end)
        rows = self.row_of[index] if best == 1.0 else self.ranked[index]
        assert isinstance(request, Steps | Windows)
        batch = self.window(rows, request) if isinstance(request, Windows) else self.transitions(rows, request)
        if request.goals is None:
            return batch
        goal_key, random_key = jax.random.split(jax.random.fold_in(key, 1))
        anywhere = self.row_of[jax.random.randint(random_key, rows.shape, 0, self.count)]
        last = self.last[rows]
        found = goal_rows(request.goals, last_step(request, rows, last), last + 1, anywhere, key=goal_key)
        return with_goals(batch, request, rows, found, goal_of(request.goals, _take(self.observation, found)))

    def everything(self, request: Everything) -> Window:
        """Every row, without copying: `valid` is False at the last observation of an episode, on padding and at weight 0."""
        rows = jnp.arange(self.last.shape[0])
        extra = self._extra(request, rows)
        valid = rows <= self.last
        return Window(
            observation=self.observation,
            action=self.action,
            reward=self.reward,
            next_observation=jax.tree.map(lambda leaf: jnp.roll(leaf, -1, axis=0), self.observation),
            terminal=self.terminal,
            truncated=self.truncated,
            valid=valid & (extra["weight"] > 0) if "weight" in extra else valid,
            duration=jnp.ones(rows.shape, rows.dtype),
            extra=extra,
        )

    def transitions(self, rows: Int[Array, " batch"], request: Steps) -> Window:
        """The transitions (or n-step returns) that start at these rows."""
        if request.n == 1:
            reward, end, duration = self.reward[rows], rows, jnp.ones_like(rows)
        else:
            offsets = jnp.arange(request.n)
            alive = rows[:, None] + offsets <= self.last[rows][:, None]
            steps = jnp.minimum(rows[:, None] + offsets, self.last[rows][:, None])
            reward = jnp.sum(jnp.where(alive, self.reward[steps] * request.discount**offsets, 0.0), axis=1)
            end, duration = steps[:, -1], jnp.sum(alive, axis=1).astype(rows.dtype)
        return Window(
            observation=_take(self.observation, rows),
            action=_take(self.action, rows),
            reward=reward,
            next_observation=_take(self.observation, end + 1),
            terminal=self.terminal[end],
            truncated=self.truncated[end],
            valid=jnp.ones(rows.shape, bool),
            duration=duration,
            extra=self._extra(request, rows),
        )

    def window(self, rows: Int[Array, " batch"], request: Windows) -> Window:
        """Windows around these rows, padded (`valid` False) where they leave the episode."""
        wanted = rows[:, None] + jnp.arange(-request.past, request.future)
        first, last = self.first[rows][:, None], self.last[rows][:, None]
        steps = jnp.clip(wanted, first, last)
        return Window(
            observation=_take(self.observation, steps),
            action=_take(self.action, steps),
            reward=self.reward[steps],
            next_observation=_take(self.observation, steps + 1),
            terminal=self.terminal[steps],
            truncated=self.truncated[steps],
            valid=(wanted >= first) & (wanted <= last),
            duration=jnp.ones(steps.shape, steps.dtype),
            extra=self._extra(request, steps),
        )

    def _extra(self, request: Request, rows: Int[Array, "..."]) -> dict[str, PyTree[Array]]:
        chosen = {name: _take(self.extra[name], rows) for name in request.fields if name not in ("row", "next_action")}
        if "row" in request.fields:
            chosen["row"] = rows
        if "next_action" in request.fields:  # at the end of an episode, where it has no meaning, the last action again
            chosen["next_action"] = _take(self.action, jnp.minimum(rows + 1, self.last[rows]))
        if "weight" in self.extra and "weight" not in chosen:
            chosen["weight"] = self.extra["weight"][rows]
        return chosen

    @staticmethod
    def of(recording: Recording, *, weight: np.ndarray | None = None) -> Dataset:
        """A recording on the device. `weight` (one per action) sets the share of each action in losses; 0 leaves it out."""
        if recording.steps == 0:
            raise BadInput(f"the dataset {recording.name or ''} has no steps: record at least one episode".replace("  ", " "))
        total = recording.steps + recording.episodes
        capacity = 1 << max(total - 1, 1).bit_length()
        action_rows = recording.observation_rows

        def by_row(column: np.ndarray, dtype: Any = None) -> Array:
            padded = np.zeros((capacity, *column.shape[1:]), dtype or _device_dtype(column.dtype))
            padded[action_rows] = column
            return jnp.asarray(padded)

        def pad(column: np.ndarray) -> Array:
            padded = np.zeros((capacity, *column.shape[1:]), _device_dtype(column.dtype))
            padded[:total] = column
            return jnp.asarray(padded)

        first = recording.starts + np.arange(recording.episodes)
        last = first + recording.lengths - 1
        spread = recording.lengths + 1
        extra = {name: jax.tree.map(by_row, column) for name, column in recording.extra.items() if _is_numeric(column)}
        if recording.reward is not None:
            extra["return_to_go"] = by_row(returns_to_go(recording), np.float32)
        if weight is not None:
            extra["weight"] = by_row(np.asarray(weight, np.float32))
        row_of, ranked = np.zeros(capacity, np.int32), np.zeros(capacity, np.int32)
        row_of[: recording.steps] = action_rows
        order = np.arange(recording.steps)
        if recording.reward is not None and recording.reward.ndim == 1:
            order = np.argsort(-np.repeat(recording.returns, recording.lengths), kind="stable")
        ranked[: recording.steps] = action_rows[order]
        reward = np.zeros(recording.steps, np.float32) if recording.reward is None else recording.reward
        return Dataset(
            observation=jax.tree.map(pad, recording.observation),
            action=jax.tree.map(by_row, recording.action),
            reward=by_row(np.asarray(reward), np.float32),
            terminal=by_row(np.asarray(recording.terminal, bool)),
            truncated=by_row(np.asarray(recording.truncated, bool)),
            first=pad(np.repeat(first, spread).astype(np.int32)),
            last=pad(np.repeat(last, spread).astype(np.int32)),
            extra=extra,
            row_of=jnp.asarray(row_of),
            ranked=jnp.asarray(ranked),
            count=jnp.asarray(recording.steps, jnp.int32),
            specification=replace(recording.spec, statistics=statistics_of(recording)),
            logged_reward=recording.reward is not None,
        )


def _take(tree: PyTree, rows: Int[Array, "..."]) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def _device_dtype(dtype: np.dtype) -> Any:
    if np.issubdtype(dtype, np.floating):
        return np.float32
    return np.int32 if dtype == np.int64 else dtype


def _is_numeric(column: PyTree) -> bool:
    return all(np.issubdtype(leaf.dtype, np.number) or leaf.dtype == bool for leaf in jax.tree.leaves(column))


def returns_to_go(recording: Recording) -> np.ndarray:
    """Undiscounted sum of this reward and all later ones of the episode, one per action."""
    reward = np.asarray(recording.reward, np.float64)
    before = np.concatenate([[0.0], np.cumsum(reward)])
    ends = np.repeat(recording.starts + recording.lengths, recording.lengths)
    return before[ends] - before[:-1]


def statistics_of(recording: Recording, *, block: int = 65_536) -> dict[str, Statistics]:
    """Mean, standard deviation and range of observation, action and reward, computed in float64 block by block."""
    spec = recording.spec
    columns = {"observation": (spec.observation, recording.observation), "action": (spec.action, recording.action)}
    if recording.reward is not None:
        columns["reward"] = (spaces.Box(np.shape(recording.reward)[1:]), recording.reward)
    return {name: _statistics(space, column, block) for name, (space, column) in columns.items()}


def _statistics(space: spaces.Space, column: PyTree, block: int) -> Statistics:
    if isinstance(space, spaces.Discrete):
        share = np.bincount(np.asarray(column).reshape(-1), minlength=space.n) / max(np.size(column), 1)
        return _as_statistics(share, np.sqrt(share * (1 - share)), np.zeros(space.n), np.ones(space.n))
    if isinstance(space, spaces.Composite):
        parts = [_statistics(part, column[name], block) for name, part in space.parts]
        return Statistics(*(jnp.concatenate([getattr(p, f) for p in parts]) for f in ("mean", "std", "low", "high")))
    rows = len(column)
    pieces = [np.asarray(column[i : i + block], np.float64).reshape(min(block, rows - i), -1) for i in range(0, rows, block)]
    mean = sum(p.sum(0) for p in pieces) / rows
    variance = sum(((p - mean) ** 2).sum(0) for p in pieces) / rows
    return _as_statistics(mean, np.sqrt(variance), np.min([p.min(0) for p in pieces], 0), np.max([p.max(0) for p in pieces], 0))


def _as_statistics(*columns: np.ndarray) -> Statistics:
    return Statistics(*(jnp.asarray(column, jnp.float32) for column in columns))
