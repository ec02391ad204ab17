"""The arms of CLAM's claim: who sees the history, who is told the partner, and what all have in common."""

from __future__ import annotations

import policylab as lab
from policylab.claims.multiagent.clam import CHOSEN, CLAIM, GRID, arm


def test_every_arm_sees_what_it_should_at_an_equal_budget():
    seen, windows = {}, set()
    for name, chosen in CHOSEN.items():
        assert chosen in GRID
        learner, environment = arm(name, **chosen)
        seen[name] = dict(getattr(environment.spec.observation, "parts", ())).keys()
        request = next(iter(learner.needs.values()))
        windows.add((request.count, request.future))
        assert environment.spec.horizon == 12
    assert seen["clam"] == seen["reconstruction"] == seen["history"] == {"observation", "past", "seen"}
    assert seen["oracle"] == {"observation", "other"}
    assert not seen["ppo"]
    assert windows == {(32, 12)}
    assert set(CHOSEN) < set(CLAIM.arms)
    assert isinstance(arm("clam")[0], lab.CLAM)
