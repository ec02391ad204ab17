"""The policies of the experiment on transformed rewards are at the divergence that its claim says."""

from __future__ import annotations

import numpy as np
import pytest

from policylab.claims.preference import reward_transformation as study


def test_every_arm_is_compared_at_the_same_divergence_and_the_transformation_is_a_log_probability():
    scores = 2.0 * np.random.default_rng(0).standard_normal((2, 5, 40))
    found = study.rewards(scores)
    assert set(found) == set(study.ARMS)
    for reward in found.values():
        policy = study.best_policy(reward, 1.0)
        assert (policy * np.log(40 * policy)).sum(1).mean() == pytest.approx(1.0, abs=1e-3)
    level = np.quantile(scores, study.LEVEL, axis=2, keepdims=True)
    chance = 1 / (1 + np.exp(level - scores))
    np.testing.assert_allclose(found["transformed"], np.log(chance).sum(0), rtol=1e-4)
    utility = study.world(3)[2]
    assert abs(np.corrcoef(utility.reshape(2, -1))[0, 1] - study.RIVALRY) < 0.2
