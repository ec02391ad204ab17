"""The loop: same bits for any chunking, across kill and resume; no recompilation; clear stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab import program
from policylab.learners.offline.iql import IQL
from policylab.policies.gaussian import Gaussian
from tests.small import continuous_dataset, continuous_recording, discrete_recording

SMALL = IQL(width=8, depth=1, batch_size=16, policy=Gaussian(width=8, depth=1))


def same_bits(a, b) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: bool(np.array_equal(np.asarray(x), np.asarray(y))), a, b))


@pytest.fixture(scope="module")
def dataset():
    return continuous_dataset()


@pytest.fixture(scope="module")
def reference(dataset):
    return lab.train(SMALL, dataset, steps=60, seeds=2)


def test_same_seed_gives_the_same_bits_whatever_the_chunks(dataset, reference):
    again = lab.train(
        SMALL, dataset, steps=60, seeds=2, checkpoint_every=7, every=11, evaluate=lambda products, *, key: {"one": 1.0}
    )
    assert same_bits(again.state, reference.state)


def test_seeds_do_not_influence_each_other(dataset, reference):
    alone = lab.train(SMALL, dataset, steps=60, seeds=[1])
    together, single = reference.products(seed=1)["policy"], alone.products(seed=1)["policy"]
    # Batched and single matrix products may round differently in the last bit, nothing more.
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(single), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert not same_bits(reference.products(seed=0)["policy"], reference.products(seed=1)["policy"])


def test_another_seed_learning_rate_dataset_or_length_compiles_nothing(dataset, reference):
    before = program._compiled_chunk._cache_size()
    other = lab.Dataset.of(continuous_recording(episodes=30, seed=3))
    lab.train(SMALL, dataset, steps=60, seeds=[7, 9])
    lab.train(
        IQL(width=8, depth=1, batch_size=16, policy=Gaussian(width=8, depth=1), learning_rate=1e-3, expectile=0.9),
        dataset,
        steps=33,
        seeds=2,
    )
    lab.train(SMALL, other, steps=20, seeds=2)
    assert program._compiled_chunk._cache_size() == before


def test_resume_equals_the_uninterrupted_run_to_the_bit(dataset, reference, tmp_path):
    class Stop(Exception):
        pass

    def stop_late(row):
        if row["step"] > 40:
            raise Stop

    with pytest.raises(Stop):
        lab.train(SMALL, dataset, steps=60, seeds=2, out=tmp_path / "run", checkpoint_every=10, trackers=[stop_late])
    resumed = lab.train(SMALL, dataset, steps=60, seeds=2, out=tmp_path / "run", checkpoint_every=10, resume=True)
    assert same_bits(resumed.state, reference.state)
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 60
    assert same_bits(lab.load_run(tmp_path / "run").state, reference.state)


_CHILD = """
import sys
import policylab as lab
from tests.test_training import SMALL
from tests.small import continuous_dataset
lab.train(SMALL, continuous_dataset(), steps=4000, seeds=2, out=sys.argv[1], checkpoint_every=50, resume=True)
"""


def test_kill_at_any_moment_then_resume_gives_the_same_bits(dataset, tmp_path):
    reference = lab.train(SMALL, dataset, steps=4000, seeds=2)
    folder = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    more = int(os.environ.get("POLICYLAB_KILLS", "0"))  # that many random moments in place of three fixed ones, by hand
    for share in sorted(np.random.default_rng().uniform(0.0, 0.9, more)) if more else (0.05, 0.35, 0.7):
        child = subprocess.Popen([sys.executable, "-c", _CHILD, str(folder)], env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while child.poll() is None and time.monotonic() < deadline:
            metrics = folder / "metrics.jsonl"
            rows = metrics.read_text().count("\n") if metrics.exists() else 0
            if rows >= 100 * share:
                break
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert (folder / "run.json").exists()
    resumed = lab.train(SMALL, dataset, steps=4000, seeds=2, out=folder, checkpoint_every=50, resume=True)
    assert same_bits(resumed.state, reference.state)


def test_a_run_goes_on_from_its_state_on_another_source(dataset, reference):
    more = lab.train(reference, continuous_dataset(seed=5), steps=10)
    assert more.seeds == (0, 1)
    assert more.earlier == (reference,)
    assert not same_bits(more.state, reference.state)


def test_stages_hand_their_products_on(dataset):
    @lab.settings
    class Copy(lab.Learner):
        product: str = "policy"
        takes: ClassVar[tuple[str, ...]] = ("start", "critic")

        @property
        def needs(self):
            return {"transitions": lab.Steps(4)}

        def init(self, spec, *, key, given={}):
            return dict(given)

        def update(self, state, batch, *, clock, key):
            return state, {"zero": jnp.zeros(())}

        def products(self, state):
            return {self.product: state["start" if self.product == "policy" else self.product]}

    stages = [lab.Stage(SMALL, dataset, 5), lab.Stage(Copy(), dataset, 5), lab.Stage(Copy(product="critic"), dataset, 5)]
    run = lab.train(stages, seeds=2)
    first, second = run.earlier[0].products(), run.earlier[1].products()
    assert same_bits(second["policy"], first["policy"])
    assert same_bits(run.products()["critic"], first["critic"]), "what the second stage did not make comes from the first"


def test_a_run_ends_where_it_is_told_and_stays_ended(dataset, tmp_path):
    asked = []
    enough = lambda row: asked.append(row["step"]) or row["step"] >= 7
    for resume in (False, True):
        run = lab.train(SMALL, dataset, steps=40, until=enough, out=tmp_path / "run", resume=resume)
        assert (run.step, run.metrics[-1]["step"]) == (7, 7)
    assert asked == [1, 2, 3, 4, 5, 6, 7, 7]
    assert lab.load_run(tmp_path / "run").step == 7


def test_a_learner_of_its_own_doing_does_not_learn_from_data(dataset):
    with pytest.raises(lab.BadInput, match=r"A2C learns only from what its policy does now.*lab.Rollout"):
        lab.train(lab.A2C(), dataset, steps=1)


def test_divergence_names_metric_seed_and_step(dataset):
    @lab.settings
    class Explodes(lab.Learner):
        at: int = 13

        @property
        def needs(self):
            return {"transitions": lab.Steps(4)}

        def init(self, spec, *, key, given={}):
            return jax.random.uniform(key)

        def update(self, state, batch, *, clock, key):
            broken = (clock.step == self.at) & (state > 0)
            return state, {"loss": jnp.where(broken, jnp.nan, 1.0)}

        def products(self, state):
            return {}

    with pytest.raises(lab.Diverged, match=r"loss stopped being finite at step 13 with seed 4"):
        lab.train(Explodes(), dataset, steps=50, seeds=[4])


def test_periodic_metrics_average_over_the_steps_where_they_exist(dataset):
    @lab.settings
    class Periodic(lab.Learner):
        @property
        def needs(self):
            return {"transitions": lab.Steps(4)}

        def init(self, spec, *, key, given={}):
            return jnp.zeros(())

        def update(self, state, batch, *, clock, key):
            due = clock.step % 3 == 0
            return state, {"rare": lab.Sometimes(jnp.where(due, 7.0, jnp.nan), due)}

        def products(self, state):
            return {}

    run = lab.train(Periodic(), dataset, steps=300, seeds=1)
    assert run.metrics[0]["metrics"]["rare"] == [7.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"seeds": []}, "seeds is"),
        ({"seeds": [1, 1]}, "seeds is"),
        ({"given": {"teacher": 1}}, "takes no 'teacher'"),
        ({"learner": IQL(expectile=1.5)}, "IQL.expectile is 1.5"),
        ({"learner": IQL(batch_size=0)}, "at least 1"),
        ({"resume": True}, "resume needs the folder"),
    ],
)
def test_bad_arguments_are_one_sentence(dataset, change, words):
    options = {"learner": SMALL, "source": dataset, "steps": 5, **change}
    with pytest.raises(lab.BadInput, match=words):
        lab.train(options.pop("learner"), options.pop("source"), **options)


def test_a_learner_that_does_not_fit_the_data_is_refused():
    with pytest.raises(lab.BadInput, match="learns continuous actions but these are"):
        lab.train(SMALL, lab.Dataset.of(discrete_recording()), steps=5)
    with pytest.raises(lab.BadInput, match="needs rewards and these data have none"):
        lab.train(SMALL, lab.Dataset.of(continuous_recording(reward=False)), steps=5)


def test_a_folder_with_another_run_is_left_alone(dataset, tmp_path):
    lab.train(SMALL, dataset, steps=5, out=tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(lab.BadInput, match="already holds a run"):
        lab.train(SMALL, dataset, steps=5, out=tmp_path)
    with pytest.raises(lab.BadInput, match="other updates"):
        lab.train(SMALL, dataset, steps=6, out=tmp_path, resume=True)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_a_saved_policy_acts_as_the_one_that_was_saved(reference, tmp_path):
    path = reference.save_policy(tmp_path / "policy.safetensors", seed=1)
    loaded = lab.load_policy(path)
    observation, key = jnp.ones(3), jax.random.key(0)
    expected, _ = reference.policy(seed=1).act(observation, None, key=key)
    action, _ = loaded.act(observation, None, key=key)
    np.testing.assert_array_equal(action, expected)
    with pytest.raises(lab.BadInput, match="observations of"):
        lab.load_policy(path, spec=lab.Spec(lab.Box((9,)), lab.Box((2,), -2.0, 2.0)))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(lab.BadInput, match="damaged"):
        lab.load_policy(path)
