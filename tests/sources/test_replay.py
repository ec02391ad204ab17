"""The replay against a plain list of everything that happened."""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environment import Environment, Step
from policylab.environments.hosted import Gymnasium
from policylab.environments.time_limit import TimeLimit
from policylab.learner import Clock, Each
from policylab.policies.uniform import UniformRandom
from policylab.sources.priorities import Priorities

SPEC = lab.Spec(lab.Box((1,)), lab.Discrete(2))
PRODUCTS = {"explorer": UniformRandom(SPEC.action)}
DISCOUNT = 0.5


class Walk(Environment):
    """A number that grows by a random amount each step, from a random start; it ends by chance. Every row is its own."""

    @property
    def spec(self):
        return SPEC

    def reset(self, key):
        start = 1000.0 * jax.random.uniform(key)
        return start, start[None]

    def step(self, state, action, key):
        there = state + jax.random.uniform(key, minval=1.0, maxval=2.0)
        return there, Step(there[None], there, jax.random.uniform(key) < 0.2, jnp.zeros((), bool))


def followed(source, moves):
    """The states and batches of `moves` updates, and per copy of the environment the list of all its rows."""
    state = source.init(PRODUCTS, key=jax.random.key(0))
    step = jax.jit(lambda state, clock, key: source.next(state, PRODUCTS, clock=clock, key=key))
    rows = lambda state, slot: jax.tree.map(lambda leaf: np.asarray(leaf[slot]), state.rows)
    history, batches = [rows(state, slot) for slot in range(int(state.written))], []
    for number in range(moves):
        before = int(state.written)
        state, batch = step(state, Clock(jnp.asarray(number), jnp.asarray(moves)), jax.random.key(number + 1))
        history += [rows(state, slot % source.slots) for slot in range(before, int(state.written))]
        batches.append((len(history), jax.tree.map(np.asarray, batch)))
    return state, history, batches


@pytest.fixture(scope="module")
def played():
    source = lab.Replay(TimeLimit(Walk(), 6), capacity=24, warmup=6, environments=2)
    needs = {
        "one": lab.Steps(16, fields=("row",)),
        "three": lab.Steps(16, n=3, discount=DISCOUNT, fields=("row",)),
        "windows": lab.Windows(16, past=2, future=3, fields=("row",)),
    }
    source = source.serve(needs)
    return source, *followed(source, 30)


def held(history, made, slots, observation):
    """(time, copy) of the stored row with this observation, and the times that are stored."""
    times = range(max(0, made - slots), made)
    found = [(t, c) for t in times for c in range(2) if history[t].observation[c, 0] == observation]
    assert len(found) == 1, "a batch holds a row that is not among the last ones"
    return (*found[0], times)


def test_the_ring_holds_the_last_rows_of_every_copy(played):
    source, state, history, _ = played
    assert int(state.written) == 33
    assert source.slots == 12
    kept = np.sort(np.asarray(state.rows.observation).reshape(-1))
    np.testing.assert_array_equal(kept, np.sort(np.concatenate([row.observation[:, 0] for row in history[-12:]])))


def test_an_episode_goes_on_from_its_observation_and_begins_anew_after_its_end(played):
    _, _, history, _ = played
    ends = 0
    for now, then in zip(history[:-1], history[1:], strict=True):
        for copy in range(2):
            ended = now.terminal[copy] or now.truncated[copy]
            assert (now.next_observation[copy, 0] == then.observation[copy, 0]) != ended
            assert now.reward[copy] == now.next_observation[copy, 0]  # what the step led to, also at the end
            ends += now.truncated[copy]
    assert ends > 0


def test_transitions_are_those_that_happened(played):
    source, _, history, batches = played
    seen = set()
    for made, batch in batches:
        one = batch["one"]
        for i in range(16):
            t, c, _ = held(history, made, source.slots, one.observation[i, 0])
            seen.add((t, c))
            assert one.extra["row"][i] == (t % source.slots) * 2 + c
            for name in ("action", "reward", "next_observation", "terminal", "truncated"):
                np.testing.assert_array_equal(getattr(one, name)[i], getattr(history[t], name)[c])
    assert len(seen) > 60  # nearly all of the 66 rows were drawn at some time


def test_returns_of_several_steps_end_with_the_episode_and_with_what_is_stored(played):
    source, _, history, batches = played
    durations = set()
    for made, batch in batches:
        three = batch["three"]
        for i in range(16):
            t, c, times = held(history, made, source.slots, three.observation[i, 0])
            gain, steps = 0.0, 0
            for offset in range(3):
                row = history[t + offset]
                gain, steps = gain + DISCOUNT**offset * row.reward[c], steps + 1
                if row.terminal[c] or row.truncated[c] or t + offset + 1 not in times:
                    break
            durations.add(steps)
            np.testing.assert_allclose(three.reward[i], gain, rtol=1e-5)
            assert three.duration[i] == steps
            assert three.next_observation[i, 0] == row.next_observation[c, 0]
            assert three.terminal[i] == row.terminal[c]
            assert three.truncated[i] == row.truncated[c]
    assert durations == {1, 2, 3}


def test_windows_are_padded_where_they_leave_the_episode_or_the_ring(played):
    source, _, history, batches = played
    over = lambda t, c: history[t].terminal[c] or history[t].truncated[c]
    for made, batch in batches[::3]:
        windows = batch["windows"]
        for i in range(16):
            anchor = windows.extra["row"][i, 2]  # two rows before it, itself and two after
            t, c, times = held(history, made, source.slots, windows.observation[i, 2, 0])
            assert anchor == (t % source.slots) * 2 + c
            valid = [True]
            for past in (1, 2):
                valid.insert(0, valid[0] and t - past in times and not over(t - past, c))
            for future in (1, 2):
                valid.append(valid[-1] and t + future in times and not over(t + future - 1, c))
            np.testing.assert_array_equal(windows.valid[i], valid)
            for place in range(5):
                if valid[place]:
                    assert windows.reward[i, place] == history[t - 2 + place].reward[c]


def test_copies_move_only_before_every_so_many_updates():
    source = lab.Replay(Walk(), capacity=64, warmup=4, collect=2, updates=3, prioritised=True).serve({"a": lab.Steps(4)})
    state, _, _ = followed(source, 7)
    assert int(state.written) == 4 + 3 * 2
    np.testing.assert_allclose(state.priorities.nodes[1], 10.0)


def test_rows_are_drawn_in_proportion_to_their_priorities():
    priority = np.random.default_rng(0).uniform(size=37).astype(np.float32) ** 3
    priority[[4, 20]] = 0.0
    rows = Priorities.none(37).set(jnp.arange(37), jnp.asarray(priority))
    rows = rows.set(jnp.array([5, 9, 5]), jnp.array([2.0, 0.25, 2.0]))  # one row twice
    priority[5], priority[9] = 2.0, 0.25
    np.testing.assert_allclose(rows.of(jnp.arange(37)), priority)
    np.testing.assert_allclose(rows.nodes[1], priority.sum(), rtol=1e-6)
    assert rows.highest == 2.0
    drawn = jax.jit(jax.vmap(lambda key: rows.draw(jax.random.uniform(key, (50,)))))(jax.random.split(jax.random.key(1), 2000))
    share = np.bincount(np.asarray(drawn).reshape(-1), minlength=37) / drawn.size
    np.testing.assert_allclose(share, priority / priority.sum(), atol=4 * np.sqrt(0.25 / drawn.size))
    assert share[4] == share[20] == 0.0
    edges = rows.draw(jnp.full(50, np.nextafter(np.float32(1), np.float32(0))))  # the upper end of every stratum
    assert int(edges.max()) <= 36


def test_errors_become_priorities_and_weights_undo_them():
    source = lab.Replay(Walk(), capacity=32, warmup=8, prioritised=True, exponent=0.7, correction=0.5)
    source = source.serve({"a": lab.Steps(6)})
    state = source.init(PRODUCTS, key=jax.random.key(0))
    draw = jax.jit(lambda state, time, key: source.next(state, PRODUCTS, clock=Clock(time, jnp.asarray(10)), key=key))
    state, batch = draw(state, jnp.asarray(0), jax.random.key(1))
    np.testing.assert_allclose(batch.weight, np.ones(6))  # all priorities are equal
    error = jnp.linspace(-1.0, 3.0, 6)
    rows = np.asarray(batch.extra["row"])
    state = source.tell(state, batch, {"td_error": Each(error)})
    expected = np.where(np.arange(32) < 9, 1.0, 0.0)
    expected[rows] = (np.abs(np.asarray(error)) + 1e-6) ** 0.7
    np.testing.assert_allclose(state.priorities.of(jnp.arange(32)), expected, rtol=1e-5)
    state, batch = draw(state, jnp.asarray(5), jax.random.key(2))
    expected[9] = expected.max()  # the row that came meanwhile
    rows = np.asarray(batch.extra["row"])
    weight = (10 * expected[rows] / expected.sum()) ** -0.75  # halfway from 0.5 to 1
    np.testing.assert_allclose(batch.weight, weight / weight.max(), rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: lab.Replay(Walk(), capacity=100), "cannot hold"),
        (lambda: lab.Replay(Walk(), updates=0), "updates is 0"),
        (lambda: lab.Replay(Walk()).serve({"a": lab.WholeEpisodes(4)}), "cannot answer"),
        (lambda: lab.Replay(Walk()).serve({"a": lab.Steps(4, fields=("goal",))}), "keeps no 'goal'"),
        (lambda: lab.Replay(Walk(), prioritised=True).serve({"a": lab.Windows(4)}), "single request"),
    ],
)
def test_what_a_replay_cannot_do_is_said(make, words):
    with pytest.raises(lab.BadInput, match=words):
        make()


def test_a_prioritised_replay_needs_a_learner_that_reports_errors():
    source = lab.Replay(Walk(), capacity=64, warmup=4, prioritised=True)
    with pytest.raises(lab.BadInput, match="error of every row"):
        lab.train(lab.QRDQN(width=4, depth=1, quantiles=3, batch_size=4), source, steps=2)


def test_a_prioritised_run_goes_on_from_its_checkpoint_as_if_it_had_not_stopped(tmp_path):
    source = lab.Replay(TimeLimit(Walk(), 6), capacity=64, warmup=8, prioritised=True, updates=2)
    learner = lab.DQN(width=4, depth=1, batch_size=8)

    def stop(row):
        if row["step"] >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.train(learner, source, steps=12, seeds=2, out=tmp_path, checkpoint_every=4, trackers=[stop])
    resumed = lab.train(learner, source, steps=12, seeds=2, out=tmp_path, checkpoint_every=4, resume=True)
    whole = lab.train(learner, source, steps=12, seeds=2)
    same = jax.tree.map(
        lambda a, b: np.array_equal(a, b), (whole.state, whole.source_state), (resumed.state, resumed.source_state)
    )
    assert jax.tree.all(same)


def test_a_hosted_environment_is_replayed_and_resumed_at_fresh_episodes(tmp_path):
    source = lab.Replay(Gymnasium("CartPole-v1"), capacity=64, warmup=20, updates=2)
    learner = lab.DQN(width=4, depth=1, batch_size=8)

    def stop(row):
        if row["step"] >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.train(learner, source, steps=10, seeds=2, out=tmp_path, checkpoint_every=4, trackers=[stop])
    run = lab.train(learner, source, steps=10, seeds=2, out=tmp_path, checkpoint_every=4, resume=True)
    assert [row["step"] for row in run.metrics if row.get("fresh_episodes")] == [5]
    assert run.source_state.written.tolist() == [25, 25]
    rows = jax.tree.map(lambda leaf: np.asarray(leaf)[:, :25, 0], run.source_state.rows)
    ended = rows.terminal | rows.truncated
    assert ended[:, 21].all()  # the episodes of the checkpoint, which no longer exist
    goes_on = (rows.next_observation[:, :-1] == rows.observation[:, 1:]).all(-1)
    np.testing.assert_array_equal(goes_on, ~ended[:, :-1])
    assert not np.array_equal(rows.observation[0], rows.observation[1])


def test_what_a_simulator_says_when_it_fails_reaches_the_user():
    class Broken(gymnasium.Wrapper):
        steps = 0

        def step(self, action):
            self.steps += 1
            if self.steps > 3:
                raise RuntimeError("the arm is stuck")
            return self.env.step(action)

    source = lab.Replay(Gymnasium(lambda: Broken(gymnasium.make("CartPole-v1"))), capacity=8, warmup=1)
    with pytest.raises(RuntimeError, match=r"^the arm is stuck"):
        lab.train(lab.DQN(width=4, depth=1, batch_size=2), source, steps=8)
