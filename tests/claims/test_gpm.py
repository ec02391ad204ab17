"""The preferences of GPM's experiment are as its claim says."""

from __future__ import annotations

import numpy as np

from policylab.claims.preference import gpm as study


def test_prompts_turn_preferences_round_and_only_labels_to_learn_from_are_flipped():
    observation, a, b, wins, label = study.judged(7, cyclic=4)
    rows = study.PAIRS + study.TRIED
    assert observation.shape == (rows, 8)
    assert a.shape == b.shape == (rows, study.WORDS)
    assert np.array_equal(wins[study.PAIRS :], label[study.PAIRS :])
    assert abs(np.mean(wins[: study.PAIRS] != label[: study.PAIRS]) - study.FLIPS) < 0.02
    assert abs(wins.mean() - 0.5) < 0.03
    item = study.judged(7, cyclic=0)
    assert not np.array_equal(item[3], wins)
