"""Metrics of some updates are absent where no update reported them, never 0."""

from __future__ import annotations

import policylab as lab
from policylab.evaluation.occasional import occasional, told
from policylab.progress import Progress
from tests.small import continuous_dataset


def test_metrics_that_no_update_reported_are_absent_and_not_zero(capsys):
    rare = occasional(lab.TD3BC(width=8, depth=1, batch_size=8), continuous_dataset())
    assert rare == {"policy_loss"}
    assert told({"policy_loss": [0.0, 0.0], "critic_loss": [0.0, 0.0]}, rare) == {"critic_loss": [0.0, 0.0]}
    assert told({"policy_loss": [0.0, 0.1]}, rare) == {"policy_loss": [0.0, 0.1]}
    Progress("learning", 1).advance(1, {"policy_loss": 0.0, "critic_loss": 2.0})
    shown = capsys.readouterr().err
    assert "critic_loss 2" in shown
    assert "policy_loss" not in shown
