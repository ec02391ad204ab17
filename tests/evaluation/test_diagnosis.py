"""The dataset card: planted faults are found and clean data raise no alarm; numbers against brute force."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from policylab.data.recording import Recording
from policylab.evaluation.diagnosis import diagnose
from policylab.evaluation.pictures import card_figure
from policylab.experience import Spec
from policylab.spaces import Box
from tests.small import continuous_recording, discrete_recording


def oscillator(episodes: int = 40, length: int = 100, *, seed: int = 0) -> Recording:
    """A driven, damped oscillator with a little noise: smooth dynamics of a 4-dimensional state."""
    random = np.random.default_rng(seed)
    state = np.zeros((episodes, length + 1, 4), np.float32)
    state[:, 0] = random.standard_normal((episodes, 4))
    action = random.uniform(-1, 1, (episodes, length, 2)).astype(np.float32)
    for t in range(length):
        position, speed = state[:, t, :2], state[:, t, 2:]
        speed = 0.95 * speed - 0.1 * position + 0.2 * action[:, t] + 0.01 * random.standard_normal((episodes, 2))
        state[:, t + 1] = np.concatenate([position + 0.1 * speed, speed], axis=1)
    reward = -np.sum(state[:, :-1] ** 2, axis=2).reshape(-1)
    flags = np.zeros(episodes * length, bool)
    return Recording(
        state.reshape(-1, 4), action.reshape(-1, 2), reward, flags, flags, np.full(episodes, length), Spec(Box((4,)), Box((2,), -1.0, 1.0))
    )  # fmt: skip


def test_clean_data_raise_no_alarm():
    for seed in range(5):
        assert diagnose(oscillator(seed=seed)).suspicions == ()


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
def test_corrupted_rows_are_found(share):
    recording = oscillator()
    random = np.random.default_rng(1)
    hit = random.uniform(size=len(recording.observation)) < share
    observation = np.where(
        hit[:, None], recording.observation + random.uniform(-3, 3, recording.observation.shape), recording.observation
    )
    (found,) = [
        s
        for s in diagnose(replace(recording, observation=observation.astype(np.float32))).suspicions
        if s.kind == "state spikes"
    ]
    assert (
        0.5 * share < found.count / found.total < 2.2 * share
    )  # a corrupted state spoils the step into it and the step out of it


def test_repeated_episodes_and_constant_columns_are_found():
    recording = oscillator(episodes=10)
    twice = recording.select(np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 3, 5]))
    stuck = replace(twice, observation=np.concatenate([twice.observation, np.ones((len(twice.observation), 1), np.float32)], 1),
                    spec=Spec(Box((5,)), twice.spec.action))  # fmt: skip
    kinds = {s.kind: s.count for s in diagnose(stuck).suspicions}
    assert kinds == {"duplicate episodes": 2, "constant columns": 1}


def test_returns_endings_and_saturation_by_hand():
    recording = continuous_recording()
    card = diagnose(recording, scale=(-100.0, 0.0))
    returns = recording.reward.reshape(20, 25).sum(1)
    assert card.returns["mean"] == pytest.approx(returns.mean(), rel=1e-5)
    assert card.returns["median"] == pytest.approx(np.median(returns), rel=1e-5)
    assert card.endings == {"terminal": 10, "truncated": 10}
    assert card.saturation == pytest.approx(np.mean(np.abs(recording.action) >= 1.996), abs=1e-9)
    assert card.coverage.tq == pytest.approx((returns.mean() + 100) / 100, rel=1e-5)


def test_one_step_logs_show_rates_and_wrong_propensities():
    recording = discrete_recording(episodes=600, length=1)
    honest = replace(recording, extra={"propensity": np.full(600, 1 / 3, np.float32)})
    card = diagnose(honest)
    positives = int(recording.reward.sum())
    assert card.bandit["positives"] == positives
    assert card.bandit["low"] < positives / 600 < card.bandit["high"]
    assert card.suspicions == ()
    wrong = diagnose(replace(recording, extra={"propensity": np.full(600, 0.9, np.float32)}))
    assert [s.kind for s in wrong.suspicions] == ["propensities"]


def test_the_card_is_strict_json_text_and_a_picture():
    for recording in (oscillator(8), discrete_recording(50, 1), continuous_recording(4, 6, reward=False)):
        card = diagnose(recording)
        json.dumps(card.to_json(), allow_nan=False)
        assert 5 < len(str(card).splitlines()) <= 40
        picture = card_figure(card, recording)
        assert picture.startswith(b"\x89PNG")
        assert picture == card_figure(card, recording)
