"""The pictures of a LeRobot recording, decoded only when they are asked for."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from policylab.data.packages import package
from policylab.data.recording import Recording
from policylab.errors import BadInput

Decoder = Callable[[Path, np.ndarray], np.ndarray]


def frames(
    recording: Recording, episode: int, camera: str, decoder: Decoder | None = None
) -> UInt8[np.ndarray, "step height width 3"]:
    """What `camera` saw before each action of one episode of the recording.

    `decoder(file, seconds) -> frames` reads a video at these times (seconds from the start of the file); by default PyAV.
    Raises `BadInput` if there is no such camera or episode, the file is missing, or PyAV is not installed.
    """
    cameras = recording.origin.get("cameras") or {}
    if camera not in cameras:
        raise BadInput(f"{recording.name or 'the data'} has no camera {camera!r}: it has {', '.join(cameras) or 'none'}")
    if not 0 <= episode < recording.episodes:
        raise BadInput(f"{recording.name or 'the data'} has episodes 0 to {recording.episodes - 1}, not {episode}")
    start = int(recording.starts[episode])
    steps = slice(start, start + int(recording.lengths[episode]))
    number = int(recording.extra["episode"][start])
    place = recording.origin["files"][str(number)][camera]
    file = Path(place["file"])
    if not file.is_file():
        raise BadInput(f"{file} is missing: download the videos of the dataset too")
    seconds = np.asarray(recording.extra["timestamp"][steps], np.float64)
    if cameras[camera] == "image":
        return _stored(file, camera, number, len(seconds))
    return (decoder or decode)(file, seconds + place["start"])


def decode(file: Path, seconds: Float[np.ndarray, " step"]) -> UInt8[np.ndarray, "step height width 3"]:
    """The frames of a video shown at these times, increasing; each the one nearest in time. Needs PyAV."""
    av = package("av", "decoding videos")
    with av.open(str(file)) as video:
        stream = video.streams.video[0]
        video.seek(int(seconds[0] / stream.time_base), stream=stream, backward=True)
        return _nearest(((frame.time, frame.to_ndarray(format="rgb24")) for frame in video.decode(stream)), seconds, file)


def _nearest(shown: Any, seconds: Sequence[float] | np.ndarray, file: Path) -> np.ndarray:
    """Of (time, picture) pairs in order of time the pictures nearest to `seconds`."""
    chosen: list[np.ndarray] = []
    previous: tuple[float, np.ndarray] | None = None
    for time, picture in shown:
        while len(chosen) < len(seconds) and previous is not None and seconds[len(chosen)] < (previous[0] + time) / 2:
            chosen.append(previous[1])
        if len(chosen) == len(seconds):
            return np.stack(chosen)
        previous = time, picture
    if previous is None:
        raise BadInput(f"{file} shows nothing at {seconds[0]:g} s: it is shorter than the dataset says; download it again")
    return np.stack([*chosen, *[previous[1]] * (len(seconds) - len(chosen))])


def _stored(file: Path, camera: str, episode: int, count: int) -> np.ndarray:
    """Pictures that lie in the table itself as encoded bytes."""
    parquet, image = package("pyarrow.parquet", "reading LeRobot folders"), package("PIL.Image", "decoding pictures")
    table = parquet.read_table(file, columns=[camera, "frame_index"], filters=[("episode_index", "=", episode)]).sort_by(
        "frame_index"
    )
    rows = table.column(camera).to_pylist()[:count]
    return np.stack([np.asarray(image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in rows])
