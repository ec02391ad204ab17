"""Who acted, what came before a take-over, and what the expert would have done, against a walk that tells everything."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environment import Environment, Step
from policylab.environments.time_limit import TimeLimit
from policylab.learner import Clock
from policylab.policies.takeover import ByChance, ByValue, TakeOver
from policylab.policy import Policy
from policylab.scorer import Scorer

SPEC = lab.Spec(lab.Box((1,)), lab.Box((1,), -9.0, 9.0))
CLOCK = Clock(jnp.asarray(0), jnp.asarray(9))
FIELDS = ("intervened", "before_takeover", "expert_action", "row")


class Count(Environment):
    """The observation is the number of steps since the start of everything, so that every row is its own."""

    @property
    def spec(self):
        return SPEC

    def reset(self, key):
        start = 1000.0 * jax.random.uniform(key)
        return start, start[None]

    def step(self, state, action, key):
        there = state + 1.0
        return there, Step(there[None], action[0], jax.random.uniform(key) < 0.1, jnp.zeros((), bool))


class Says(Policy):
    """Always the same, and it counts how often it was asked."""

    number: jax.Array

    def initial_memory(self, *, key):
        return jnp.zeros((), jnp.int32)

    def act(self, observation, memory, *, key):
        return jnp.reshape(self.number, (1,)) + 0.01 * memory, memory + 1


LEARNER, EXPERT = Says(jnp.asarray(1.0)), Says(jnp.asarray(-1.0))


def source(**options):
    settings = {"capacity": 120, "warmup": 100, "environments": 2, "rule": ByChance(0.2), "hold": 3, **options}
    return lab.Intervention(TimeLimit(Count(), 12), expert=EXPERT, **settings)


@pytest.fixture(scope="module")
def played():
    made = source().serve({"one": lab.Steps(200, fields=FIELDS), "two": lab.Windows(8, future=4, fields=FIELDS[:2])})
    state = jax.jit(lambda key: made.init({"policy": LEARNER}, key=key))(jax.random.key(0))
    step = jax.jit(lambda state, key: made.next(state, {"policy": LEARNER}, clock=CLOCK, key=key))
    for number in range(20):  # until the ring has gone round
        state, batch = step(state, jax.random.key(number))
    return made, state, jax.tree.map(np.asarray, batch)


def test_the_expert_holds_on_for_as_many_steps_as_it_should(played):
    _, state, _ = played
    written = int(state.written)
    assert written == 70
    rows = jax.tree.map(lambda leaf: np.roll(np.asarray(leaf), -(written % 60), axis=0), state.rows)
    by, ended = rows.extra["intervened"], rows.terminal | rows.truncated
    np.testing.assert_array_equal(by, rows.action[..., 0] < 0)  # what is stored is what was done
    spans, starts = [], 0
    for copy in range(2):
        length = 0
        for t in range(1, 60):
            length = length + 1 if by[t, copy] and not ended[t - 1, copy] else int(by[t, copy])
            over = not by[t, copy] or ended[t, copy]
            starts += by[t, copy] and not by[t - 1, copy]
            if t < 59 and by[t, copy] and not by[t + 1, copy] and not ended[t, copy] and length < 40 and t > 13:
                spans.append(length)
            length = 0 if over else length
    assert starts > 5
    assert all(length == 3 for length in spans), spans  # the learner always acts for a step in between
    asked = np.abs(
        np.abs(rows.extra["expert_action"][..., 0] + 1.0) / 0.01
    ).round()  # both are asked at every step of an episode
    for copy in range(2):
        for t in range(1, 60):
            assert asked[t, copy] == (0 if ended[t - 1, copy] else asked[t - 1, copy] + 1)


def test_the_row_before_a_takeover_is_marked_within_its_episode(played):
    _, state, batch = played
    by, ended = np.asarray(state.rows.extra["intervened"]), np.asarray(state.rows.terminal | state.rows.truncated)
    newest = (int(state.written) - 1) % 60
    one, marked = batch["one"], 0
    for row, before, intervened in zip(one.extra["row"], one.extra["before_takeover"], one.extra["intervened"], strict=True):
        slot, copy = row // 2, row % 2
        expected = not by[slot, copy] and not ended[slot, copy] and slot != newest and by[(slot + 1) % 60, copy]
        assert before == expected
        assert intervened == by[slot, copy]
        marked += expected
    assert marked > 5
    two = batch["two"]
    inside = two.valid[:, 1:] & two.valid[:, :-1]
    np.testing.assert_array_equal(
        two.extra["before_takeover"][:, :-1][inside],
        (~two.extra["intervened"][:, :-1] & two.extra["intervened"][:, 1:])[inside],
    )


def test_the_share_of_the_expert_is_what_is_stored(played):
    made, state, _ = played
    np.testing.assert_allclose(made.share(state), np.mean(np.asarray(state.rows.extra["intervened"])), rtol=1e-6)


@pytest.mark.parametrize(("keep", "sign"), [("own", 1), ("expert", -1)])
def test_batches_can_hold_the_rows_of_one_of_the_two(keep, sign):
    made = source(keep=keep, relabel=keep == "own").serve({"one": lab.Steps(64, fields=("expert_action", "intervened"))})
    state = jax.jit(lambda key: made.init({"policy": LEARNER}, key=key))(jax.random.key(0))
    batch = jax.jit(lambda s, k: made.next(s, {"policy": LEARNER}, clock=CLOCK, key=k)[1])(state, jax.random.key(1))
    assert float(batch.weight.mean()) > 0.95
    kept = np.asarray(batch.weight) > 0
    assert np.all(np.asarray(batch.extra["intervened"])[kept] == (keep == "expert"))
    assert np.all(np.asarray(batch.reward)[kept] * sign > 0)  # the reward is what was done
    np.testing.assert_array_equal(batch.action[kept], batch.extra["expert_action"][kept])  # relabelled, or done by the expert
    assert np.all(np.asarray(batch.action)[kept] < 0)


def test_the_expert_calls_where_the_proposed_action_is_worth_less():
    class Near(Scorer):
        def scores(self, observation, action):
            return -jnp.abs(action - observation)

    rule = ByValue(Near(), margin=0.5, chance=0.9, otherwise=0.1)
    keys = jax.random.split(jax.random.key(0), 4000)

    def rate(rule, proposed):
        call = lambda key: rule.calls(jnp.zeros(1), jnp.full(1, proposed), jnp.full(1, 0.2), key=key)
        return float(jnp.mean(jax.jit(jax.vmap(call))(keys)))

    assert abs(rate(rule, 0.8) - 0.9) < 0.02  # 0.6 worse than the expert's
    assert abs(rate(rule, 0.6) - 0.1) < 0.02  # 0.4 worse
    judge = ByValue(Near(), 0.5, 0.9, 0.1, reference=Says(jnp.asarray(0.0)))
    assert abs(rate(judge, 0.6) - 0.9) < 0.02  # 0.6 worse than the one who judges


@pytest.mark.parametrize("watching", [True, False])
def test_the_expert_sees_what_was_done_or_what_is_about_to_be(watching):
    class Late(Scorer):
        def scores(self, observation, action):
            return jnp.where(observation == 3.0, action, 0.0)  # only the third step counts: 1 of the learner, 2 of the expert

    rule = ByValue(Late(), margin=0.5, chance=1.0, otherwise=0.0)
    shared = TakeOver(Says(jnp.asarray(1.0)), Says(jnp.asarray(2.0)), rule, (jnp.zeros(1), jnp.zeros(1)), 2, watching)
    memory, act, done = (
        shared.initial_memory(key=jax.random.key(0)),
        jax.jit(lambda o, m: shared.act(o, m, key=jax.random.key(0))),
        [],
    )
    for time in range(8):
        action, memory = act(jnp.full(1, float(time)), memory)
        assert bool(memory.intervened) == (float(action[0]) > 1.5)
        done.append(bool(memory.intervened))
    first = 4 if watching else 3
    assert done == [first <= time < first + 2 for time in range(8)]


def test_an_intervention_and_its_policy_conform():
    report = lab.check(source())
    assert report.passed, str(report)
    shared = TakeOver(LEARNER, EXPERT, ByChance(0.5), (jnp.zeros(1), jnp.zeros(1)), 2)
    report = lab.check(shared, spec=SPEC)
    assert report.passed, str(report)


def test_an_expert_is_imitated_where_it_takes_over():
    environment = lab.load_task("pendulum").environment()
    expert = lab.UniformRandom(environment.spec.action)
    made = lab.Intervention(environment, expert=expert, rule=ByChance(), capacity=64, warmup=32, keep="expert")
    run = lab.train(lab.BC(policy=lab.Deterministic(width=4, depth=1), batch_size=8), made, steps=2, seeds=2)
    assert run.source_state.written.tolist() == [34, 34]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: source(hold=0), "at least 1 step"),
        (lambda: source(keep="mine"), "choose all, own or expert"),
        (lambda: source(prioritised=True), "draws uniformly"),
        (lambda: source().serve({"a": lab.Steps(4, fields=("log_prob",))}), "no policy has the density"),
        (lambda: source(keep="own").serve({"a": lab.Steps(4, n=3)}), "single Steps"),
        (lambda: source().serve({"a": lab.Steps(4, fields=("goal",))}), "keeps no 'goal'"),
        (lambda: source().serve({"a": lab.WholeEpisodes(4)}), "cannot answer"),
    ],
)
def test_what_an_intervention_cannot_do_is_said(make, words):
    with pytest.raises(lab.BadInput, match=words):
        make()
