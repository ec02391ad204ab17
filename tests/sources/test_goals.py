"""Hindsight goals: drawn as requested, against counting by hand."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.learner import Clock
from tests.small import continuous_recording

CLOCK, KEY, LENGTH = Clock(jnp.asarray(0), jnp.asarray(1)), jax.random.key(0), 5
ROWS = LENGTH + 1  # of an episode: an observation more than actions


@pytest.fixture(scope="module")
def recording():
    """The observations are told apart by their first number: their row."""
    made = continuous_recording(episodes=6, length=LENGTH)
    made.observation[:, 0] = np.arange(len(made.observation))
    return made


def draw(recording, request):
    return lab.Dataset.of(recording).serve({"it": request}).next(None, {}, clock=CLOCK, key=KEY)[1]


def row_of(observation):
    return np.asarray(observation)[..., 0].astype(int)


def test_a_current_goal_is_the_own_observation_and_reached(recording):
    batch = draw(recording, lab.Steps(40, goals=lab.Goals(1.0, 0.0, 0.0)))
    np.testing.assert_array_equal(batch.extra["goal"], batch.observation)
    assert np.asarray(batch.extra["reached"]).all()


def test_a_random_goal_is_any_observation_that_was_acted_on(recording):
    batch = draw(recording, lab.Steps(30_000, goals=lab.Goals(0.0, 0.0, 1.0)))
    goal, own = row_of(batch.extra["goal"]), row_of(batch.observation)
    counts = np.bincount(goal - goal // ROWS, minlength=recording.steps)
    assert (goal % ROWS < LENGTH).all()
    assert 850 < counts.min() < counts.max() < 1150
    assert abs(np.corrcoef(goal, own)[0, 1]) < 0.03
    np.testing.assert_array_equal(batch.extra["reached"], goal == own)


@pytest.mark.parametrize("ahead", ["geometric", "uniform"])
def test_a_future_goal_lies_as_far_ahead_as_asked_for(recording, ahead):
    goals = lab.Goals(0.0, 1.0, 0.0, ahead=ahead, discount=0.6)
    batch = draw(recording, lab.Steps(60_000, goals=goals))
    goal, own = row_of(batch.extra["goal"]), row_of(batch.observation)
    assert (goal // ROWS == own // ROWS).all()
    assert not np.asarray(batch.extra["reached"]).any()
    for time in range(LENGTH):
        rest = LENGTH - time
        found = np.bincount((goal - own)[own % ROWS == time], minlength=rest + 1) / np.sum(own % ROWS == time)
        expected = np.full(rest, 1 / rest)
        if ahead == "geometric":
            expected = 0.4 * 0.6 ** np.arange(rest)
            expected[-1] = 1 - expected[:-1].sum()  # what lies beyond the end is at the end
        np.testing.assert_allclose(found, [0.0, *expected], atol=0.02)


def test_shares_and_what_else_the_batch_holds(recording):
    plain = draw(recording, lab.Steps(20_000, fields=("row",)))
    batch = draw(recording, lab.Steps(20_000, fields=("row",), goals=lab.Goals()))
    np.testing.assert_array_equal(plain.extra["row"], batch.extra["row"])
    goal, own = row_of(batch.extra["goal"]), row_of(batch.observation)
    assert np.mean(goal == own) == pytest.approx(0.2 + 0.3 / recording.steps, abs=0.01)
    assert np.mean(goal // ROWS != own // ROWS) == pytest.approx(0.3 * 5 / 6, abs=0.01)


def test_a_window_has_one_goal_from_its_last_step_on(recording):
    batch = draw(recording, lab.Windows(200, past=2, future=2, goals=lab.Goals(0.5, 0.5, 0.0)))
    goal, own, valid = row_of(batch.extra["goal"]), row_of(batch.observation), np.asarray(batch.valid)
    reached = np.asarray(batch.extra["reached"])
    assert goal.shape == (200, 4)
    for i in range(200):
        last = own[i][valid[i]].max()
        assert len(set(goal[i])) == 1
        assert last <= goal[i, 0] <= last // ROWS * ROWS + LENGTH
        np.testing.assert_array_equal(reached[i], valid[i] & (own[i] == goal[i]))
    assert 0.35 < reached.any(1).mean() < 0.65


def test_a_part_of_the_observation_can_state_the_goal(recording):
    space = lab.Composite((("state", lab.Box((3,))), ("achieved", lab.Box((1,)))))
    named = dataclasses.replace(
        recording, observation={"state": recording.observation, "achieved": recording.observation[:, :1]},
        spec=dataclasses.replace(recording.spec, observation=space),
    )  # fmt: skip
    batch = draw(named, lab.Steps(8, goals=lab.Goals(1.0, 0.0, 0.0, part="achieved")))
    np.testing.assert_array_equal(batch.extra["goal"], batch.observation["achieved"])
    with pytest.raises(lab.BadInput, match=r"Goals.part is 'x' but the observation has state, achieved"):
        draw(named, lab.Steps(8, goals=lab.Goals(part="x")))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (lab.Steps(4, n=3, goals=lab.Goals()), "with n=1"),
        (lab.Everything(goals=lab.Goals()), "Everything"),
        (lab.Steps(4, goals=lab.Goals(0.5, 0.5, 0.5)), "add up to 1"),
        (lab.Steps(4, goals=lab.Goals(discount=1.0)), "below 1"),
    ],
)
def test_what_cannot_be_is_refused(recording, request_, words):
    with pytest.raises(lab.BadInput, match=words):
        draw(recording, request_)


class Counted(lab.Environment):
    """Its observation is how many steps were ever made before it, so that every row is its own; episodes have 4 steps."""

    @property
    def spec(self):
        return lab.Spec(lab.Box((2,)), lab.Discrete(2), horizon=4)

    def reset(self, key):
        start = jnp.stack([jnp.floor(1e6 * jax.random.uniform(key)), jnp.zeros(())])
        return start, start

    def step(self, state, action, key):
        there = state + jnp.array([0.0, 1.0])
        return there, lab.Step(there, jnp.ones(()), jnp.zeros((), bool), there[1] == 4)


def test_a_replay_draws_goals_within_the_episodes_that_it_holds():
    """A ring of 10 steps of 2 copies, before it is full and after it has begun anew: the oldest episode is cut, the newest under way."""
    source = lab.Hindsight(Counted(), capacity=20, warmup=8, environments=2)
    kinds = {"now": (1.0, 0.0, 0.0), "later": (0.0, 1.0, 0.0), "any": (0.0, 0.0, 1.0)}
    needs = {name: lab.Steps(200, goals=lab.Goals(*shares, ahead="uniform")) for name, shares in kinds.items()}
    source = source.serve({**needs, "windows": lab.Windows(60, past=1, future=2, goals=lab.Goals(0.0, 1.0, 0.0))})
    products = {"explorer": lab.UniformRandom(lab.Discrete(2))}
    state = source.init(products, key=KEY)
    step = jax.jit(lambda state, key: source.next(state, products, clock=CLOCK, key=key))
    for number in range(9):
        state, batches = step(state, jax.random.key(number))
        if number in (2, 8):
            goals_are_right(state, batches)


def goals_are_right(state, batches):
    filled = min(int(state.written), 10)
    rows = jax.tree.map(lambda leaf: np.asarray(leaf)[:filled].reshape(-1, *leaf.shape[2:]), state.rows)
    held = {tuple(row) for row in rows.observation}
    reached = held | {tuple(row) for row in rows.next_observation}
    newest = {episode: max(time for e, time in reached if e == episode) for episode, _ in reached}
    now, later, anything, windows = (jax.tree.map(np.asarray, batches[name]) for name in ("now", "later", "any", "windows"))
    np.testing.assert_array_equal(now.extra["goal"], now.observation)
    assert now.extra["reached"].all()
    assert not later.extra["reached"].any()
    found = set()
    for (episode, time), (of, there) in zip(later.observation, later.extra["goal"], strict=True):
        assert of == episode
        found.add((episode, time, there))
    assert found == {
        (e, t, later) for e, t in held for later in range(int(t) + 1, int(newest[e]) + 1)
    }  # every one, and no other
    goals = {tuple(row) for row in anything.extra["goal"]}
    assert len(goals) > 0.9 * len(held)
    assert goals <= held
    np.testing.assert_array_equal(anything.extra["reached"], (anything.extra["goal"] == anything.observation).all(1))
    assert (
        windows.extra["goal"][..., 1] > windows.observation[:, :2, 1].max(1, keepdims=True)
    ).all()  # after the window's last step
    assert (windows.extra["goal"][..., 0] == windows.observation[..., 0]).all()


def test_what_a_replay_with_goals_cannot_do_is_refused():
    with pytest.raises(lab.BadInput, match="uniformly"):
        lab.Hindsight(Counted(), capacity=20, warmup=8, prioritised=True).serve({"it": lab.Steps(4, goals=lab.Goals())})
    with pytest.raises(lab.BadInput, match="n=1"):
        lab.Hindsight(Counted(), capacity=20, warmup=8).serve({"it": lab.Steps(4, n=2, goals=lab.Goals())})
