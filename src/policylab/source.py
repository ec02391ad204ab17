"""Source: where batches come from. A dataset ignores what the learner offers, a rollout runs its explorer, a replay does both."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
from jaxtyping import PRNGKeyArray, PyTree

from policylab.errors import Unsupported
from policylab.experience import Spec
from policylab.fingerprints import fingerprint
from policylab.learner import Clock, Request


class Source(eqx.Module):
    """What never changes is a leaf of the Source, shared by all seeds; only what changes is state."""

    @property
    @abstractmethod
    def spec(self) -> Spec:
        """What the batches hold."""

    @abstractmethod
    def serve(self, needs: Mapping[str, Request]) -> Source:
        """This source, ready to answer these requests. Raises `BadInput` if it cannot (no rewards, no propensities ...)."""

    def init(self, products: Mapping[str, Any], *, key: PRNGKeyArray) -> PyTree:
        """The state of one seed's stream of batches; None where there is none."""
        return None

    @abstractmethod
    def next(self, state: PyTree, products: Mapping[str, Any], *, clock: Clock, key: PRNGKeyArray) -> tuple[PyTree, Any]:
        """The next batch: one Window for a single request, else a dict by name."""

    def tell(self, state: PyTree, batch: Any, metrics: Mapping[str, Any]) -> PyTree:
        """What the learner made of the batch (priorities, archives); by default the state is unchanged."""
        return state

    @property
    def restorable(self) -> bool:
        """Whether its state can be stored and gone on from in another process; where it cannot, a resumed run calls `resumed`."""
        return True

    def resumed(self, state: PyTree, products: Mapping[str, Any], *, key: PRNGKeyArray) -> PyTree:
        """A stored state with what could not be stored (simulators) begun anew."""
        return state

    @property
    def rewarded(self) -> bool:
        """Whether its batches hold rewards."""
        return True

    @property
    def on_policy(self) -> bool:
        """Whether every batch is what the explorer, as it is now, has just done."""
        return False

    def fingerprint(self) -> str:
        """A hash of its data, equal for equal data: a run is resumed on these only. By default that of its array leaves."""
        return fingerprint(self)

    @property
    def hosted(self) -> bool:
        """Whether batches are made on the host (larger than memory, behind an API); `host_batches` then makes them."""
        return False

    def host_batches(self, steps: range, seeds: Sequence[int]) -> Any:
        """Only where `hosted`: the batches of these steps as arrays [step, seed, ...], a function of step and seed alone."""
        raise Unsupported(f"{type(self).__name__} makes its batches inside the compiled program")
