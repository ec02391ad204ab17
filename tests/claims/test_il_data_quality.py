"""The parts of the data-quality experiment that its numbers rest on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from policylab.claims.imitation import il_data_quality as study
from policylab.learner import Clock


def test_agreement_is_the_partial_rank_correlation():
    random = np.random.default_rng(0)
    success, quality, count = random.normal(size=(3, 20))
    count, quality = np.round(count), quality + np.round(count)
    pair = lambda a, b: scipy.stats.spearmanr(a, b).statistic
    xy, xz, yz = pair(success, quality), pair(success, count), pair(quality, count)
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    np.testing.assert_allclose(study.agreement(success, quality, count), expected, rtol=1e-9)


def test_batches_are_steps_of_the_first_demonstrations_and_the_pilot_arrives():
    source = study.source(study.Condition(3, 0.05))
    flown = jax.jit(lambda key: source.init({}, key=key))(jax.random.key(0))
    assert float(flown.success[: study.MANY].mean()) == 1.0
    draw = jax.jit(lambda key: source.next(flown, {}, clock=Clock(jnp.asarray(0), jnp.asarray(1)), key=key)[1])
    batch = draw(jax.random.key(1))
    rows = {(*o, *a) for e in range(3) for o, a in zip(
        np.asarray(flown.observation[e])[: int(flown.lengths[e])].tolist(), np.asarray(flown.action[e]).tolist(), strict=False
    )}  # fmt: skip
    drawn = [(*o, *a) for o, a in zip(np.asarray(batch.observation).tolist(), np.asarray(batch.action).tolist(), strict=True)]
    assert all(row in rows for row in drawn)
    assert len(set(drawn)) > 30


def test_labelled_noise_moves_the_point_as_much_as_the_worlds():
    spread = []
    for condition in (study.Condition(100, 0.1), study.Condition(100, 0.0, 0.1)):
        source = study.source(condition)
        flown = jax.jit(lambda key, source=source: source.init({}, key=key))(jax.random.key(0))
        change = np.asarray(flown.observation[:, 1:, 2:] - flown.observation[:, :-1, 2:])[np.asarray(flown.valid)]
        spread.append(change.std())
    np.testing.assert_allclose(spread[0], spread[1], rtol=0.1)
