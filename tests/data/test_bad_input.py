"""Every kind of bad data is one sentence with the place, the value and the mend; nothing is written, nothing is lost."""

from dataclasses import replace

import numpy as np
import pytest

from policylab.data.loading import convert, load, save
from policylab.errors import BadInput
from tests.data.bad_input import KINDS
from tests.data.builders import d4rl_hopper


def files(path):
    return {str(file.relative_to(path)): file.stat().st_mtime_ns for file in path.rglob("*")}


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_one_sentence_and_leaves_nothing(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    make, options, words = KINDS[kind]
    made = make(tmp_path)
    source, columns = made if isinstance(made, tuple) else (made, None)
    options = options | ({"columns": columns} if columns else {})
    before = files(tmp_path)
    for attempt in (lambda: load(source, **options), lambda: convert(source, tmp_path / "target", **options)):
        with pytest.raises(BadInput) as error:
            attempt()
        message = str(error.value)
        assert all(word in message for word in words), message
        assert "\n" not in message
    assert files(tmp_path) == before


@pytest.mark.parametrize("format", ["columns", "minari", "minari-arrow", "minari-parquet", "d4rl", "npz"])
def test_what_is_not_sound_is_never_saved(tmp_path, format):
    recording = load(d4rl_hopper(tmp_path / "hopper.hdf5"))
    reward = recording.reward.copy()
    reward[3] = np.nan
    before = files(tmp_path)
    with pytest.raises(BadInput, match="reward at row 3"):
        save(replace(recording, reward=reward), tmp_path / "copy", format)
    assert files(tmp_path) == before


@pytest.mark.parametrize("format", ["columns", "minari", "d4rl", "npz"])
def test_nothing_that_exists_is_overwritten(tmp_path, format):
    recording = load(d4rl_hopper(tmp_path / "hopper.hdf5"))
    (tmp_path / "copy").write_text("precious")
    with pytest.raises(BadInput, match="exists already"):
        save(recording, tmp_path / "copy", format)
    assert (tmp_path / "copy").read_text() == "precious"


@pytest.mark.parametrize(
    ("path", "format", "words"),
    [
        ("copy.xyz", None, "its ending names no format"),
        ("copy", "tfrecord", "unknown format 'tfrecord'"),
        ("my data", "minari", "'my data-v0' is no Minari id"),
    ],
)
def test_saving_says_what_it_cannot_do(tmp_path, path, format, words):
    recording = load(d4rl_hopper(tmp_path / "hopper.hdf5"))
    with pytest.raises(BadInput, match=words):
        save(recording, tmp_path / path, format)
    assert list(files(tmp_path)) == ["hopper.hdf5"]


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    recording = load(d4rl_hopper(tmp_path / "hopper.hdf5"))
    monkeypatch.setattr("policylab.data.minari_storage._store", lambda *arguments: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save(recording, tmp_path / "copy-v0", "minari")
    assert list(files(tmp_path)) == ["hopper.hdf5"]


def test_data_that_do_not_fit_into_memory_are_refused_before_reading(tmp_path, monkeypatch):
    path = d4rl_hopper(tmp_path / "hopper.hdf5")
    monkeypatch.setattr("policylab.data.loading._free_memory", lambda: 10_000)
    with pytest.raises(BadInput, match=r"holds 0.0 GB .*convert\(source, target\)"):
        load(path)
    convert(path, tmp_path / "target")
    assert load(tmp_path / "target").steps == 204
