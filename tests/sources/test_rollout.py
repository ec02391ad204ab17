"""On-policy rollouts: what stands at the ends of episodes, and what the policy carries over them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.environment import Environment, Step
from policylab.environments.tabular import Tabular
from policylab.environments.time_limit import TimeLimit
from policylab.learner import Clock
from policylab.policies.uniform import UniformRandom
from policylab.scorers.advantage import advantages

CLOCK = Clock(jnp.asarray(0), jnp.asarray(1))
DISCOUNT = 0.9


def corridor() -> Environment:
    """0 -> 1 -> 2 -> 2 ..., reward 1 for every step from 2; it never ends, but its clock stops after 4 steps, at 0 again."""
    transition, reward = np.zeros((3, 1, 3)), np.zeros((3, 1))
    transition[0, 0, 1] = transition[1, 0, 2] = transition[2, 0, 2] = 1.0
    reward[2] = 1.0
    return TimeLimit(Tabular.of(transition, reward, np.array([1.0, 0.0, 0.0]), discount=DISCOUNT), 4)


def rolled(environment, policy, request, *, batches=1, **sizes):
    source = lab.Rollout(environment, **sizes).serve({"windows": request})
    products = {"policy": policy}
    state, found = source.init(products, key=jax.random.key(0)), []
    step = jax.jit(lambda state, key: source.next(state, products, clock=CLOCK, key=key))
    for number in range(batches):
        state, window = step(state, jax.random.key(number + 1))
        found.append(jax.tree.map(np.asarray, window))
    return found


def fixed_point(observation, goal_of):
    """Temporal differences in a table, to their fixed point."""
    value = np.zeros(3)
    for _ in range(600):
        goal = goal_of(value)
        value = np.array([goal[observation == s].mean() for s in range(3)])
    return value


def test_a_time_limit_is_bootstrapped_from_the_observation_before_the_reset():
    (window,) = rolled(corridor(), UniformRandom(lab.Discrete(1)), lab.Windows(3, future=8))
    assert window.reward.shape == (3, 8)
    np.testing.assert_array_equal(window.observation[0], [0, 1, 2, 2, 0, 1, 2, 2])
    np.testing.assert_array_equal(window.next_observation[0], [1, 2, 2, 2, 1, 2, 2, 2])
    np.testing.assert_array_equal(window.truncated[0], [0, 0, 0, 1, 0, 0, 0, 1])
    assert not window.terminal.any()
    s, r = window.observation[0], window.reward[0]
    after = lambda value: (1 - window.terminal[0]) * value[window.next_observation[0]]
    right = fixed_point(s, lambda value: r + DISCOUNT * after(value))
    np.testing.assert_allclose(right, [8.1, 9.0, 10.0], rtol=1e-5)
    # Half of the steps from 2 are last ones. Bootstrapped from the reset, or taken for an end, they would give:
    shown_next = np.where(window.truncated[0], 0, window.next_observation[0])
    from_reset = fixed_point(s, lambda value: r + DISCOUNT * value[shown_next])
    as_end = fixed_point(s, lambda value: r + DISCOUNT * ~window.truncated[0] * value[window.next_observation[0]])
    np.testing.assert_allclose(from_reset[2], 1 / (1 - DISCOUNT * (1 + DISCOUNT**2) / 2), rtol=1e-5)
    np.testing.assert_allclose(as_end[2], 1 / (1 - DISCOUNT / 2), rtol=1e-5)


def test_true_values_have_no_advantage_anywhere_in_a_rollout():
    (window,) = rolled(corridor(), UniformRandom(lab.Discrete(1)), lab.Windows(2, future=7))
    true, window = jnp.array([8.1, 9.0, 10.0]), jax.tree.map(jnp.asarray, window)
    one = lambda w: advantages(w, true[w.observation], true[w.next_observation], discount=DISCOUNT, trace=0.95)
    np.testing.assert_allclose(jax.vmap(one)(window), np.zeros((2, 7)), atol=1e-5)


def test_a_batch_goes_on_where_the_last_one_stopped():
    first, second = rolled(corridor(), UniformRandom(lab.Discrete(1)), lab.Windows(1, future=3), batches=2)
    np.testing.assert_array_equal(first.observation[0], [0, 1, 2])
    np.testing.assert_array_equal(second.observation[0], [2, 0, 1])


def test_the_sizes_of_the_rollout_replace_those_that_were_asked_for():
    (window,) = rolled(corridor(), UniformRandom(lab.Discrete(1)), lab.Windows(1, future=3), steps=5, environments=2)
    assert window.reward.shape == (2, 5)


class Counting(lab.Policy):
    """Its action is how often it has acted since the episode began."""

    def initial_memory(self, *, key):
        return jnp.zeros(())

    def act(self, observation, memory, *, key):
        return memory[None], memory + 1


class Endless(Environment):
    """Observes nothing and ends by chance."""

    @property
    def spec(self):
        return lab.Spec(lab.Box((1,)), lab.Box((1,)), horizon=9)

    def reset(self, key):
        return jnp.zeros(()), jnp.zeros(1)

    def step(self, state, action, key):
        return state, Step(jnp.ones(1), action[0], jax.random.uniform(key) < 0.4, jnp.zeros((), bool))


def test_the_memory_is_renewed_where_an_episode_ends_and_kept_between_batches():
    first, second = rolled(Endless(), Counting(), lab.Windows(2, future=9), batches=2)
    for copy in range(2):
        action = np.concatenate([first.action[copy, :, 0], second.action[copy, :, 0]])
        ended = np.concatenate([first.terminal[copy], second.terminal[copy]])
        count, expected = 0, []
        for end in ended:
            expected.append(count)
            count = 0 if end else count + 1
        assert ended[:9].any()
        np.testing.assert_array_equal(action, expected)
        assert second.memory[copy] == expected[9]


def test_the_stored_log_probability_is_that_of_the_policy_that_acted():
    environment = lab.load_task("cartpole").environment()
    policy = lab.Categorical(width=8, depth=1).build(environment.spec, key=jax.random.key(4))
    (window,) = rolled(environment, policy, lab.Windows(2, future=6, fields=("log_prob",)))
    again = jax.vmap(policy.log_prob)(jax.tree.map(jnp.asarray, window))
    np.testing.assert_allclose(window.extra["log_prob"], again, rtol=1e-5)


def test_whole_episodes_are_padded_and_know_their_returns():
    (window,) = rolled(Endless(), Counting(), lab.WholeEpisodes(6, fields=("return_to_go",)))
    assert window.reward.shape == (6, 9)
    for episode in range(6):
        length = int(window.valid[episode].sum())
        assert window.valid[episode, :length].all()
        assert window.terminal[episode].sum() == (length < 9 or window.terminal[episode, 8])
        np.testing.assert_array_equal(window.reward[episode, :length], np.arange(length))
        expected = [sum(range(t, length)) for t in range(9)]
        np.testing.assert_array_equal(window.extra["return_to_go"][episode], expected)


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"a": lab.Steps(4)}, "use Replay"),
        ({"a": lab.Windows(4, past=1)}, "without a past"),
        ({"a": lab.Windows(4), "b": lab.Windows(4)}, "one request"),
        ({"a": lab.Windows(4, fields=("goal",))}, "knows no 'goal'"),
    ],
)
def test_what_a_rollout_cannot_give_is_said(needs, words):
    with pytest.raises(lab.BadInput, match=words):
        lab.Rollout(corridor()).serve(needs)


def test_rollouts_and_replays_conform():
    for source in (lab.Rollout(corridor()), lab.Replay(corridor(), capacity=32, warmup=8)):
        report = lab.check(source)
        assert report.passed, str(report)


def test_a_learner_without_a_policy_cannot_roll_out():
    with pytest.raises(lab.BadInput, match="needs someone who acts"):
        lab.Rollout(corridor()).serve({"a": lab.Windows(1)}).init({"world": 1}, key=jax.random.key(0))
