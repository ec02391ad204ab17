"""The bandits of CoPG's experiment and the games of INPO's are as their claims say."""

from __future__ import annotations

import numpy as np
import pytest

from policylab.claims.preference import copg, inpo


def test_the_worst_choice_of_the_bandit_is_the_most_common():
    reward, pairs = copg.bandit(3)
    counts = np.bincount(pairs.ravel(), minlength=copg.ARMED)
    assert np.array_equal(np.argsort(-counts), np.argsort(reward))


def test_no_policy_gains_against_the_nash_policy_and_the_gap_is_the_best_responses():
    wins, logits = inpo.game(5, "cyclic")
    np.testing.assert_allclose(wins + wins.T, 1.0)
    reference, policy = inpo.log_normalised(logits), np.full(inpo.ANSWERS, -np.log(inpo.ANSWERS))
    value = lambda p, q: (
        np.exp(p) @ wins @ np.exp(q) - inpo.TAU * np.exp(p) @ (p - reference) + inpo.TAU * np.exp(q) @ (q - reference)
    )
    best = inpo.log_normalised(reference + wins @ np.exp(policy) / inpo.TAU)
    assert inpo.duality_gap(wins, reference, policy) == pytest.approx(2 * (value(best, policy) - 0.5))
    nash = reference
    for _ in range(20_000):
        nash = inpo.log_normalised(0.999 * nash + 0.001 * (reference + wins @ np.exp(nash) / inpo.TAU))
    assert inpo.duality_gap(wins, reference, nash) < 1e-4
    order = inpo.game(5, "ordered")[0]
    log_odds = np.log(order / (1 - order))
    np.testing.assert_allclose(
        log_odds[:, None, :] - log_odds[None],
        (log_odds[:, 0][:, None] - log_odds[:, 0])[..., None] + 0 * log_odds[None],
        atol=1e-9,
    )
