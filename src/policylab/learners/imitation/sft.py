"""SFT: supervised fine-tuning, the cloning of answers by a language model that goes on from where it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import optax
from jaxtyping import PRNGKeyArray

from policylab.experience import Spec
from policylab.hyperparameters import setting, settings
from policylab.learners.imitation.bc import BC
from policylab.networks.optimisation import Trained, trained


@settings
class SFT(BC):
    r"""min E[ - log pi(answer | prompt) ] from `start`, summed over the tokens of an answer: `BC` with a policy to go on from.

    On `Demonstrations` of chats it is supervised fine-tuning; on the right ones of a policy's own answers (`accepted`) it is a round of
    expert iteration, or rejection-sampling fine-tuning (ReST-EM, Singh et al. 2023, arXiv 2312.06585; RFT, Yuan et al. 2023, arXiv
    2308.01825). Without a start it is BC. Defaults: Adam at 1e-5 and batches of 64, of the order that is usual for models of billions of
    parameters; small models take more.
    """

    learning_rate: float = setting(1e-5, "of Adam", above=0.0)
    batch_size: int = setting(64, "answers per update", low=1)

    title: ClassVar[str] = "Supervised fine-tuning"
    takes: ClassVar[tuple[str, ...]] = ("start",)

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> Trained:
        """The start, or a fresh policy."""
        start = given["start"] if "start" in given else self._form(spec).build(spec, key=key)
        return trained(start, optax.adam(self.learning_rate))
