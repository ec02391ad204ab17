"""The page of a comparison: every arm, every seed, every trial, and the verdicts in the words of the table."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import policylab as lab
from policylab.comparison import Comparison, Curve
from policylab.tuning import Tuned
from tests.reporting.pages import alone

NAME = "<script>x</script> $a_b$"


@pytest.fixture(scope="module")
def comparison():
    """Three arms on two tasks as `compare` leaves them behind, without training."""
    random = np.random.default_rng(0)
    scores = {name: 50 + 10 * shift + random.normal(size=(5, 2)) for shift, name in enumerate(("bc", NAME, "iql"))}
    trials = tuple({"settings": {"expectile": value}, "score": 70.5, "chosen": value == 0.9} for value in (0.7, 0.9))
    lost = (
        {"settings": {"batch_size": 32}, "score": 41.5, "chosen": True},
        {"settings": {"batch_size": 64}, "score": None, "chosen": False, "diverged": "loss stopped being <finite>"},
    )
    learners = {"bc": lab.BC(), NAME: lab.IQL(expectile=0.9), "iql": lab.IQL()}
    return Comparison(
        learners, {"bc": Tuned(lab.BC(), lost), NAME: Tuned(lab.IQL(expectile=0.9), trials), "iql": Tuned(lab.IQL(), trials)},
        ("first", "sec<ond"), ("score: 0 = random, 100 = expert",) * 2, ("v1",) * 2, True, ("mixed",) * 2, tuple(range(5)),
        (1_000_005, 1_000_006), 300, 8, "mode", 0.95, {name: {"score": table} for name, table in scores.items()},
        dict.fromkeys(learners, 1.5),
    )  # fmt: skip


def test_arms_differences_seeds_and_trials_are_all_there(comparison, tmp_path):
    page = lab.report(comparison, tmp_path / "page.html").read_text()
    alone(page)
    for name in comparison.learners:
        for value in comparison.scores[name].ravel():
            assert f"{value:.1f}" in page
    for row in comparison.differences:
        assert f"{row.verdict}, p = {row.adjusted_p:.2g} by Holm" in page
    assert page.count("expectile=0.7</td>") == page.count("expectile=0.9</td>") == 2
    assert "diverged: loss stopped being &lt;finite&gt;" in page
    assert page.count(">chosen<") == 3
    assert "1000005, 1000006" in page
    assert "<script" not in page
    assert "sec<ond" not in page
    assert "&lt;script&gt;x&lt;/script&gt; $a_b$" in page
    assert "lab.IQL(expectile=0.9)" in page
    assert page.count("<img") == 1
    assert "Learning curves" not in page
    assert "sec&lt;ond: bc" in page  # in the words for those who cannot see the picture


def test_an_untuned_comparison_on_one_task_of_plain_returns(comparison, tmp_path):
    one = dataclasses.replace(
        comparison, tasks=("first",), scales=("return, v1",), dynamics=("v1",), data=("mixed",), seeds=(0, 1), scored=False,
        tuning_seeds=(), tuned=dict.fromkeys(comparison.learners), level=0.9,
        metrics={name: {"score": rows["score"][:2, :1]} for name, rows in comparison.metrics.items()},
    )  # fmt: skip
    page = lab.report(one, tmp_path / "page.html").read_text()
    alone(page)
    assert "Nothing was tuned here" in page
    assert "90% interval" in page
    assert "Task by task" not in page
    assert "optimality" not in page
    assert "2 seeds leave wide intervals" in page


def test_learning_curves_stand_there_if_they_were_recorded(comparison, tmp_path):
    curve = Curve(np.asarray([100, 200, 300]), np.linspace(1, 15, 15).reshape(3, 5))
    none = Curve(np.zeros(0, int), np.zeros((0, 5)))
    curves = {"bc": {"first": curve}, "iql": {"first": none, "sec<ond": none}}
    page = lab.report(dataclasses.replace(comparison, curves=curves), tmp_path / "page.html").read_text()
    alone(page)
    assert "Learning curves on first: bc from 3.00 to 13.0" in page
    assert page.count("<img") == 2
