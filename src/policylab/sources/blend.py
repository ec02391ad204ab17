"""Blend: every batch is drawn from several sources at once, in fixed shares: offline and online, old and new, this robot and that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.fingerprints import fingerprint
from policylab.learner import Clock, Each, Everything, Request
from policylab.source import Source


class Blend(Source):
    """`Blend((dataset, Replay(environment)))` gives batches of which each half is drawn from one of the two, in that order.

    `shares`, one per source and in any proportion, say how much of every batch each gives (all the same if left out); counts are
    rounded so that they add up to what was asked for. What the learner reports of the rows of a batch is passed on to the source that
    gave them. The spec, with its statistics, is that of the first source. An extra field that only some sources give is 0 in the rows of
    the others, `weight` 1; of a field that a learner asks for, `absent` has to say so: `Blend(..., absent=("before_takeover",))`
    asks only those sources for it that have it.
    """

    sources: tuple[Source, ...]
    shares: tuple[float, ...] = eqx.field(static=True, default=())
    absent: tuple[str, ...] = eqx.field(static=True, default=())
    needs: tuple[tuple[str, Request], ...] = eqx.field(static=True, default=())

    def __check_init__(self) -> None:
        if len(self.sources) < 2:
            raise BadInput(f"a blend of {len(self.sources)} sources is none: give at least two, as in Blend((dataset, replay))")
        if self.shares and (len(self.shares) != len(self.sources) or min(self.shares) <= 0):
            raise BadInput(f"the shares {self.shares} do not fit {len(self.sources)} sources: give each a number above 0")
        for source in self.sources:
            if source.hosted:
                raise BadInput(f"{type(source).__name__} makes its batches on the host and cannot be blended: use a Dataset")
            self.sources[0].spec.require(source.spec, ours="the first source of a blend", theirs=type(source).__name__)

    @property
    def spec(self) -> Spec:
        """The first source's."""
        return self.sources[0].spec

    @property
    def rewarded(self) -> bool:
        """Whether all sources have rewards."""
        return all(source.rewarded for source in self.sources)

    @property
    def restorable(self) -> bool:
        """Whether all sources are."""
        return all(source.restorable for source in self.sources)

    def fingerprint(self) -> str:
        """Of the sources' and the shares."""
        words = repr(([source.fingerprint() for source in self.sources], self.shares)).encode()
        return fingerprint(np.frombuffer(words, np.uint8))

    def counts(self, request: Request) -> tuple[int, ...]:
        """How many rows each source gives; raises `BadInput` where one would give none."""
        shares = np.asarray(self.shares or (1.0,) * len(self.sources))
        exact = request.count * shares / shares.sum()
        counts = np.floor(exact).astype(int)
        counts[np.argsort(counts - exact, kind="stable")[: request.count - counts.sum()]] += 1
        if counts.min() < 1:
            raise BadInput(
                f"a batch of {request.count} in shares of {tuple(shares.tolist())} leaves a source without a row: raise batch_size"
            )
        return tuple(counts.tolist())

    def serve(self, needs: Mapping[str, Request]) -> Blend:
        """Every source, ready to answer its part of each request."""
        for name, request in needs.items():
            if isinstance(request, Everything):
                raise BadInput(f"{name!r} asks for everything at once, which several sources cannot give: use one dataset")
        counts = {name: self.counts(request) for name, request in needs.items()}
        served = []
        for number, source in enumerate(self.sources):
            parts = {name: replace(request, count=counts[name][number]) for name, request in needs.items()}
            try:
                served.append(source.serve(parts))
            except BadInput:
                if not self.absent:
                    raise
                known = lambda request: tuple(field for field in request.fields if field not in self.absent)
                served.append(source.serve({name: replace(part, fields=known(part)) for name, part in parts.items()}))
        return replace(self, sources=tuple(served), needs=tuple(needs.items()))

    def init(self, products: Mapping[str, Any], *, key: PRNGKeyArray) -> tuple[PyTree, ...]:
        """The state of every source."""
        keys = jax.random.split(key, len(self.sources))
        return tuple(source.init(products, key=k) for source, k in zip(self.sources, keys, strict=True))

    def resumed(self, state: tuple[PyTree, ...], products: Mapping[str, Any], *, key: PRNGKeyArray) -> tuple[PyTree, ...]:
        """As each source resumes."""
        keys = jax.random.split(key, len(self.sources))
        rows = zip(self.sources, state, keys, strict=True)
        return tuple(source.resumed(own, products, key=k) for source, own, k in rows)

    def next(
        self, state: tuple[PyTree, ...], products: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[tuple[PyTree, ...], Any]:
        """The parts of all sources, one after the other along the first axis."""
        keys = jax.random.split(key, len(self.sources))
        rows = zip(self.sources, state, keys, strict=True)
        states, parts = zip(*(source.next(own, products, clock=clock, key=k) for source, own, k in rows), strict=True)
        if len(self.needs) == 1:
            return states, _joined(parts)
        return states, {name: _joined(tuple(part[name] for part in parts)) for name, _ in self.needs}

    def tell(self, state: tuple[PyTree, ...], batch: Any, metrics: Mapping[str, Any]) -> tuple[PyTree, ...]:
        """Every source gets its own rows, and of each metric with a value per row the values of these (with a single request)."""
        single, told, begin = len(self.needs) == 1, [], {name: 0 for name, _ in self.needs}
        for number, (source, own) in enumerate(zip(self.sources, state, strict=True)):
            ranges = {}
            for name, request in self.needs:
                end = begin[name] + self.counts(request)[number]
                ranges[name], begin[name] = slice(begin[name], end), end
            cut = lambda tree, rows: jax.tree.map(lambda leaf: leaf[rows], tree)
            if single:
                (rows,) = ranges.values()
                mine = {name: Each(value.values[rows]) if isinstance(value, Each) else value for name, value in metrics.items()}
                told.append(source.tell(own, cut(batch, rows), mine))
            else:
                mine = {name: value for name, value in metrics.items() if not isinstance(value, Each)}
                told.append(source.tell(own, {name: cut(batch[name], rows) for name, rows in ranges.items()}, mine))
        return tuple(told)


def _joined(parts: tuple[Window, ...]) -> Window:
    """One window of all rows; what only some have is 0 in the others, a weight 1."""
    examples = {name: value for part in parts for name, value in part.extra.items()}

    def extra(part: Window, name: str) -> PyTree[Array]:
        if name in part.extra:
            return part.extra[name]
        rows, fill = part.reward.shape[0], jnp.ones if name == "weight" else jnp.zeros
        return jax.tree.map(lambda leaf: fill((rows, *leaf.shape[1:]), leaf.dtype), examples[name])

    whole = [replace(part, extra={name: extra(part, name) for name in examples}) for part in parts]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *whole)
