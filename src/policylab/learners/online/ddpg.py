"""DDPG: deep deterministic policy gradients (Lillicrap et al. 2016, arXiv 1509.02971)."""

from __future__ import annotations

from typing import ClassVar

from policylab.hyperparameters import setting, settings
from policylab.learners.online.td3 import TD3


@settings
class DDPG(TD3):
    r"""TD3 without what TD3 added: one critic, no noise on the target's action, and policy and targets that move at every update.

    Q:      min E[ ( r + gamma (1 - terminal) Qbar(s', pibar(s')) - Q(s, a) )^2 ]      (equation 4)
    policy: max E[ Q(s, pi(s)) ]                                                       (equation 6)

    The explorer adds independent normal noise, which does as well as the paper's Ornstein-Uhlenbeck process (Fujimoto et al. 2018,
    appendix D). Other settings are those of `TD3`; the paper has batches of 64, rates of 1e-4 (policy) and 1e-3 (critic), a target rate
    of 0.001 and networks of 400 and 300.
    """

    noise: float = setting(0.0, "standard deviation of the target action's noise; DDPG has none", low=0.0)
    policy_period: int = setting(1, "updates of the critic per update of the policy", low=1)
    members: int = setting(1, "critics", low=1)

    title: ClassVar[str] = "Deep deterministic policy gradients"
