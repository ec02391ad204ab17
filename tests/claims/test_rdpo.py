"""The bandits of robust DPO's experiment are as its claim says."""

from __future__ import annotations

import numpy as np

from policylab.claims.preference import rdpo as study


def test_votes_are_those_of_bradley_and_terry_with_flips_and_the_best_policy_loses_nothing():
    drawn = study.bandit(7)
    assert drawn.count.sum(-1).astype(int).tolist() == [list(study.PAIRS)] * len(study.FLIPS)
    reward = drawn.features @ drawn.weights
    gain = reward[drawn.context, drawn.a] - reward[drawn.context, drawn.b]
    better = 1 / (1 + np.exp(-gain))
    for i, flips in enumerate(study.FLIPS):
        expected = (drawn.count[i, 2] * ((1 - flips) * better + flips * (1 - better))).sum()
        assert abs((drawn.count[i, 2] * drawn.p[i, 2]).sum() - expected) < 4 * np.sqrt(study.PAIRS[2])
    gaps = study.value_gap(drawn.features, drawn.weights, np.stack([drawn.weights, 0.4 * drawn.weights]))
    assert gaps[0] == 0.0
    assert gaps[1] > 0.1
