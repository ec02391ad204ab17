"""Films: what was shown can be seen again, at its pace, in both kinds; and nothing half written stays."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

import policylab as lab
from policylab.environments.pendulum import Pendulum
from policylab.evaluation import film
from policylab.evaluation.frames import frames

SHOWN = [np.full((21, 31, 3), 20 * number, np.uint8) for number in range(8)]  # sides that are not even


def test_a_gif_shows_the_pictures_over_and_over(tmp_path):
    with Image.open(film.save_film(SHOWN, tmp_path / "new" / "a.gif", rate=20)) as image:
        assert (image.n_frames, image.size, image.info["duration"], image.info["loop"]) == (8, (31, 21), 50, 0)
        image.seek(3)
        assert abs(np.asarray(image.convert("RGB")).mean() - 60) < 2
    with Image.open(film.save_film(SHOWN, tmp_path / "fast.gif", rate=100)) as image:
        assert (image.n_frames, image.info["duration"]) == (4, 20), "every other picture for twice as long"


def test_an_mp4_shows_the_pictures_at_their_rate(tmp_path):
    with av.open(str(film.save_film(SHOWN, tmp_path / "a.mp4", rate=12.5))) as video:
        found = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in video.decode(video=0)]
    assert len(found) == 8
    assert found[1][0] == pytest.approx(0.08)
    assert found[0][1].shape == (20, 30, 3)
    np.testing.assert_allclose([picture.mean() for _, picture in found], 20 * np.arange(8), atol=3)


def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(lab.BadInput, match=r"end it in .gif or .mp4"):
        film.save_film(SHOWN, tmp_path / "a.avi", rate=1)
    monkeypatch.setattr(film, "_gif", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        film.save_film(SHOWN, tmp_path / "a.gif", rate=1)
    assert list(tmp_path.iterdir()) == []


def test_an_episode_is_shown_for_as_long_as_asked():
    environment = Pendulum()
    found = frames(lab.UniformRandom(environment.spec.action), environment, most=5, horizon=5)
    assert len(found) == 6
    assert any((first != second).any() for first, second in zip(found, found[1:], strict=False))
