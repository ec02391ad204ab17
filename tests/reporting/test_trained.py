"""The page of a run: every seed's numbers, gaps where nothing was reported, and a sentence for whatever is missing."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.examples import example_spec
from policylab.learner import Learner, Steps
from policylab.policies.uniform import UniformRandom
from policylab.reporting.run_curves import metric_curves
from policylab.reporting.trained import Background, report_training
from policylab.runs import Run
from tests.reporting.pages import alone


@lab.settings
class Still(Learner):
    """Learns nothing: its policy is random, and with `world` it has none."""

    title = "Still"
    rate: float = lab.setting(0.5, "how fast it stands <still>")
    world: bool = lab.setting(False, "offers no policy")

    @property
    def needs(self):
        return {"batch": Steps(1)}

    def init(self, spec, *, key, given={}):
        return jnp.zeros(2)

    def update(self, state, batch, *, clock, key):
        return state, {}

    def products(self, state):
        return {"world": state} if self.world else {"policy": UniformRandom(example_spec().action)}


def run(seeds=3, *, step=40, points=4, evaluated=True, **settings):
    """A run of Still as training leaves it behind, without training."""
    random = np.random.default_rng(seeds)
    rows = []
    for point in range(1, points + 1):
        row = {"step": step * point // points, "seconds": 0.5 * point}
        row["metrics"] = {"loss": random.uniform(size=seeds).tolist(), "<b>rare</b> $x": [3.0 * (point == 3)] * seeds}
        if evaluated:
            row["evaluation"] = {"return": (100 * random.uniform(size=seeds)).tolist()}
            row["evaluation"]["score"] = row["evaluation"]["return"]
        rows.append(row)
    return Run(Still(**settings), example_spec(), tuple(range(seeds)), jnp.zeros((seeds, 2)), step=step, total=40, metrics=rows)


def page_of(subject, tmp_path, **known):
    page = report_training(subject, tmp_path / "page.html", Background(**known)).read_text()
    alone(page)
    return page


def test_every_seed_is_told_with_the_interval_the_settings_and_how_to_repeat_it(tmp_path):
    found = run(rate=0.25)
    page = page_of(found, tmp_path, learned_from="a <b>maze</b>", repeat="policylab train still", unit="score (of <i>mine</i>)")
    for value in found.metrics[-1]["evaluation"]["return"]:
        assert f"{value:.1f}" in page
    assert f"{np.mean(found.metrics[-1]['evaluation']['return']):.1f}" in page
    assert "Still on a &lt;b&gt;maze&lt;/b&gt;: return" in page
    assert "policylab train still" in page
    graded = run()
    graded.metrics[-1]["evaluation"]["score"] = [50.5, 60.5, 70.5]
    told = page_of(graded, tmp_path, unit="score (0 = random, 100 = expert)", place="a task", learned_from="data")
    assert "Still on data, played on a task: score 60.5 (0 = random, 100 = expert), 95% interval 35.7 to 85.3, 3 seeds." in told
    assert "on the task&#x27;s scale: 0 = random, 100 = expert." in told
    assert "how fast it stands &lt;still&gt;" in page
    assert "0.25" in page
    assert page.count("<img") == 2
    assert "<b>" not in page
    assert "<i>" not in page
    assert ">score<" not in page  # it is the return by another name


def test_many_seeds_stand_below_each_other(tmp_path):
    found = run(12)
    page = page_of(found, tmp_path)
    assert "every seed" in page
    assert all(f"{value:.1f}" in page or f"{value:.2f}" in page for value in found.metrics[-1]["evaluation"]["return"])


def test_what_no_update_reported_is_a_gap_and_no_zero():
    known, unsure = metric_curves(run(), {"<b>rare</b> $x"})
    assert unsure == ()
    values = known["<b>rare</b> $x"].values
    assert np.isnan(values[[0, 1, 3]]).all()
    assert (values[2] == 3.0).all()
    guessed, unsure = metric_curves(run(), None)
    assert unsure == ("<b>rare</b> $x",)
    np.testing.assert_array_equal(guessed[unsure[0]].values, values)
    assert np.isfinite(known["loss"].values).all()
    never = dataclasses.replace(run(), metrics=run().metrics[:2])
    assert set(metric_curves(never, {"<b>rare</b> $x"})[0]) == {"loss"}
    assert metric_curves(never, ())[0]["<b>rare</b> $x"].values.sum() == 0.0  # zero is what was measured


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (run(1), "One seed says nothing about training again"),
        (run(evaluated=False), "Its policies were not evaluated at the end"),
        (run(world=True, evaluated=False), "It learns no policy, so that nothing was played; it offers world"),
        (run(step=20, points=1), "The run stands at 20 of 40 updates"),
        (dataclasses.replace(run(), stage=1), "stage 2 of several; those before it are in folders of their own"),
        (dataclasses.replace(run(), metrics=[]), "Its policies were not evaluated at the end"),
    ],
)
def test_what_is_missing_is_said(found, said, tmp_path):
    page = page_of(found, tmp_path, rare=("<b>rare</b> $x",))
    assert said in page
    assert "of every seed" not in page or len(found.seeds) > 1
    assert "nan" not in page.replace("nan)", "")


def test_resumed_simulators_and_silent_metrics_are_told_first(tmp_path):
    found = run(points=2)
    found.metrics[1]["fresh_episodes"] = True
    page = page_of(found, tmp_path, rare=("<b>rare</b> $x",))
    assert "resumed before update 40 with simulators that cannot be stored" in page
    assert "No update reported &lt;b&gt;rare&lt;/b&gt; $x" in page
    assert page.index("What to know first") < page.index("What they earn")


def test_all_stages_of_a_run_are_told(tmp_path):
    later = dataclasses.replace(run(rate=0.125), stage=1, earlier=(run(rate=0.375),))
    page = page_of(later, tmp_path)
    assert "Stage 1: Still" in page
    assert "Stage 2: Still" in page
    assert "0.125" in page
    assert "0.375" in page
