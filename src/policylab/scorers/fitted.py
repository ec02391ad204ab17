"""Scorers that are fitted to judgements: what their forms and what is built from them has to offer, so that `Fit` can train it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Array, Float, PRNGKeyArray

from policylab.errors import Unsupported
from policylab.experience import Spec
from policylab.learner import Request
from policylab.scorer import Scorer


class FittedScorer(Scorer):
    """A scorer with the loss that fits it."""

    @abstractmethod
    def losses(self, batch: Any, *, key: PRNGKeyArray) -> Float[Array, " batch"]:
        """What is minimised, for every row of a batch."""


@dataclass(frozen=True)
class FittedForm:
    """The shape of a fitted scorer before it is built, and what its loss reads. `product` is the name it gets among a learner's products."""

    product: ClassVar[str] = "reward"

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> Any:
        """A scorer with fresh parameters."""
        raise Unsupported(f"{type(self).__name__} is a form without a way to build itself")

    def request(self, count: int) -> Request:
        """What its loss needs `count` rows of."""
        raise Unsupported(f"{type(self).__name__} does not say what it is fitted to")
