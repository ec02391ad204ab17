import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from policylab.data import lerobot, pictures
from policylab.errors import BadInput
from policylab.evaluation.film import save_film
from tests.data.builders import lerobot_folder
from tests.data.test_lerobot import add_column

CAMERA = "observation.images.top"


def with_video(tmp_path, version="v3.0"):
    recording = lerobot.read(lerobot_folder(tmp_path / "robot", version))
    for places in recording.origin["files"].values():
        Path(places[CAMERA]["file"]).parent.mkdir(parents=True, exist_ok=True)
        Path(places[CAMERA]["file"]).touch()
    return recording


def test_the_decoder_is_asked_for_the_seconds_of_that_episode_in_its_file(tmp_path):
    asked = []

    def decoder(file, seconds):
        asked.append((file.name, seconds))
        return np.zeros((len(seconds), 2, 2, 3), np.uint8)

    recording = with_video(tmp_path)
    assert pictures.frames(recording, 2, CAMERA, decoder).shape == (12, 2, 2, 3)
    assert asked[0][0] == "file-000.mp4"
    np.testing.assert_allclose(asked[0][1], (24 + np.arange(12)) / 20, atol=1e-6)
    # After a selection the first episode is still the one that it was in the dataset.
    pictures.frames(recording.select(np.array([3])), 0, CAMERA, decoder)
    np.testing.assert_allclose(asked[1][1], (36 + np.arange(12)) / 20, atol=1e-6)


def test_the_nearest_frame_is_shown():
    shown = [(t / 10, np.full((1, 1, 3), t, np.uint8)) for t in range(10)]
    chosen = pictures._nearest(iter(shown), np.array([0.0, 0.14, 0.16, 0.31, 5.0]), Path("x.mp4"))
    np.testing.assert_array_equal(chosen[:, 0, 0, 0], [0, 1, 2, 3, 9])
    with pytest.raises(BadInput, match="shows nothing"):
        pictures._nearest(iter([]), np.array([0.0]), Path("x.mp4"))


def test_a_video_is_decoded_at_the_times_of_the_steps(tmp_path):
    recording = with_video(tmp_path)
    file = Path(recording.origin["files"]["2"][CAMERA]["file"])
    seen = [np.full((32, 48, 3), 5 * number, np.uint8) for number in range(46)]  # four episodes in one file, 20 frames a second
    save_film(seen, file, rate=20)
    shown = pictures.frames(recording, 2, CAMERA)
    assert shown.shape == (12, 32, 48, 3)
    np.testing.assert_allclose(shown.mean(axis=(1, 2, 3)), 5 * np.arange(24, 36), atol=2)


def test_a_missing_decoder_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BadInput, match=r'decoding videos needs av, which is not installed: pip install "policylab\[video\]"'):
        pictures.frames(with_video(tmp_path), 0, CAMERA)


def test_pictures_in_the_table_are_decoded(tmp_path):
    def encoded(table):
        rows = []
        for row in table["index"].to_pylist():
            Image.fromarray(np.full((4, 6, 3), row, np.uint8)).save(buffer := io.BytesIO(), format="PNG")
            rows.append({"bytes": buffer.getvalue(), "path": None})
        return pa.array(rows)

    path = lerobot_folder(tmp_path / "robot", video=False)
    add_column(path, "observation.image", {"dtype": "image", "shape": [4, 6, 3], "names": None}, encoded)
    recording = lerobot.read(path)
    seen = pictures.frames(recording, 1, "observation.image")
    assert seen.shape == (12, 4, 6, 3)
    np.testing.assert_array_equal(seen[:, 0, 0, 0], np.arange(12, 24))


def test_what_cannot_be_shown_is_said(tmp_path):
    recording = lerobot.read(lerobot_folder(tmp_path / "robot"))
    with pytest.raises(BadInput, match=r"has no camera 'front': it has observation.images.top"):
        pictures.frames(recording, 0, "front")
    with pytest.raises(BadInput, match="episodes 0 to 3, not 4"):
        pictures.frames(recording, 4, CAMERA)
    with pytest.raises(BadInput, match=r"file-000.mp4 is missing"):
        pictures.frames(recording, 0, CAMERA)
