"""What the tests of tasks share."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from policylab.evaluation import frames
from policylab.evidence.plan import make_plan


@pytest.fixture
def small(monkeypatch):
    """A plan of few seeds and episodes, and few pictures of a rollout: drawing by software is slow."""

    def make(*given, **named):
        sizes = {"steps": 10, "selection": (0,), "fresh": (100, 101), "episodes": 2, "report_episodes": 2}
        return replace(make_plan(*given, **named), **sizes)

    monkeypatch.setattr("policylab.solving.make_plan", make)
    monkeypatch.setattr(frames, "frames", partial(frames.frames, most=4))
