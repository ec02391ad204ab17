"""compare: equal terms, seeds of their own for tuning, no recompilation over a grid, statistics as computed independently."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import policylab as lab
from policylab import program, training
from policylab.comparing import compare
from policylab.environment import Environment, Step
from policylab.errors import BadInput, Diverged
from policylab.learner import Learner, Steps
from policylab.task import Task
from policylab.tuning import FIRST_SEED, Grid
from tests.small import continuous_recording

FORM = lab.Gaussian(width=8, depth=1)
IQL = lab.IQL(width=8, depth=1, batch_size=32, policy=FORM)
BC = lab.BC(batch_size=32, policy=FORM)


class Reach(Environment):
    """Observe three numbers, act minus the first two: 5 steps, each costs the squared distance from that."""

    @property
    def spec(self) -> lab.Spec:
        return replace(continuous_recording(1, 5).spec, environment="Reach-v1", horizon=5)

    def reset(self, key):
        observation = jax.random.normal(key, (3,))
        return (observation, jnp.zeros((), jnp.int32)), observation

    def step(self, state, action, key):
        observation, time = state
        reward = -jnp.sum((action + observation[:2]) ** 2)
        after = jax.random.normal(key, (3,))
        return (after, time + 1), Step(after, reward, jnp.asarray(False), time + 1 >= 5)


@dataclass(frozen=True)
class ReachTask(Task):
    scored: bool = True

    def environment(self, instance: int = 0) -> Reach:
        return Reach()

    @property
    def datasets(self) -> Mapping[str, str]:
        return {"noisy": "minus the state, with noise"}

    def dataset(self, name, *, steps=0, seed=0, progress=None):
        return continuous_recording(seed=len(self.name))

    @property
    def reference(self) -> Mapping[str, float]:
        return {"random": -20.0, "expert": 0.0} if self.scored else {}


TASK = ReachTask("reach", "Reach")


@pytest.fixture(scope="module")
def comparison():
    return compare({"bc": BC, "iql": IQL}, [TASK], seeds=4, steps=60, episodes=8)


def test_scores_are_those_of_the_last_policies_of_separate_runs(comparison):
    from policylab.evaluation.task_scores import REPORT_KEY, trials_of

    run = lab.train(IQL, lab.Dataset.of(TASK.dataset("noisy")), steps=60, seeds=4)
    trials = trials_of(run, TASK, episodes=8, key=REPORT_KEY)
    returns = trials.matrix("iql").mean(axis=1)
    np.testing.assert_allclose(comparison.scores["iql"][:, 0], 100 * (returns + 20) / 20, rtol=1e-5)


def test_differences_are_paired_t_tests(comparison):
    (row,) = comparison.differences
    bc, iql = (comparison.scores[name][:, 0] for name in ("bc", "iql"))
    test = scipy.stats.ttest_rel(iql, bc)
    assert (row.arm, row.reference) == ("iql", "bc")
    assert row.p == pytest.approx(test.pvalue)
    ends = test.confidence_interval(0.95)
    assert row.interval == pytest.approx((ends.low, ends.high))


def test_the_document_is_strict_json_and_never_says_d4rl(comparison):
    text = json.dumps(comparison.to_json(), allow_nan=False)
    document = json.loads(text)
    assert document["reference"] == "bc"
    assert document["checkpoint"] == "last"
    assert document["tasks"][0]["scale"] == "score: 0 = random, 100 = expert, Reach-v1"
    assert len(document["arms"]["iql"]["tasks"]["reach"]["values"]["score"]) == 4
    assert document["arms"]["iql"]["aggregates"]["iqm"]["method"] == "jackknife"
    assert "curve" not in document["arms"]["iql"]["tasks"]["reach"]
    assert "d4rl" not in (text + str(comparison)).lower()


def test_the_table_holds_every_arm_and_verdict(comparison):
    lines = str(comparison).splitlines()
    assert any(line.startswith("bc ") and line.endswith("reference") for line in lines)
    assert any(line.startswith("iql ") and "p = " in line for line in lines)


def test_the_same_arms_do_not_differ():
    same = compare({"one": BC, "two": BC}, [TASK], seeds=3, steps=20, episodes=3, every=10)
    assert same.curves["two"]["reach"].steps.tolist() == [10, 20]
    assert same.curves["two"]["reach"].values.shape == (2, 3)
    assert same.to_json()["arms"]["two"]["tasks"]["reach"]["curve"]["steps"] == [10, 20]
    assert same.differences[0].difference == 0.0
    assert same.differences[0].verdict == "undecided"
    assert same.improvement["two"].value == 0.5


def test_tuning_gives_equal_trials_on_seeds_of_its_own(monkeypatch):
    seen = []
    original = training.train

    def watched(learner, source, **options):
        seen.append((type(learner).__name__, float(learner.learning_rate), tuple(options["seeds"])))
        return original(learner, source, **options)

    monkeypatch.setattr("policylab.training.train", watched)
    monkeypatch.setattr("policylab.comparing.train", watched)
    rates = (1e-30, 3e-3)
    found = compare(
        {"bc": BC, "iql": IQL}, [TASK], seeds=[3, 7], steps=60, episodes=4, tune=Grid(learning_rate=rates), tuning_seeds=2
    )
    trials = [row for row in seen if min(row[2]) >= FIRST_SEED]
    assert sorted(trials) == sorted((name, rate, found.tuning_seeds) for name in ("BC", "IQL") for rate in rates)
    assert not set(found.tuning_seeds) & {3, 7}
    # A learning rate of nothing learns nothing: the other one must have been chosen, and reported.
    assert all(row.chosen == {"learning_rate": 3e-3} for row in found.tuned.values())
    assert [row for row in seen if row[2] == (3, 7)] == [("BC", 3e-3, (3, 7)), ("IQL", 3e-3, (3, 7))]


def test_a_grid_over_floats_compiles_nothing_again():
    options = {"seeds": 2, "steps": 20, "episodes": 2, "tuning_seeds": 2}
    compare({"one": BC, "two": IQL}, [TASK], **options)
    before = program._compiled_chunk._cache_size()
    compare({"one": BC, "two": IQL}, [TASK], tune=Grid(learning_rate=(1e-4, 3e-4, 1e-3)), **options)
    assert program._compiled_chunk._cache_size() == before


def test_a_diverging_trial_counts_but_cannot_be_chosen():
    found = compare(
        {"a": BC, "b": BC}, [TASK], seeds=2, steps=30, episodes=2, tune=Grid(learning_rate=(1e30, 1e-3)), tuning_seeds=2
    )
    rows = found.tuned["a"].trials
    assert [row["score"] is None for row in rows] == [True, False]
    assert "stopped being finite" in rows[0]["diverged"]
    json.dumps(found.to_json(), allow_nan=False)


def test_if_all_trials_diverge_it_says_so():
    with pytest.raises(Diverged, match="every tuning trial of a diverged"):
        compare(
            {"a": BC, "b": BC}, [TASK], seeds=2, steps=30, episodes=2, tune=Grid(learning_rate=(1e30, 1e29)), tuning_seeds=1
        )


def test_several_tasks_are_averaged_per_seed():
    tasks = [TASK, ReachTask("reach again", "Reach again")]
    found = compare({"bc": BC, "iql": IQL}, tasks, seeds=3, steps=20, episodes=3)
    assert found.scores["bc"].shape == (3, 2)
    mean = (found.scores["iql"] - found.scores["bc"]).mean()
    assert found.differences[0].difference == pytest.approx(mean)
    assert "mean score by task" in str(found)


def test_runs_are_kept_and_resumed(tmp_path):
    options = {"seeds": 2, "steps": 20, "episodes": 2, "out": tmp_path / "runs"}
    first = compare({"bc": BC, "iql": IQL}, [TASK], **options)
    assert lab.load_run(tmp_path / "runs" / "iql" / "reach").seeds == (0, 1)
    again = compare({"bc": BC, "iql": IQL}, [TASK], resume=True, **options)
    np.testing.assert_array_equal(first.scores["iql"], again.scores["iql"])


@lab.settings
class NoPolicy(Learner):
    """Learns nothing that acts."""

    rate: float = lab.setting(0.1, "of nothing")

    @property
    def needs(self):
        return {"steps": Steps(4)}

    def init(self, spec, *, key, given={}):
        return jnp.zeros(())

    def update(self, state, batch, *, clock, key):
        return state, {}

    def products(self, state):
        return {"critic": state}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arms": {"bc": BC}}, "at least one more"),
        ({"seeds": 1}, "at least 2"),
        ({"seeds": [1, 1]}, "different"),
        ({"episodes": 0}, "at least 1"),
        ({"tasks": []}, "none"),
        ({"tasks": [TASK, TASK]}, "each once"),
        ({"tasks": [TASK, ReachTask("raw", "no scale", scored=False)]}, "raw has no reference"),
        ({"data": "nowhere"}, "no dataset 'nowhere'"),
        ({"data": {"other": "noisy"}}, "no data for reach"),
        (
            {"data": {"reach": lab.Dataset.of(continuous_recording(2, 3))}, "arms": {"bc": BC, "none": NoPolicy()}},
            "learns no policy",
        ),
        ({"arms": {"bc": BC, "iql": replace(IQL, expectile=2.0)}}, "below 1"),
        ({"tune": Grid(expectile=(0.7, 0.9))}, "bc has no setting expectile"),
        ({"tune": {"bc": Grid(learning_rate=(1e-3,))}}, "a grid for each arm"),
        ({"tune": Grid(learning_rate=(1e-3, -1.0))}, "above 0"),
        ({"tune": Grid(learning_rate=(1e-3,)), "tuning_seeds": 0}, "at least 1"),
    ],
)
def test_bad_terms_are_refused_before_anything_is_trained(change, words, monkeypatch):
    monkeypatch.setattr("policylab.comparing.train", None)
    monkeypatch.setattr("policylab.training.train", None)
    terms = {"arms": {"bc": BC, "iql": IQL}, "tasks": [TASK], "seeds": 2, "steps": 10, "episodes": 2} | change
    with pytest.raises(BadInput, match=words):
        compare(terms.pop("arms"), terms.pop("tasks"), **terms)


def test_a_grid_lists_all_combinations():
    grid = Grid(learning_rate=(1e-4, 3e-4), width=(8, 16, 32))
    assert len(grid) == 6
    assert grid.trials()[1] == {"learning_rate": 1e-4, "width": 16}
    with pytest.raises(BadInput, match="no values for width"):
        Grid(width=())
