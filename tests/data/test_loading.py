import json

import gymnasium
import h5py
import numpy as np
import pytest

from policylab import spaces
from policylab.data import columns
from policylab.data.encoding import Encoder
from policylab.data.loading import load, save
from policylab.data.recording import recording_from_steps
from policylab.experience import Spec
from tests.data.builders import (
    BANDIT_COLUMNS,
    CARTPOLE_COLUMNS,
    bandit_log,
    cartpole_log,
    d4rl_hopper,
    lerobot_folder,
    minari_pendulum,
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def test_formats_are_recognised_from_the_path(root):
    minari_pendulum(root)
    d4rl_hopper(root / "hopper.hdf5")
    d4rl_hopper(root / "hopper.h5")
    np.savez(root / "a.npz", observations=np.zeros((2, 1)), actions=np.zeros((2, 1)), terminals=[0, 1], timeouts=[0, 0])
    bandit_log(root / "log.csv")
    lerobot_folder(root / "robot")
    save(load(root / "hopper.hdf5"), root / "kept")
    for source, kind, steps in [
        ("pendulum/swingup-v0", "minari", 150),
        (root / "pendulum/swingup-v0", "minari", 150),
        (root / "pendulum/swingup-v0/data", "minari", 150),
        (root / "hopper.hdf5", "d4rl", 204),
        (root / "hopper.h5", "d4rl", 204),
        (root / "a.npz", "npz", 2),
        (root / "log.csv", "log", 600),
        (root / "robot", "lerobot v3.0", 48),
        (root / "kept", "d4rl", 204),
    ]:
        recording = load(source, columns=BANDIT_COLUMNS if kind == "log" else None)
        assert recording.origin["format"] == kind
        assert recording.steps == steps
    assert isinstance(load(root / "kept").observation, np.memmap)


@pytest.mark.parametrize("format", ["columns", "minari", "minari-arrow", "minari-parquet", "d4rl", "npz"])
def test_what_is_saved_is_loaded_again(root, format):
    recording = load(d4rl_hopper(root / "hopper.hdf5"))
    path = save(recording, root / {"d4rl": "a.hdf5", "npz": "a.npz"}.get(format, "copy-v0"), format)
    again = load(path)
    for name, values in columns.flatten(recording).items():
        np.testing.assert_array_equal(values, columns.flatten(again)[name], err_msg=name)


def test_the_environment_gives_bounds_and_step_limit(root):
    path = d4rl_hopper(root / "mine.hdf5", without=("timeouts", "next_observations"))
    with h5py.File(path, "a") as file:
        file["actions"][...] = 0.5 * file["actions"][...]
    recording = load(path, environment="Hopper-v5")
    assert recording.spec.environment == "Hopper-v5"
    assert recording.spec.horizon == 1000
    assert recording.spec.action == spaces.Box((3,), -1.0, 1.0)
    assert recording.spec.observation == spaces.from_gymnasium(gymnasium.make("Hopper-v5").observation_space)


def test_a_choice_that_was_never_taken_is_still_the_environments(root):
    steps = {"observations": np.zeros((3, 6)), "actions": np.array([0, 1, 1]), "terminals": [0, 0, 1], "timeouts": [0, 0, 0]}
    np.savez(root / "a.npz", **steps)
    assert load(root / "a.npz").spec.action == spaces.Discrete(2)
    assert load(root / "a.npz", environment="Acrobot-v1").spec.action == spaces.Discrete(3)
    assert load(root / "a.npz", environment=Spec(spaces.Box((6,)), spaces.Discrete(4))).spec.action.n == 4
    assert load(cartpole_log(root / "log.csv"), columns=CARTPOLE_COLUMNS, environment="CartPole-v1").spec.horizon == 500


def test_an_encoder_carries_over(root):
    first = load(bandit_log(root / "a.csv"), columns=BANDIT_COLUMNS)
    second = load(
        bandit_log(root / "b.csv", rows=3, seed=5), columns=BANDIT_COLUMNS, encoder=Encoder.from_json(first.origin["encoder"])
    )
    assert second.spec == first.spec


def test_an_origin_is_plain_json(root):
    for source, given in [
        (minari_pendulum(root), None),
        (d4rl_hopper(root / "h.hdf5"), None),
        (bandit_log(root / "a.csv"), BANDIT_COLUMNS),
        (lerobot_folder(root / "robot"), None),
    ]:
        origin = load(source, columns=given).origin
        assert json.loads(json.dumps(origin)) == origin


def test_demonstrations_without_rewards_are_welcome(root):
    recording = load(d4rl_hopper(root / "hopper.hdf5", without=("rewards",)))
    assert recording.reward is None
    assert load(save(recording, root / "kept")).reward is None


def test_a_recording_written_and_read_keeps_a_split_together(root):
    steps = np.zeros((6, 1))
    recording = recording_from_steps(steps, steps, None, np.ones(6), extra={"group": np.array([1, 1, 2, 2, 3, 3])})
    parts = load(save(recording, root / "kept")).split((0.67, 0.33), seed=0)
    assert not set(parts[0].extra["group"]) & set(parts[1].extra["group"])
