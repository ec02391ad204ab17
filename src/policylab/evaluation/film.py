"""Films: the pictures of an episode, one after the other, as a GIF or an MP4."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from policylab.data.packages import package
from policylab.errors import BadInput

KINDS = (".gif", ".mp4")
_FASTEST_GIF = 50.0  # frames per second: browsers show anything faster at a tenth of its speed
_EVEN = 2  # MP4's colours are stored for squares of so many pixels


def require_kind(path: str | Path) -> Path:
    """The path, if its ending names a kind of film. Raises `BadInput` otherwise."""
    path = Path(path)
    if path.suffix.lower() not in KINDS:
        raise BadInput(f"{path.name} ends in no kind of film: end it in {' or '.join(KINDS)}")
    return path


def save_film(frames: Sequence[UInt8[np.ndarray, "height width 3"]], path: str | Path, *, rate: float) -> Path:
    """Write `frames`, shown `rate` a second, whole or not at all. A GIF is played over and over and at 50 frames a second at most.

    Raises `BadInput` for an ending that is not .gif or .mp4, or where the package that writes it is missing.
    """
    path = require_kind(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        (_gif if path.suffix.lower() == ".gif" else _mp4)(frames, part, rate)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _gif(frames: Sequence[np.ndarray], path: Path, rate: float) -> None:
    image = package("PIL.Image", "writing a GIF")
    step = max(1, int(np.ceil(rate / _FASTEST_GIF)))  # what is too fast to be shown is left out, so that time keeps its pace
    shown = [image.fromarray(frame) for frame in frames[::step]]
    shown[0].save(path, save_all=True, append_images=shown[1:], duration=1000 * step / rate, loop=0, optimize=False)


def _mp4(frames: Sequence[np.ndarray], path: Path, rate: float) -> None:
    av = package("av", "writing an MP4")
    from fractions import Fraction

    height, width = (side - side % _EVEN for side in frames[0].shape[:2])
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            for packet in stream.encode(picture):
                video.mux(packet)
        for packet in stream.encode():
            video.mux(packet)
