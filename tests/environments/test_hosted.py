import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from policylab import spaces
from policylab.environment import unroll
from policylab.environments.hosted import Gymnasium, explained
from policylab.errors import BadInput
from policylab.policy import Policy

MAZE = {"continuing_task": False}


class Table(Policy):
    """Plays a fixed list of actions, whatever it sees; its memory is the time."""

    actions: jax.Array

    def initial_memory(self, *, key):
        return jnp.zeros((), jnp.int32)

    def act(self, observation, memory, *, key):
        return self.actions[memory], memory + 1


def by_hand(name, seed, actions, **arguments):
    """Observations (with the first), rewards and flags of one episode, as Gymnasium alone gives them."""
    simulator = gymnasium.make(name, **arguments)
    observations, rows = [simulator.reset(seed=seed)[0]], []
    for action in actions:
        action = int(action) if isinstance(simulator.action_space, gymnasium.spaces.Discrete) else action
        observation, *row, _ = simulator.step(action)
        observations.append(observation)
        rows.append(row)
        if row[1] or row[2]:
            break
    simulator.close()
    return observations, *(np.array(column) for column in zip(*rows, strict=True))


@pytest.mark.parametrize(("name", "arguments"), [("Pendulum-v1", {}), ("CartPole-v1", {}), ("PointMaze_UMaze-v3", MAZE)])
def test_equals_gymnasium_by_hand_to_the_bit(name, arguments):
    environment, key, count = Gymnasium(name, **arguments), jax.random.key(3), 2
    actions = jax.vmap(lambda k: spaces.sample(environment.spec.action, key=k))(jax.random.split(key, 310))
    horizon = environment.spec.horizon if name != "CartPole-v1" else 60
    play = jax.jit(lambda policy: unroll(policy, environment, episodes=count, horizon=horizon, key=key))
    episodes = jax.device_get(play(Table(actions)))
    for i in range(count):
        seed = int(jax.random.bits(jax.random.split(jax.random.fold_in(key, i), 3)[0]))
        observations, reward, terminal, truncated = by_hand(name, seed, np.asarray(actions[:horizon]), **arguments)
        length = len(reward)
        assert length == int(episodes.lengths[i])
        for time in range(length + 1):
            jax.tree.map(
                lambda ours, theirs: np.testing.assert_array_equal(ours[i, time], theirs.astype(np.float32)),  # noqa: B023
                episodes.observation,
                observations[time],
            )
        np.testing.assert_array_equal(episodes.reward[i, :length], reward.astype(np.float32))
        np.testing.assert_array_equal(episodes.terminal[i, :length], terminal)
        np.testing.assert_array_equal(episodes.truncated[i, :length], truncated)
    assert bool(jnp.all(episodes.terminal.any(1) != episodes.truncated.any(1)))


def test_pendulum_is_truncated_and_cartpole_terminates():
    environment = Gymnasium("Pendulum-v1")
    episodes = jax.jit(lambda p: unroll(p, environment, episodes=1, horizon=210, key=jax.random.key(0)))(
        Table(jnp.zeros((210, 1)))
    )
    assert int(episodes.lengths[0]) == 200
    assert bool(episodes.truncated[0, 199])
    assert not bool(episodes.terminal.any())
    environment = Gymnasium("CartPole-v1", horizon=7)
    assert environment.spec.horizon == 7
    play = jax.jit(lambda p: unroll(p, environment, episodes=8, horizon=20, key=jax.random.key(0)))
    assert int(play(Table(jnp.arange(20) % 2)).lengths.max()) == 7
    environment = Gymnasium("CartPole-v1")
    ended = jax.jit(lambda p: unroll(p, environment, episodes=2, horizon=20, key=jax.random.key(0)))(
        Table(jnp.ones(20, jnp.int32))
    )
    assert bool(ended.terminal.any(1).all())
    assert not bool(ended.truncated.any())


def test_nested_vmaps_fold_into_one_call_and_match_single_steps():
    environment, calls = Gymnasium("Pendulum-v1"), []
    step = environment.host.step
    keys = jax.random.split(jax.random.key(1), (3, 2))
    torque = jax.random.uniform(jax.random.key(2), (3, 2, 1), minval=-2, maxval=2)
    states, _ = jax.vmap(jax.vmap(environment.reset))(keys)
    environment.host.step = lambda *values: calls.append(len(values[0])) or step(*values)
    from policylab.environments import hosted

    fresh = hosted._folding(environment.host, environment.host.step, lambda n: hosted._step_results(environment.host, n))
    _, observation, reward, *_ = jax.jit(jax.vmap(jax.vmap(lambda s, a: hosted._one(fresh, s.slot, s.moves, a))))(
        states, torque
    )
    del environment.host.step
    assert calls == [6]
    for i in range(3):
        for j in range(2):
            _, single = environment.step(environment.reset(keys[i, j])[0], torque[i, j], keys[i, j])
            np.testing.assert_array_equal(observation[i, j], single.observation)
            assert float(reward[i, j]) == float(single.reward)


def test_same_key_same_start_and_policies_share_starts():
    environment = Gymnasium("PointMaze_UMaze-v3", **MAZE)
    a, b, c = (environment.reset(jax.random.key(k))[1] for k in (5, 5, 6))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert not np.array_equal(a["observation"], c["observation"])
    # Two policies under vmap share one reset; the host opens another slot from the same seed for the second one.
    tables = Table(jnp.stack([jnp.ones((5, 2)), -jnp.ones((5, 2))]))
    play = jax.jit(jax.vmap(lambda p: unroll(p, environment, episodes=2, horizon=5, key=jax.random.key(0))))
    observation = play(tables).observation["observation"]
    np.testing.assert_array_equal(observation[0, :, 0], observation[1, :, 0])
    assert not np.array_equal(observation[0, :, 1], observation[1, :, 1])


def test_a_state_can_only_be_stepped_once_beyond_its_start():
    environment, key, torque = Gymnasium("Pendulum-v1"), jax.random.key(0), jnp.ones(1)
    start, _ = environment.reset(key)
    middle, first = environment.step(start, torque, key)
    _, again = environment.step(start, torque, key)
    np.testing.assert_array_equal(first.observation, again.observation)
    environment.step(middle, torque, key)
    with pytest.raises(BadInput, match="stepped twice"), explained():
        environment.step(middle, -torque, key)


def test_renew_resets_only_what_ended_and_the_last_observation_is_kept():
    environment = Gymnasium("CartPole-v1", horizon=3)
    keys = jax.random.split(jax.random.key(0), 2)

    @jax.jit
    def roll(keys):
        state, observation = jax.vmap(environment.reset)(keys)

        def move(carry, time):
            state, _ = carry
            push = jnp.asarray([0, 1]) * (time % 2)
            state, step = jax.vmap(environment.step)(state, push, keys)
            ended = step.terminal | step.truncated
            fresh = jax.vmap(lambda k: jax.random.fold_in(k, time))(keys)
            return jax.vmap(environment.renew)(state, step.observation, ended, fresh), (step.observation, ended, step.truncated)

        _, rows = jax.lax.scan(move, (state, observation), jnp.arange(7))
        return rows

    observation, ended, truncated = roll(keys)
    np.testing.assert_array_equal(ended[:, 0], [False, False, True] * 2 + [False])
    np.testing.assert_array_equal(ended, truncated)
    simulator = gymnasium.make("CartPole-v1")
    simulator.reset(seed=int(jax.random.bits(keys[1])))
    for time in range(3):
        by_hand = simulator.step(time % 2)[0]
        np.testing.assert_array_equal(observation[time, 1], by_hand)
    simulator.reset(seed=int(jax.random.bits(jax.random.fold_in(keys[1], 2))))
    np.testing.assert_array_equal(observation[3, 1], simulator.step(1)[0])


def test_success_is_reported_where_the_environment_does():
    pendulum, key = Gymnasium("Pendulum-v1"), jax.random.key(0)
    assert pendulum.step(pendulum.reset(key)[0], jnp.zeros(1), key)[1].info == {}
    environment = Gymnasium("PointMaze_UMaze-v3", **MAZE)
    _, step = environment.step(environment.reset(jax.random.key(0))[0], jnp.zeros(2), jax.random.key(0))
    assert float(step.info["success"]) == 0.0
    assert environment.spec.horizon == 300
    assert [name for name, _ in environment.spec.observation.parts] == ["achieved_goal", "desired_goal", "observation"]


class Mixed(gymnasium.Env):
    """Actions of every kind, echoed in the observation."""

    pair = gymnasium.spaces.Tuple((gymnasium.spaces.Discrete(4), gymnasium.spaces.Box(-1, 1, (2,))))
    action_space = gymnasium.spaces.Dict({"many": gymnasium.spaces.MultiDiscrete([2, 3]), "pair": pair})
    observation_space = gymnasium.spaces.Tuple((gymnasium.spaces.Box(-9, 9, (5,), np.float64), gymnasium.spaces.MultiBinary(2)))

    def reset(self, *, seed=None, options=None):
        return (np.zeros(5), np.zeros(2, np.int8)), {}

    def step(self, action):
        assert action["many"].dtype == np.int64
        assert isinstance(action["pair"], tuple)
        return (
            (np.concatenate([action["many"], [action["pair"][0]], action["pair"][1]]), np.ones(2, np.int8)),
            1.0,
            False,
            False,
            {},
        )


def test_spaces_of_every_kind():
    environment = Gymnasium(Mixed)
    action = {"many": {"0": 1, "1": 2}, "pair": {"0": 3, "1": jnp.array([0.5, -0.5])}}
    _, step = environment.step(environment.reset(jax.random.key(0))[0], action, jax.random.key(0))
    np.testing.assert_array_equal(step.observation["0"], [1, 2, 3, 0.5, -0.5])
    np.testing.assert_array_equal(step.observation["1"], [1, 1])


def test_unknown_names_and_arguments_are_one_sentence():
    with pytest.raises(BadInput, match=r"did you mean CartPole-v1\?"):
        Gymnasium("CartPol-v1")
    with pytest.raises(BadInput, match="Gymnasium knows no environment called 'Nonsense-v77'"):
        Gymnasium("Nonsense-v77")
    with pytest.raises(BadInput, match="CartPole-v1 cannot be made with"):
        Gymnasium("CartPole-v1", wings=2)
    with pytest.raises(BadInput, match="takes no further arguments"):
        Gymnasium(Mixed, wings=2)
    assert Gymnasium("Pendulum-v1").host is Gymnasium("Pendulum-v1").host
