"""Datasets of a learner on its way: what they hold, where they stop, and that nothing is learned twice."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environments.pendulum import Pendulum
from policylab.environments.time_limit import TimeLimit
from policylab.learners.online.sac import SAC
from policylab.sources.kept import kept
from policylab.tasks import trained
from policylab.tasks.trained import Trained

HORIZON, WARMUP = 25, 40


@dataclass(frozen=True)
class Swing(Trained):
    """A pendulum for 25 steps, on a scale where every policy is better than a third."""

    learner: SAC = field(default_factory=lambda: SAC(width=8, depth=1, batch_size=16))
    every: int = 30
    low: float = -1e6

    def environment(self, instance=0):
        return TimeLimit(Pendulum(), HORIZON)

    @property
    def reference(self):
        return {"random": self.low, "expert": 0.0}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """One cache for the tests of this file, and a short warmup."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "trained"))
    replay = trained.Replay
    monkeypatch.setattr(trained, "Replay", lambda environment, capacity: replay(environment, capacity=capacity, warmup=WARMUP))


def test_medium_stops_at_a_third_and_its_replay_is_all_that_was_done_until_then(monkeypatch):
    task = Swing("swing", "a pendulum")
    medium = task.dataset("medium", steps=60, learning=500)
    assert medium.origin["updates"] == 30, "the first evaluation passes already"
    assert medium.origin["score"] >= trained.MEDIUM
    assert medium.origin["learner"]["learner"] == "sac"
    assert (medium.steps, set(medium.lengths.tolist())) == (75, {HORIZON})
    monkeypatch.setattr("policylab.training.advance", None)  # nothing is learned again
    replay = task.dataset("medium-replay", learning=500)
    assert replay.steps == WARMUP + 30
    assert replay.lengths.tolist() == [25, 25, 20]
    assert not replay.terminal.any()
    assert replay.truncated.nonzero()[0].tolist() == [24, 49, 69]
    speed = replay.observation[:, 2]
    assert np.all(np.abs(np.diff(speed[: HORIZON + 1])) < 8.0 * 0.05 * 15), "an episode's observations follow on each other"
    few = task.dataset("medium-replay", steps=30, learning=500)
    assert few.lengths.tolist() == [25, 20], "the last episodes that hold so many steps"


def test_medium_that_is_not_reached_is_one_sentence():
    task = Swing("swing", "a pendulum", low=-1e-3)
    with pytest.raises(lab.BadInput, match=r"swing/medium stops at 33 points and 40 steps of learning came to -.*--learning"):
        task.dataset("medium", learning=40)
    with pytest.raises(lab.BadInput, match="no dataset 'mixed'"):
        task.dataset("mixed")


def test_what_was_killed_goes_on_from_its_last_checkpoint(monkeypatch, capsys):
    task, score, done = Swing("killed", "a pendulum", every=10), trained.MEDIUM, []

    def dying(*arguments, **settings):
        def until(row):
            done.append(row["step"])
            if row["step"] == 60 and done.count(60) == 1:
                raise KeyboardInterrupt
            return row["step"] >= 80

        return trained_by(*arguments, **{**settings, "until": until})

    trained_by = trained.train
    monkeypatch.setattr(trained, "train", dying)
    with pytest.raises(KeyboardInterrupt):
        task.dataset("medium", steps=30, learning=500)
    medium = task.dataset("medium", steps=30, learning=500, progress=lambda *_: None)
    assert done[done.index(60) + 1] == 50, "five evaluations are one checkpoint"
    assert (medium.origin["updates"], medium.origin["score"] >= score) == (80, True)
    assert {"jax", "gymnasium", "learner", "learning", "seed", "score"} <= set(medium.origin)
    assert "until it scores 33 points, for 500 steps at the most" in capsys.readouterr().err


def test_the_replay_has_room_for_all_that_is_done(monkeypatch):
    seen = []

    def looked_at(learner, source, **settings):
        seen.append((source.capacity, settings["steps"], settings["checkpoint_every"]))
        raise KeyboardInterrupt

    monkeypatch.setattr(trained, "train", looked_at)
    with pytest.raises(KeyboardInterrupt):
        Swing("roomy", "a pendulum").dataset("medium-replay", learning=60)
    assert seen == [(60 + lab.Replay.warmup, 60, 5 * 30)]


def test_what_a_replay_keeps_is_in_the_order_in_which_it_was_done():
    environment = TimeLimit(Pendulum(), 7)
    source = lab.Replay(environment, capacity=40, warmup=20, environments=2).serve({"steps": lab.Steps(4)})
    policy = lab.UniformRandom(environment.spec.action)
    state = source.init({"policy": policy}, key=jax.random.key(0))
    clock = lab.Clock(jnp.asarray(0), jnp.asarray(100))
    step = jax.jit(lambda state, key: source.next(state, {"policy": policy}, clock=clock, key=key)[0])
    for number in range(15):  # 25 steps of each copy, of which the ring holds 20
        state = step(state, jax.random.key(number))
    recording = kept(source, state, name="mine")
    assert recording.steps == 40
    assert recording.lengths.tolist() == [2, 7, 7, 4] * 2
    assert recording.reward.shape == (40,)
    # Where an episode goes on, its next observation is the one that the following action answered.
    rows = recording.observation_rows
    newest = recording.reward[19]
    assert newest == np.asarray(state.rows.reward)[(int(state.written) - 1) % 20, 0]
    assert len(recording.observation) == 40 + 8
    inside = np.flatnonzero(~recording.truncated)
    np.testing.assert_array_equal(recording.observation[rows[inside] + 1], recording.observation[rows[inside + 1]])
