"""Curves say what they are drawn over, and decades can be equally wide."""

from __future__ import annotations

import matplotlib.figure
import numpy as np
import pytest

from policylab.reporting.figures import learning_curves

CURVES = {"a": {"steps": [10, 100, 1_000], "values": np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]])}}


@pytest.mark.parametrize(
    ("options", "scale", "across"), [({}, "linear", "updates"), ({"across": "days", "logarithmic": True}, "log", "days")]
)
def test_what_curves_are_drawn_over(options, scale, across, monkeypatch):
    drawn = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda figure, *a, **k: (drawn.append(figure), save(figure, *a, **k))
    )
    assert learning_curves(CURVES, "score", **options).startswith(b"\x89PNG")
    axes = drawn[0].axes[0]
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == (scale, across, "score")
