"""StreamedDataset: logged experience larger than memory, sampled on the host from memory-mapped columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from policylab.data.columns import flatten
from policylab.data.recording import Recording
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.fingerprints import fingerprint
from policylab.learner import Clock, Request, Steps
from policylab.source import Source
from policylab.sources.dataset import statistics_of


class Held:
    """Host columns that a program treats as one constant: compared by identity."""

    def __init__(self, recording: Recording):
        self.recording = recording
        self.ends = np.cumsum(recording.lengths)

    def draw(self, count: int, generator: np.random.Generator) -> dict[str, PyTree]:
        """The fields of a Window of `count` transitions, uniform over actions; only the rows that are drawn are read."""
        recording = self.recording
        index = np.sort(generator.integers(0, recording.steps, count))  # in order, so that pages are read once
        rows = index + np.searchsorted(self.ends, index, side="right")
        take = lambda tree, at: jax.tree.map(lambda leaf: np.asarray(leaf[at]), tree)
        reward = np.zeros(count, np.float32) if recording.reward is None else np.asarray(recording.reward[index], np.float32)
        return dict(  # noqa: C408  (names the fields as Window does)
            observation=take(recording.observation, rows), action=take(recording.action, index), reward=reward,
            next_observation=take(recording.observation, rows + 1), terminal=np.asarray(recording.terminal[index], bool),
            truncated=np.asarray(recording.truncated[index], bool), valid=np.ones(count, bool), duration=np.ones(count, np.int32),
        )  # fmt: skip


class StreamedDataset(Source):
    """Serves plain transitions. A batch is a function of the seed and the step number alone, so that resuming gives the same bits."""

    specification: Spec
    held: Held = eqx.field(static=True)
    needs: tuple[tuple[str, Request], ...] = eqx.field(static=True, default=())

    @staticmethod
    def of(recording: Recording) -> StreamedDataset:
        """A (memory-mapped) recording; its statistics are computed block by block."""
        from dataclasses import replace

        if recording.steps == 0:
            raise BadInput("the dataset has no steps: record at least one episode")
        return StreamedDataset(replace(recording.spec, statistics=statistics_of(recording)), Held(recording))

    @property
    def spec(self) -> Spec:
        """What the batches hold, with the statistics of these data."""
        return self.specification

    @property
    def rewarded(self) -> bool:
        """Whether rewards were logged."""
        return self.held.recording.reward is not None

    def fingerprint(self) -> str:
        """A hash of the columns on disk, of large ones by a sample of rows."""
        return fingerprint((flatten(self.held.recording), self.specification))

    @property
    def hosted(self) -> bool:
        """Batches are made on the host."""
        return True

    def serve(self, needs: Mapping[str, Request]) -> StreamedDataset:
        """This dataset, ready to answer `needs`: one-step transitions without extra fields."""
        for name, request in needs.items():
            if not isinstance(request, Steps) or request.n != 1 or request.best != 1.0 or request.fields or request.goals:
                raise BadInput(f"a streamed dataset serves plain transitions only, not {name!r}: use a Dataset in memory")
        return StreamedDataset(self.specification, self.held, tuple(needs.items()))

    def next(self, state: PyTree, products: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray) -> tuple[PyTree, Any]:
        """Not called: hosted sources make their batches in `host_batches`."""
        raise BadInput("a streamed dataset makes its batches on the host: train does this for you")

    def host_batches(self, steps: range, seeds: Sequence[int]) -> Any:
        """Batches of these steps, leaves [step, seed, batch, ...]."""

        def one(name: str, count: int, step: int, seed: int) -> dict[str, PyTree]:
            words = (seed, step, *name.encode())
            return self.held.draw(count, np.random.Generator(np.random.Philox(np.random.SeedSequence(words))))

        stacked = {
            name: _window([[one(name, request.count, step, seed) for seed in seeds] for step in steps])
            for name, request in self.needs
        }
        return next(iter(stacked.values())) if len(stacked) == 1 else stacked


def _window(fields: Sequence[Sequence[dict[str, PyTree]]]) -> Window:
    """One window of leaves [step, seed, batch, ...] from a table of windows' fields."""
    stack = lambda trees: jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
    return Window(**jax.tree.map(jnp.asarray, stack([stack(row) for row in fields])))
