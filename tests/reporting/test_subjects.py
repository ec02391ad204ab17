"""`report`: what pages are of, and what no page can be made of."""

from __future__ import annotations

import pytest

import policylab as lab
from policylab.policies.uniform import UniformRandom
from tests.reporting.test_trained import run
from tests.small import continuous_recording


def test_a_run_has_a_page_of_its_own_and_what_it_learned_from_may_be_told(tmp_path):
    found = run()
    bare = lab.report(found, tmp_path / "bare.html").read_text()
    assert "is exactly 0 in every seed are left out" in bare
    told = lab.report(found, continuous_recording(2, 5), tmp_path / "told.html").read_text()
    assert "2 episodes, 10 steps" in told
    assert "is exactly 0 in every seed are left out" not in told  # it is known now that the learner reports all metrics always


def test_what_has_no_page_is_said(tmp_path):
    policy = UniformRandom(lab.Box((1,)))
    with pytest.raises(lab.BadInput, match="a page needs a place"):
        lab.report(policy, tmp_path / "page.html")
    with pytest.raises(lab.BadInput, match="give a task or an environment to play in"):
        lab.report(policy, continuous_recording(2, 5), tmp_path / "page.html")
    with pytest.raises(lab.BadInput, match="episodes is of episodes to play"):
        lab.report(run(), tmp_path / "page.html", episodes=3)
