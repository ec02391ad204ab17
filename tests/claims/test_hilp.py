"""The spiral of HILP's experiment is as its claim says."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from policylab.claims.representation import hilp as study
from policylab.tasks.maze import Maze


def test_the_corridor_is_long_and_wound_and_rewards_grow_inwards():
    centres, between = study.steps_between()
    assert len(centres) == 31
    assert between.max() == 30
    assert study.agreement(between, centres) < 0.5
    assert study.agreement(between, np.stack([between[0], 0 * between[0]], axis=1)) == pytest.approx(1.0)
    outer, inner = (jnp.asarray(Maze(study.SPIRAL).centre(end)) for end in (study.OUTER, study.INNER))
    for name, reward in study.REWARDS.items():
        expected = (0.0, 1.0) if name != "outer end" else (1.0, 0.0)
        assert (float(reward(outer)), float(reward(inner))) == expected
