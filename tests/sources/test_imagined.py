"""Imagined experience branches from real experience, follows the explorer in the world, and is mixed as asked."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.data.recording import recording_from_steps
from policylab.environment import Environment, Step
from policylab.learner import Clock, Everything, Steps
from policylab.policy import Policy
from policylab.sources.imagined import Imagined
from policylab.world import Branched
from policylab.worlds.pessimistic import Pessimistic

_KEY = jax.random.key(0)
_SPEC = lab.Spec(lab.Box((1,)), lab.Box((1,), -1.0, 1.0))


class Counting(Environment):
    """x' = x + a and r = x'; over at `end`; u = |x|."""

    end: jax.Array = dataclasses.field(default_factory=lambda: jnp.asarray(jnp.inf))

    @property
    def spec(self):
        return _SPEC

    def reset(self, key):
        return jnp.zeros(1), jnp.zeros(1)

    def step(self, state, action, key):
        after = state + action
        never = jnp.zeros((), bool)
        return after, Step(after, after[0], after[0] >= self.end, never, info={"uncertainty": jnp.abs(state[0])})

    def at(self, observation):
        return observation


class One(Policy):
    """Always 1."""

    def act(self, observation, memory, *, key):
        return jnp.ones(1), memory


PRODUCTS = {"policy": One()}


@pytest.fixture(scope="module")
def data() -> lab.Dataset:
    """Logged places 0, 10, ..., 90, left by actions of -1 with reward -7."""
    place = 10.0 * np.arange(10, dtype=np.float32)[:, None]
    rows = np.full(10, -7.0, np.float32)
    ended = np.ones(10, bool)
    return lab.Dataset.of(
        recording_from_steps(place, -np.ones((10, 1), np.float32), rows, ended, ~ended, place - 1, spec=_SPEC)
    )


def draw(source: Imagined, updates: int, needs=None):
    """How many slots were written after each of so many updates, and all their batches, leaves [update, ...]."""
    served = source.serve(needs or {"transitions": Branched(400, horizon=3, real=0.25)})

    @jax.jit
    def play(served, key):
        def update(state, step):
            clock = Clock(step, jnp.asarray(updates))
            state, batch = served.next(state, PRODUCTS, clock=clock, key=jax.random.fold_in(key, step))
            return state, (state.written, batch)

        return jax.lax.scan(update, served.init(PRODUCTS, key=key), jnp.arange(updates))[1]

    return play(served, _KEY)


def last(batches):
    return jax.tree.map(lambda leaf: leaf[-1], batches)


def test_a_batch_mixes_logged_steps_with_rollouts_that_branch_from_them(data):
    source = Imagined(data, Counting(), rollouts=50, every=1, capacity=1_000)
    written, batches = draw(source, 2)
    batch = last(batches)
    imagined = np.asarray(batch.extra["imagined"]) > 0
    assert imagined.sum() == 300  # of 400, a quarter real
    place, after = np.asarray(batch.observation)[:, 0], np.asarray(batch.next_observation)[:, 0]
    np.testing.assert_array_equal(np.asarray(batch.reward)[~imagined], -7.0)
    np.testing.assert_array_equal(after[~imagined], place[~imagined] - 1)
    # Imagined rows begin 0, 1 or 2 steps from a logged place, one step of the explorer each; nobody goes on from 3.
    assert set((place[imagined] % 10).tolist()) == {0.0, 1.0, 2.0}
    np.testing.assert_array_equal(after[imagined], place[imagined] + 1)
    np.testing.assert_array_equal(np.asarray(batch.reward)[imagined], after[imagined])
    np.testing.assert_array_equal(batch.weight, 1.0)
    assert written.tolist() == [3, 6]


def test_what_follows_an_end_has_no_weight(data):
    source = Imagined(data, Counting(jnp.asarray(92.0)), rollouts=100, every=1, capacity=1_000)
    batch = last(draw(source, 1, {"transitions": Branched(2_000, horizon=4, real=0.0)})[1])
    place, weight = np.asarray(batch.observation)[:, 0], np.asarray(batch.weight)
    ends = (place == 91.0) & (weight > 0)
    assert ends.any()
    assert np.asarray(batch.terminal)[ends].all()
    assert weight[place >= 92.0].sum() == 0 < (place >= 92.0).sum()
    assert weight[place < 91.0].min() == 1


def test_a_step_to_something_that_is_no_number_is_not_learned_from(data):
    class Breaking(Counting):
        def step(self, state, action, key):
            state, step = Counting.step(self, state, action, key)
            return state, dataclasses.replace(step, reward=jnp.where(state[0] == 12.0, jnp.nan, step.reward))

    batch = last(draw(Imagined(data, Breaking(), rollouts=100, every=1, capacity=1_000), 1)[1])
    assert np.isfinite(batch.reward).all()
    broken = (np.asarray(batch.observation)[:, 0] == 11.0) & (np.asarray(batch.extra["imagined"]) > 0)
    assert broken.any()
    np.testing.assert_array_equal(np.asarray(batch.weight)[broken], 0.0)


def test_nothing_is_imagined_while_the_world_is_fitted_and_rollouts_grow_afterwards(data):
    source = Imagined(data, Counting(), rollouts=10, every=2, capacity=1_000)
    needs = {"transitions": Branched(64, horizon=1, longest=4, begin=0.5), "world": Steps(7, fields=("row",))}
    written, batches = draw(source, 10, needs)
    # From half of the run on, at every second update: one step at update 6, where rollouts have hardly grown, and three at update 8.
    assert written.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 4, 4]
    assert batches["world"].reward.shape == (10, 7)
    np.testing.assert_array_equal(batches["world"].reward, -7.0)
    imagined = np.asarray(batches["transitions"].extra["imagined"])
    np.testing.assert_array_equal(imagined.sum(axis=1), [0] * 6 + [61] * 4)


def test_the_world_of_the_learner_is_used_unless_one_is_given(data):
    other = {**PRODUCTS, "world": Counting(jnp.asarray(-1e9))}
    served = Imagined(data, rollouts=10, every=1, capacity=100, horizon=2, real=0.0).serve({"transitions": Steps(16)})
    clock = Clock(jnp.asarray(0), jnp.asarray(1))
    _, batch = served.next(served.init(other, key=_KEY), other, clock=clock, key=_KEY)
    assert np.asarray(batch.terminal)[np.asarray(batch.weight) > 0].all()
    with pytest.raises(lab.BadInput, match="needs a world"):
        served.init(PRODUCTS, key=_KEY)


def test_what_cannot_be_imagined_is_said(data):
    source = Imagined(data, Counting(), rollouts=10, capacity=100)
    for needs, words in (
        ({"transitions": Steps(4, n=3)}, "single transitions"),
        ({"transitions": Everything()}, "single transitions"),
        ({"transitions": Steps(4, fields=("row",))}, "no fields"),
        ({"world": Steps(4)}, "real experience alone"),
        ({"transitions": Branched(4, horizon=11)}, "cannot hold"),
    ):
        with pytest.raises(lab.BadInput, match=words):
            source.serve(needs)
    with pytest.raises(lab.BadInput, match="use a source that makes them"):
        data.serve({"transitions": Branched(4)})
    with pytest.raises(lab.BadInput, match=r"Imagined\.real"):
        Imagined(data, real=2.0)
    assert source.fingerprint() != dataclasses.replace(source, every=3).fingerprint()
    assert source.fingerprint() != dataclasses.replace(source, world=Counting(jnp.ones(()))).fingerprint()


def test_a_pessimistic_world_pays_less_by_its_uncertainty():
    world = Pessimistic(Counting(), jnp.asarray(0.5))
    state = world.at(jnp.array([4.0]))
    after, step = world.step(state, jnp.ones(1), _KEY)
    assert (float(after[0]), float(step.reward)) == (5.0, 5.0 - 0.5 * 4.0)
    assert world.spec.observation == _SPEC.observation


def test_it_conforms_as_sources_do(data):
    report = lab.check(Imagined(data, Counting(), rollouts=4, capacity=100))
    assert report.passed, str(report)
