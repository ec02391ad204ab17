"""The sampling error of the experiment against SciPy, on steps that were drawn by the policy itself."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats

from policylab.claims.online import props as study
from policylab.environments.time_limit import TimeLimit
from policylab.sources.rollout import Rollout
from policylab.training import train


def test_the_sampling_error_is_the_divergence_of_what_was_done(monkeypatch):
    monkeypatch.setattr(study, "KEPT", 64)
    learner = study.sampling(0)
    (error,) = study.errors(learner, [3], 64)
    run = train(learner, Rollout(TimeLimit(study.GRID, study.HORIZON)), steps=4, seeds=[3])
    kept = run.state["kept"]
    valid = np.asarray(kept.valid[0, 0])
    assert valid.sum() == 64
    states, actions = np.asarray(kept.observation[0, 0])[valid], np.asarray(kept.action[0, 0])[valid]
    target = scipy.special.softmax(np.asarray(run.policy().table, np.float64), axis=1)
    expected = 0.0
    for state in np.unique(states):
        share = np.bincount(actions[states == state], minlength=4) / np.sum(states == state)
        expected += np.mean(states == state) * scipy.stats.entropy(share, target[state])
    assert error == pytest.approx(expected, rel=1e-6)
