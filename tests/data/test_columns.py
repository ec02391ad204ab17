import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from policylab import spaces
from policylab.data import columns, d4rl
from policylab.data.loading import convert, load
from policylab.data.recording import recording_from_steps
from policylab.errors import BadInput
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


def nested():
    observation = {"goal": np.ones((4, 2), np.float32), "inner": {"code": np.arange(4, dtype=np.int32)}}
    space = spaces.Composite((("goal", spaces.Box((2,))), ("inner", spaces.Composite((("code", spaces.Discrete(4)),)))))
    spec = Spec(
        space, spaces.Discrete(2, ("stay", "go")), horizon=9, control_rate=20.0, units=(("reward", "m"),), environment="Mine-v0"
    )
    return recording_from_steps(
        observation,
        np.array([0, 1, 1, 0], np.int32),
        np.arange(4.0),
        [0, 1, 0, 1],
        spec=spec,
        name="nested",
        extra={"a/b": np.arange(4)},
        origin={"tool": "tests", "when": np.float32(3.5)},
    )


def test_a_folder_gives_back_the_same_recording_memory_mapped(tmp_path):
    recording = nested()
    columns.write(recording, tmp_path / "saved")
    again = columns.read(tmp_path / "saved")
    assert again.spec == recording.spec
    assert again.name == "nested"
    assert again.origin["when"] == 3.5
    np.testing.assert_array_equal(again.observation["inner"]["code"], recording.observation["inner"]["code"])
    np.testing.assert_array_equal(again.extra["a/b"], recording.extra["a/b"])
    assert isinstance(again.observation["goal"], np.memmap)
    assert not again.observation["goal"].flags.writeable
    part = again.split((0.5, 0.5), seed=0)[0]
    assert part.episodes == 1


def test_memory_needed_counts_every_column():
    recording = recording_from_steps(np.zeros((10, 4)), np.zeros((10, 2)), np.zeros(10), np.arange(10) == 9)
    assert columns.memory_needed(recording) == 4 * (11 * 4 + 10 * 2 + 10) + 10 + 10 + 8


@pytest.mark.parametrize("kind", ["d4rl", "minari", "bandit", "cartpole", "lerobot", "npz"])
def test_converting_in_pieces_gives_what_loading_gives(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("policylab.data.recording._PIECE", 300)  # a few rows
    given, source = None, tmp_path / "source"
    if kind == "minari":
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
        source = minari_pendulum(tmp_path)
    elif kind == "lerobot":
        lerobot_folder(source)
    elif kind == "npz":
        source = source.with_suffix(".npz")
        np.savez(
            source,
            observations=np.arange(50.0),
            actions=np.arange(50.0),
            rewards=np.ones((50, 1)),
            terminals=np.arange(50) % 7 == 6,
            timeouts=np.zeros(50),
        )
    elif kind == "d4rl":
        source = d4rl_hopper(source.with_suffix(".hdf5"))
    else:
        source, given = source.with_suffix(".csv"), BANDIT_COLUMNS if kind == "bandit" else CARTPOLE_COLUMNS
        (bandit_log if kind == "bandit" else cartpole_log)(source)
    expected = load(source, columns=given)
    converted = convert(source, tmp_path / "target", columns=given)
    for name, values in columns.flatten(expected).items():
        np.testing.assert_array_equal(values, columns.flatten(converted)[name])
    assert converted.spec == expected.spec
    assert isinstance(converted.observation, np.memmap)
    described = json.loads((tmp_path / "target/recording.json").read_text())["columns"]
    assert {column["file"] for column in described.values()} == {file.name for file in (tmp_path / "target").glob("*.npy")}


def test_converting_reads_hdf5_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("policylab.data.recording._PIECE", 2_000)
    largest, read = 0, h5py.Dataset.__getitem__

    def watch(self, key):
        nonlocal largest
        values = read(self, key)
        if self.name == "/observations":
            largest = max(largest, np.asarray(values).nbytes)
        return values

    monkeypatch.setattr(h5py.Dataset, "__getitem__", watch)
    convert(d4rl_hopper(tmp_path / "hopper.hdf5", episodes=40), tmp_path / "target")
    assert 0 < largest <= 4_000


def test_nothing_is_left_where_converting_fails(tmp_path):
    path = d4rl_hopper(tmp_path / "hopper.hdf5")
    with h5py.File(path, "a") as file:
        file["observations"][5, 3] = np.nan
    with pytest.raises(BadInput, match="nan"):
        convert(path, tmp_path / "target")
    assert [file.name for file in tmp_path.iterdir()] == ["hopper.hdf5"]


def test_damaged_folders_say_what_is_damaged(tmp_path):
    columns.write(nested(), tmp_path / "saved")
    np.save(tmp_path / "saved/column_000.npy", np.zeros(3))
    with pytest.raises(BadInput, match=r"column_000.npy holds float64\[3\] but recording.json says"):
        columns.read(tmp_path / "saved")
    (tmp_path / "saved/column_000.npy").unlink()
    with pytest.raises(BadInput, match="missing or damaged"):
        columns.read(tmp_path / "saved")
    document = json.loads((tmp_path / "saved/recording.json").read_text())
    (tmp_path / "saved/recording.json").write_text(json.dumps(document | {"layout": 9}))
    with pytest.raises(BadInput, match=r"layout 9.*update policylab"):
        columns.read(tmp_path / "saved")
    (tmp_path / "saved/recording.json").write_text("{")
    with pytest.raises(BadInput, match="cannot be read"):
        columns.read(tmp_path / "saved")


def test_columns_outside_the_folder_are_never_opened(tmp_path):
    columns.write(nested(), tmp_path / "saved")
    np.save(tmp_path / "secret.npy", np.zeros(3))
    document = json.loads((tmp_path / "saved/recording.json").read_text())
    document["columns"]["action"]["file"] = "../secret.npy"
    (tmp_path / "saved/recording.json").write_text(json.dumps(document))
    with pytest.raises(BadInput, match=r"saved/secret.npy is missing"):
        columns.read(tmp_path / "saved")


def test_d4rl_to_columns_and_back(tmp_path):
    converted = convert(d4rl_hopper(tmp_path / "hopper.hdf5"), tmp_path / "columns")
    d4rl.write(converted, tmp_path / "copy.hdf5")
    np.testing.assert_array_equal(d4rl.read(tmp_path / "copy.hdf5").observation, converted.observation)


def test_our_own_hdf5_says_how_it_was_made_and_is_taken_for_no_d4rl_data(tmp_path):
    recording = d4rl.read(d4rl_hopper(tmp_path / "own.hdf5"))
    made = replace(recording, origin={"how": "sampled from SAC", "score": np.float32(10.5), "learner": {"width": 8}})
    d4rl.write(made, tmp_path / "hopper-medium.hdf5")
    origin = d4rl.read(tmp_path / "hopper-medium.hdf5").origin
    assert (origin["how"], origin["score"], origin["learner"]) == ("sampled from SAC", 10.5, {"width": 8})
    assert "caution" not in origin
    assert "not D4RL scores" in d4rl.read(d4rl_hopper(tmp_path / "hopper-medium-v2.hdf5")).origin["caution"]
