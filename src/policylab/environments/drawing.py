"""A canvas in world coordinates, for pictures of environments that have no renderer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from policylab.errors import BadInput

AGENT, GOAL, DANGER, WALL, START, FLOOR = "#2f5d9b", "#7fb98a", "#c86d5a", "#4f5358", "#dbe6f4", "#f1f1ef"
_SMOOTH = 3  # drawn so many times larger, then shrunk, which smooths the edges

Point = tuple[float, float]


class Canvas:
    """Draws into the rectangle from (left, bottom) to (right, top), y upwards, on a white ground; lengths in its units.

    Raises `BadInput` where Pillow is not installed.
    """

    def __init__(self, left: float, bottom: float, right: float, top: float, *, width: int = 320) -> None:
        try:
            from PIL import Image, ImageDraw
        except ImportError as error:
            raise BadInput('pictures need Pillow, which is not installed: pip install "policylab[report]"') from error
        self.left, self.top = left, top
        self.scale = width * _SMOOTH / (right - left)
        self.size = (width, round(width * (top - bottom) / (right - left)))
        self.image = Image.new("RGB", (self.size[0] * _SMOOTH, self.size[1] * _SMOOTH), "white")
        self.draw: Any = ImageDraw.Draw(self.image)

    def line(self, points: Sequence[Point], colour: str, width: float) -> None:
        """A line through the points, with round joints and ends."""
        self.draw.line(
            [self._at(point) for point in points], fill=colour, width=max(1, round(width * self.scale)), joint="curve"
        )
        for point in (points[0], points[-1]):
            self.circle(point, width / 2, colour)

    def circle(self, centre: Point, radius: float, colour: str) -> None:
        """A filled disc."""
        x, y = self._at(centre)
        reach = radius * self.scale
        self.draw.ellipse([x - reach, y - reach, x + reach, y + reach], fill=colour)

    def rectangle(self, corner: Point, opposite: Point, colour: str) -> None:
        """A filled rectangle."""
        (left, bottom), (right, top) = self._at(corner), self._at(opposite)
        self.draw.rectangle([min(left, right), min(bottom, top), max(left, right), max(bottom, top)], fill=colour)

    def pixels(self) -> UInt8[np.ndarray, "height width 3"]:
        """The picture."""
        return np.asarray(self.image.resize(self.size, 1))

    def _at(self, point: Point) -> Point:
        return (point[0] - self.left) * self.scale, (self.top - point[1]) * self.scale
