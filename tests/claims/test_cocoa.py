"""The room of COCOA's experiment is as its claim says."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from policylab.claims.offline import cocoa as study
from policylab.environment import unroll
from policylab.networks.frozen import trainable


def test_the_log_lacks_the_middle_and_the_pilot_always_arrives_from_there():
    data = study.data()
    starts = np.asarray(data.observation)[np.unique(np.asarray(data.first)[np.asarray(data.row_of)[: int(data.count)]])]
    assert len(starts) == study.LOGGED
    assert 0.4 <= np.abs(starts[:, 1]).min() < np.abs(starts[:, 1]).max() <= 0.9
    for where, (low, high) in study.HEIGHTS.items():
        flown = unroll(
            study.Pilot(jnp.zeros(())), study.room(where), episodes=100, horizon=study.HORIZON, key=jax.random.key(0)
        )
        assert float(flown.success.mean()) == 1.0
        height = np.abs(np.asarray(flown.observation)[:, 0, 1])
        assert low <= height.min() < height.max() <= high


def test_both_arms_have_as_many_parameters_and_updates():
    plain, wrapped = study.iql(), study.cocoa()
    assert round(wrapped[1] * (1 - sum(study.SHARES))) == plain[1]

    def parameters(policy) -> int:
        marked = jax.tree.map(lambda leaf, free: leaf.size if free else 0, policy, trainable(policy))
        return sum(jax.tree.leaves(marked))

    spec = study.data().spec
    first = plain[0].init(spec, key=jax.random.key(0))
    second = wrapped[0].init(spec, key=jax.random.key(0))["learner"]
    for name in ("policy", "critic", "value"):
        a, b = parameters(first[name].model), parameters(second[name].model)
        assert abs(a - b) < 0.05 * a, name
