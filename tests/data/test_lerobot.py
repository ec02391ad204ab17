import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policylab import spaces
from policylab.data import lerobot
from policylab.data.validation import validate
from policylab.errors import BadInput
from tests.data.builders import lerobot_folder, pendulum_steps


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_every_version_holds_the_same_recording(tmp_path, version):
    recording = validate(lerobot.read(lerobot_folder(tmp_path / "robot", version, episodes=5)))
    steps = pendulum_steps(5, 12)
    np.testing.assert_array_equal(recording.lengths, [12] * 5)
    np.testing.assert_array_equal(recording.observation.reshape(5, 13, 3)[:, :12], steps["observations"][:, :12])
    np.testing.assert_array_equal(recording.action.reshape(5, 12, 1), steps["actions"])
    np.testing.assert_array_equal(recording.reward.reshape(5, 12), steps["rewards"])
    assert recording.terminal.reshape(5, 12)[:, -1].all()
    np.testing.assert_array_equal(recording.extra["episode"], np.repeat(np.arange(5), 12))
    np.testing.assert_allclose(recording.extra["timestamp"][:12], np.arange(12) / 20)
    assert recording.spec.control_rate == 20.0
    assert recording.origin["robot"] == "pendulum"
    assert recording.origin["names"]["action"] == ["torque"]
    assert recording.origin["tasks"] == ["swing up 0"]


def test_an_episode_without_an_end_loses_the_step_whose_successor_was_not_stored(tmp_path):
    recording = validate(lerobot.read(lerobot_folder(tmp_path / "robot", done=False)))
    np.testing.assert_array_equal(recording.lengths, [11] * 4)
    assert not recording.terminal.any()
    assert recording.origin["steps_without_successor"] == 4
    assert "no next.done" in recording.origin["ends"]


def test_several_tasks_are_part_of_what_the_policy_sees(tmp_path):
    recording = validate(lerobot.read(lerobot_folder(tmp_path / "robot", tasks=2)))
    assert dict(recording.spec.observation.parts)["task"] == spaces.Discrete(2, ("swing up 0", "swing up 1"))
    np.testing.assert_array_equal(recording.observation["task"], np.repeat([0, 1, 0, 1], 13))


def add_column(path, name, feature, values):
    """Write one more feature into every data file of a v3.0 folder."""
    info = json.loads((path / "meta/info.json").read_text())
    info["features"][name] = feature
    (path / "meta/info.json").write_text(json.dumps(info))
    for file in sorted((path / "data").rglob("*.parquet")):
        table = pq.read_table(file)
        pq.write_table(table.append_column(name, values(table)), file)


def test_success_tells_ends_from_cuts_and_more_sensors_are_named_parts(tmp_path):
    path = lerobot_folder(tmp_path / "robot")
    flag = {"dtype": "bool", "shape": [1], "names": None}
    add_column(path, "next.success", flag, lambda table: pa.array([row % 24 == 11 for row in table["index"].to_pylist()]))
    add_column(
        path,
        "observation.effort",
        {"dtype": "float64", "shape": [2, 2], "names": None},
        lambda table: pa.array([[[row, 0.0], [0.0, 1.0]] for row in table["index"].to_pylist()]),
    )
    recording = validate(lerobot.read(path))
    np.testing.assert_array_equal(recording.lengths, [12, 11, 12, 11])
    np.testing.assert_array_equal(np.flatnonzero(recording.terminal), [11, 34])
    assert spaces.describe(recording.spec.observation) == "{state: Box(3), effort: Box(2, 2)}"
    np.testing.assert_array_equal(recording.observation["effort"][:3, 0, 0], [0, 1, 2])
    assert recording.extra["success"].sum() == 2


def test_cameras_are_remembered_but_not_read(tmp_path):
    recording = lerobot.read(lerobot_folder(tmp_path / "robot"))
    assert recording.origin["cameras"] == {"observation.images.top": "video"}
    place = recording.origin["files"]["2"]["observation.images.top"]
    assert place["file"].endswith("videos/observation.images.top/chunk-000/file-000.mp4")
    assert place["start"] == pytest.approx(2 * 12 / 20)
    older = lerobot.read(lerobot_folder(tmp_path / "older", "v2.1"))
    assert older.origin["files"]["2"]["observation.images.top"]["file"].endswith(
        "videos/chunk-000/observation.images.top/episode_000002.mp4"
    )


def rewrite(path, **changes):
    info = json.loads((path / "meta/info.json").read_text())
    (path / "meta/info.json").write_text(json.dumps(info | changes))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: rewrite(path, codebase_version="v1.6"), "version v1.6, but versions 2.0, 2.1 and 3.0 are read"),
        (lambda path: rewrite(path, total_episodes=9), "lists 4 episodes but meta/info.json promises 9"),
        (lambda path: (path / "data/chunk-000/file-001.parquet").unlink(), "file-001.parquet is missing"),
        (lambda path: (path / "data/chunk-000/file-000.parquet").write_bytes(b"PAR1"), "file-000.parquet is damaged"),
        (lambda path: rewrite(path, features={"action": {"dtype": "float32", "shape": [1]}}), "no numeric observation"),
        (lambda path: (path / "meta/info.json").write_text("{}"), "lacks 'codebase_version'"),
        (
            lambda path: pq.write_table(
                pq.read_table(path / "data/chunk-000/file-000.parquet").slice(3), path / "data/chunk-000/file-000.parquet"
            ),
            "episode 0 has 9 frames but the description promises 12",
        ),
        (
            lambda path: pq.write_table(
                pq.read_table(path / "data/chunk-000/file-000.parquet").drop(["action"]),
                path / "data/chunk-000/file-000.parquet",
            ),
            "file-000.parquet has no column action",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, spoil, words):
    spoil(path := lerobot_folder(tmp_path / "robot"))
    with pytest.raises(BadInput, match=words):
        lerobot.read(path)
