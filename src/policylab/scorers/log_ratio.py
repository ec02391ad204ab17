"""The reward that a policy implies beside a reference (Rafailov et al. 2023, arXiv 2305.18290, section 4)."""

from __future__ import annotations

from jaxtyping import Array, Float, PyTree

from policylab.policies.answering import answer_window
from policylab.policy import Policy
from policylab.scorers.comparing import Comparing


class LogRatio(Comparing):
    r"""r(x, a) = beta log [ pi(a | x) / pi_ref(a | x) ], one term per part of the answer.

    The sum over the first parts is what a process reward model would say of them (Yuan et al. 2024, arXiv 2412.01981): it equals
    beta log E_ref[ exp(r / beta) ] over what the reference would write from there on. Its cross-entropy of pairs is DPO's loss.
    """

    policy: Policy
    reference: Policy
    beta: Float[Array, ""] | float

    def scores(self, observation: PyTree, action: PyTree) -> Float[Array, " part"]:
        """beta (log pi - log pi_ref) of every part."""
        window = answer_window(observation, action)
        return self.beta * (self.policy.log_probs(window)[0] - self.reference.log_probs(window)[0])
