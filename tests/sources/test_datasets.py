"""Sampling: transitions, n-step returns, windows, the best share; streaming from memory-mapped columns."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.learner import Clock
from policylab.learners.offline.td3_bc import TD3BC
from policylab.policies.deterministic import Deterministic
from tests.small import continuous_recording

CLOCK, KEY = Clock(jnp.asarray(0), jnp.asarray(1)), jax.random.key(0)


@pytest.fixture(scope="module")
def recording():
    return continuous_recording(episodes=6, length=5)


@pytest.fixture(scope="module")
def dataset(recording):
    return lab.Dataset.of(recording)


def draw(dataset, request):
    return dataset.serve({"it": request}).next(None, {}, clock=CLOCK, key=KEY)[1]


def test_transitions_are_rows_of_the_recording_and_what_followed(recording, dataset):
    batch = draw(dataset, lab.Steps(64, fields=("row",)))
    rows = np.asarray(batch.extra["row"])
    np.testing.assert_array_equal(batch.observation, recording.observation[rows])
    np.testing.assert_array_equal(batch.next_observation, recording.observation[rows + 1])
    steps = rows - rows // 6
    np.testing.assert_array_equal(batch.action, recording.action[steps])
    np.testing.assert_array_equal(batch.terminal, recording.terminal[steps])
    assert set(steps) <= set(range(recording.steps))


def test_every_action_is_drawn_about_equally_often(recording, dataset):
    rows = np.asarray(draw(dataset, lab.Steps(30_000, fields=("row",))).extra["row"])
    counts = np.bincount(rows - rows // 6, minlength=recording.steps)
    assert counts.min() > 850  # 1000 expected, standard deviation 31
    assert counts.max() < 1150


def test_n_step_returns_stop_at_the_end_of_the_episode(recording, dataset):
    batch = draw(dataset, lab.Steps(200, n=3, discount=0.5, fields=("row",)))
    for i in range(200):
        row = int(batch.extra["row"][i])
        episode, time = divmod(row, 6)
        length = min(3, 5 - time)
        reward = recording.reward[episode * 5 + time : episode * 5 + time + length]
        assert float(batch.reward[i]) == pytest.approx(float(np.sum(reward * 0.5 ** np.arange(length))), rel=1e-5)
        assert int(batch.duration[i]) == length
        np.testing.assert_array_equal(batch.next_observation[i], recording.observation[row + length])
        assert bool(batch.terminal[i]) == bool(recording.terminal[episode * 5 + time + length - 1])


def test_windows_are_padded_where_they_leave_the_episode(recording, dataset):
    batch = draw(dataset, lab.Windows(100, past=2, future=3, fields=("row",)))
    assert batch.reward.shape == (100, 5)
    for i in range(100):
        anchor = int(batch.extra["row"][i, 2])
        wanted = anchor + np.arange(-2, 3)
        inside = (wanted // 6 == anchor // 6) & (wanted % 6 < 5)
        np.testing.assert_array_equal(batch.valid[i], inside)
        np.testing.assert_array_equal(batch.observation[i][inside], recording.observation[wanted[inside]])


def test_the_best_share_comes_from_the_best_episodes(recording, dataset):
    batch = draw(dataset, lab.Steps(100, best=1 / 3, fields=("row",)))
    best = np.argsort(-recording.returns)[:2]
    assert set(np.asarray(batch.extra["row"]) // 6) == set(best)


def test_return_to_go_and_weights(recording, dataset):
    batch = draw(dataset, lab.Steps(50, fields=("return_to_go", "row")))
    rows = np.asarray(batch.extra["row"])
    for row, value in zip(rows, np.asarray(batch.extra["return_to_go"]), strict=True):
        episode, time = divmod(int(row), 6)
        assert value == pytest.approx(recording.reward[episode * 5 + time : episode * 5 + 5].sum(), rel=1e-4)
    weighted = lab.Dataset.of(recording, weight=np.arange(30, dtype=np.float32))
    batch = draw(weighted, lab.Steps(50, fields=("row",)))
    rows = np.asarray(batch.extra["row"])
    np.testing.assert_array_equal(batch.weight, rows - rows // 6)


def test_statistics_are_those_of_the_columns(recording, dataset):
    found = dataset.spec.statistics
    np.testing.assert_allclose(found["observation"].mean, recording.observation.mean(0), atol=1e-6)
    np.testing.assert_allclose(found["observation"].std, recording.observation.std(0), rtol=1e-5)
    np.testing.assert_allclose(found["action"].high, recording.action.max(0))


def test_missing_columns_and_empty_data_are_refused(dataset, recording):
    with pytest.raises(lab.BadInput, match="no column 'propensity'"):
        dataset.serve({"it": lab.Steps(4, fields=("propensity",))})
    with pytest.raises(lab.BadInput, match="cannot answer Pairs"):
        dataset.serve({"it": lab.Pairs(4)})


def test_streaming_from_disk_trains_resumes_and_conforms(recording, tmp_path):
    folder = lab.save_data(recording, tmp_path / "columns", format="columns")
    streamed = lab.StreamedDataset.of(lab.load_data(folder or tmp_path / "columns"))
    report = lab.check(streamed)
    assert report.passed, str(report)
    learner = TD3BC(width=8, depth=1, batch_size=16, policy=Deterministic(width=8, depth=1))
    whole = lab.train(learner, streamed, steps=30, seeds=2)

    class Stop(Exception):
        pass

    def stop(row):
        if row["step"] > 20:
            raise Stop

    with pytest.raises(Stop):
        lab.train(learner, streamed, steps=30, seeds=2, out=tmp_path / "run", checkpoint_every=10, trackers=[stop])
    resumed = lab.train(learner, streamed, steps=30, seeds=2, out=tmp_path / "run", checkpoint_every=10, resume=True)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), whole.state, resumed.state))
    with pytest.raises(lab.BadInput, match="plain transitions only"):
        streamed.serve({"it": lab.Steps(4, n=3)})
