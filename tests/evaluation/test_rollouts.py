import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from policylab import spaces
from policylab.environment import Environment, Step, unroll
from policylab.environments.hosted import Gymnasium
from policylab.errors import BadInput
from policylab.evaluation.rollouts import collect, evaluate
from policylab.experience import Spec
from policylab.policy import Policy

KEY = jax.random.key(11)


class Linear(Policy):
    """A noisy linear policy that remembers how often it acted."""

    weight: jax.Array

    def initial_memory(self, *, key):
        return jnp.zeros((), jnp.int32)

    def act(self, observation, memory, *, key):
        flat = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(observation)])
        return jnp.tanh(self.weight @ flat + 0.1 * jax.random.normal(key, (1,)) + 0.01 * memory), memory + 1


class Choosing(Linear):
    def act(self, observation, memory, *, key):
        action, memory = Linear.act(self, observation, memory, key=key)
        return (action[0] > 0).astype(jnp.int32), memory


class Countdown(Environment):
    """Ends once the sum of actions reaches the number drawn at the start; the reward is the action."""

    @property
    def spec(self):
        return Spec(spaces.Box((1,)), spaces.Box((1,), -1.0, 1.0), horizon=30, environment="countdown")

    def reset(self, key):
        left = jax.random.uniform(key, (1,), minval=2.0, maxval=8.0)
        return left, left

    def step(self, state, action, key):
        left = state - jnp.abs(action) - 0.1 * jax.random.uniform(key)
        done = left[0] <= 0
        return left, Step(left, action[0], done, jnp.asarray(False), info={"success": done.astype(jnp.float32)})


def stack(kind, width, seeds):
    return kind(jax.random.normal(jax.random.key(0), (seeds, 1, width)))


def one(policies, seed):
    return jax.tree.map(lambda leaf: leaf[seed], policies)


def unrolled(policies, environment, seeds, episodes, horizon):
    play = jax.jit(lambda policy: unroll(policy, environment, episodes=episodes, horizon=horizon, key=KEY))
    return [jax.device_get(play(one(policies, seed))) for seed in range(seeds)]


def test_native_evaluation_equals_unroll_on_common_random_numbers():
    policies, environment = stack(Linear, 1, 3), Countdown()
    trials = evaluate(policies, environment, episodes=5, seeds=[4, 7, 9], key=KEY, name="mine")
    oracle = unrolled(policies, environment, 3, 5, 30)
    np.testing.assert_allclose(trials.matrix("mine"), [e.returns for e in oracle], rtol=1e-5)
    np.testing.assert_array_equal(trials.matrix("mine", "success"), [e.success for e in oracle])
    np.testing.assert_array_equal(trials.matrix("mine", "length"), [e.lengths for e in oracle])
    np.testing.assert_array_equal(np.unique(trials.seed), [4, 7, 9])
    again = evaluate(one(policies, np.array([2, 2])), environment, episodes=5, seeds=[0, 1], key=KEY, name="mine")
    np.testing.assert_array_equal(again.matrix("mine")[0], again.matrix("mine")[1])
    np.testing.assert_allclose(again.matrix("mine")[0], trials.matrix("mine")[2], rtol=1e-5)
    # More episodes leave the first ones as they were: episode i depends on the key and i alone.
    more = evaluate(policies, environment, episodes=8, seeds=[4, 7, 9], key=KEY, name="mine")
    np.testing.assert_allclose(more.matrix("mine")[:, :5], trials.matrix("mine"), rtol=1e-5)


def test_hosted_evaluation_equals_unroll_inside_the_compiled_program():
    policies, environment = stack(Choosing, 4, 2), Gymnasium("CartPole-v1")
    trials = evaluate(policies, environment, episodes=30, seeds=[0, 1], key=KEY)
    oracle = unrolled(policies, environment, 2, 30, 150)
    np.testing.assert_array_equal(trials.matrix("policy"), [e.returns for e in oracle])
    np.testing.assert_array_equal(trials.matrix("policy", "length"), [e.lengths for e in oracle])
    assert np.isnan(trials.success).all()


def test_nothing_is_compiled_again_for_another_key_horizon_or_policy():
    policies, environment = stack(Linear, 1, 3), Countdown()
    from policylab.evaluation import rollouts

    for round in range(3):
        evaluate(stack(Linear, 1, 3), environment, episodes=5, seeds=range(3), key=jax.random.key(round), horizon=20 + round)
        if round == 0:
            before = rollouts._sums._cache_size()
    assert rollouts._sums._cache_size() == before
    assert len(evaluate(policies, environment, episodes=5, seeds=range(3), key=KEY, horizon=1)) == 15


@pytest.mark.parametrize(("kind", "environment", "width"), [(Choosing, Gymnasium("CartPole-v1"), 4), (Linear, Countdown(), 1)])
def test_collected_episodes_are_whole(kind, environment, width):
    policy = one(stack(kind, width, 1), 0)
    recording = collect(policy, environment, episodes=6, key=KEY, name="six")
    assert recording.episodes == 6
    assert len(jax.tree.leaves(recording.observation)[0]) == recording.steps + 6
    ends = recording.starts + recording.lengths - 1
    inside = np.setdiff1d(np.arange(recording.steps), ends)
    assert (recording.terminal | recording.truncated)[ends].all()
    assert not (recording.terminal | recording.truncated)[inside].any()
    assert not (recording.terminal & recording.truncated).any()
    rows = recording.observation_rows
    np.testing.assert_array_equal(rows[inside + 1], rows[inside] + 1)
    again = collect(policy, environment, episodes=6, key=KEY)
    np.testing.assert_array_equal(again.action, recording.action)
    short = collect(policy, environment, episodes=3, key=KEY, horizon=2)
    np.testing.assert_array_equal(short.lengths, [2, 2, 2])
    assert short.truncated[1::2].all()
    enough = collect(policy, environment, steps=100, key=KEY)
    assert enough.steps >= 100 > enough.steps - enough.lengths[-1]


def test_collected_rows_are_what_gymnasium_gives():
    recording = collect(one(stack(Choosing, 4, 1), 0), Gymnasium("CartPole-v1"), episodes=3, key=KEY)
    simulator = gymnasium.make("CartPole-v1")
    for episode, start in enumerate(recording.starts):
        first = start + episode
        seed = int(jax.random.bits(jax.random.split(jax.random.fold_in(jax.random.fold_in(KEY, 0), episode), 3)[0]))
        np.testing.assert_array_equal(simulator.reset(seed=seed)[0], recording.observation[first])
        for time in range(recording.lengths[episode]):
            observation, reward, terminal, _, _ = simulator.step(int(recording.action[start + time]))
            np.testing.assert_array_equal(observation, recording.observation[first + time + 1])
            assert (reward, terminal) == (recording.reward[start + time], recording.terminal[start + time])


def test_what_does_not_fit_is_one_sentence():
    with pytest.raises(BadInput, match=r"actions of shape \(1,\) but CartPole-v1 takes Discrete\(2\)"):
        evaluate(stack(Linear, 4, 1), Gymnasium("CartPole-v1"), episodes=1, seeds=[0], key=KEY)
    with pytest.raises(BadInput, match=r"cannot read observations of Box\(3\)"):
        evaluate(stack(Linear, 4, 1), Gymnasium("Pendulum-v1"), episodes=1, seeds=[0], key=KEY)
    with pytest.raises(BadInput, match="either a number of episodes or a number of steps"):
        collect(one(stack(Linear, 1, 1), 0), Countdown(), key=KEY)
