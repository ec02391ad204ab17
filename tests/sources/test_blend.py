"""Batches from several sources: shares, order, extra fields, and who is told what."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.examples import example_recording
from policylab.learner import Clock, Each
from policylab.policies.takeover import ByChance

ENVIRONMENT = lab.load_task("pendulum").environment()
RANDOM = lab.UniformRandom(ENVIRONMENT.spec.action)
CLOCK = Clock(jnp.asarray(0), jnp.asarray(9))


@pytest.fixture(scope="module")
def dataset():
    return lab.Dataset.of(example_recording(ENVIRONMENT.spec))


def replay(**options):
    return lab.Replay(ENVIRONMENT, **{"capacity": 64, "warmup": 32, **options})


def test_each_source_gives_its_share_in_order(dataset):
    blend = lab.Blend((dataset, replay()), shares=(3, 1)).serve({"one": lab.Steps(10), "two": lab.Windows(9, future=2)})
    state = jax.jit(lambda key: blend.init({"policy": RANDOM}, key=key))(jax.random.key(0))
    state, batch = jax.jit(lambda s, k: blend.next(s, {"policy": RANDOM}, clock=CLOCK, key=k))(state, jax.random.key(1))
    assert int(state[1].written) == 33
    # Logged rewards lie in [0, 1], the pendulum's are negative. 7.5 and 2.5 rows: the first of equals is rounded up.
    assert (np.asarray(batch["one"].reward) > 0).tolist() == [True] * 8 + [False] * 2
    assert (np.asarray(batch["two"].reward[:, 0]) > 0).tolist() == [True] * 7 + [False] * 2
    np.testing.assert_array_equal(blend.spec.statistics["observation"].mean, dataset.spec.statistics["observation"].mean)


def test_errors_reach_the_replay_whose_rows_they_are_of(dataset):
    prioritised = replay(prioritised=True, exponent=1.0)
    blend = lab.Blend((dataset, prioritised)).serve({"one": lab.Steps(8)})
    state = jax.jit(lambda key: blend.init({"policy": RANDOM}, key=key))(jax.random.key(0))
    state, batch = jax.jit(lambda s, k: blend.next(s, {"policy": RANDOM}, clock=CLOCK, key=k))(state, jax.random.key(1))
    np.testing.assert_array_equal(batch.weight[:4], np.ones(4))  # the dataset weighs none of its rows
    error = jnp.arange(1.0, 9.0)
    told = blend.tell(state, batch, {"td_error": Each(error), "loss": jnp.zeros(())})
    rows = np.asarray(batch.extra["row"])[4:]
    expected = np.ones(33)
    expected[rows] = np.asarray(error)[4:] + 1e-6
    np.testing.assert_allclose(told[1].priorities.of(jnp.asarray(rows)), expected[rows], rtol=1e-5)


def test_a_field_that_one_source_lacks_is_zero_there_if_that_is_said(dataset):
    shared = lab.Intervention(ENVIRONMENT, expert=RANDOM, rule=ByChance(0.5), capacity=64, warmup=32)
    needs = {"one": lab.Steps(32, fields=("intervened",))}
    with pytest.raises(lab.BadInput, match="no column 'intervened'"):
        lab.Blend((dataset, shared)).serve(needs)
    blend = lab.Blend((dataset, shared), absent=("intervened",)).serve(needs)
    state = jax.jit(lambda key: blend.init({"policy": RANDOM}, key=key))(jax.random.key(0))
    _, batch = jax.jit(lambda s, k: blend.next(s, {"policy": RANDOM}, clock=CLOCK, key=k))(state, jax.random.key(1))
    by_expert = np.asarray(batch.extra["intervened"])
    assert by_expert.dtype == bool
    assert not by_expert[:16].any()
    assert 0 < by_expert[16:].sum() < 16


def test_blends_conform_train_and_resume(dataset, tmp_path):
    blend = lab.Blend((dataset, replay()))
    report = lab.check(blend)
    assert report.passed, str(report)
    learner = lab.BC(policy=lab.Deterministic(width=4, depth=1), batch_size=8)
    whole = lab.train(learner, blend, steps=4, seeds=2)

    def stop(row):
        if row["step"] >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.train(learner, blend, steps=4, seeds=2, out=tmp_path, checkpoint_every=2, trackers=[stop])
    resumed = lab.train(learner, blend, steps=4, seeds=2, out=tmp_path, checkpoint_every=2, resume=True)
    same = jax.tree.map(
        lambda a, b: np.array_equal(a, b), (whole.state, whole.source_state), (resumed.state, resumed.source_state)
    )
    assert jax.tree.all(same)
    assert blend.fingerprint() != lab.Blend((dataset, replay()), shares=(1, 2)).fingerprint()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda data: lab.Blend((data,)), "at least two"),
        (lambda data: lab.Blend((data, data), shares=(1,)), "do not fit 2 sources"),
        (lambda data: lab.Blend((data, data), shares=(1, 99)).serve({"a": lab.Steps(8)}), "without a row"),
        (lambda data: lab.Blend((data, data)).serve({"a": lab.Everything()}), "several sources cannot"),
        (lambda data: lab.Blend((data, lab.Replay(lab.load_task("cartpole").environment()))), "match"),
        (lambda data: lab.Blend((data, data)).serve({"a": lab.WholeEpisodes(8)}), "cannot answer"),
    ],
)
def test_what_a_blend_cannot_do_is_said(dataset, make, words):
    with pytest.raises(lab.BadInput, match=words):
        make(dataset)
