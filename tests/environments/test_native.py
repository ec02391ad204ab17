import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from policylab import spaces
from policylab.environment import unroll
from policylab.environments.cartpole import CartPole
from policylab.environments.finite import chain, gridworld
from policylab.environments.pendulum import Pendulum
from policylab.environments.pointmass import PointMass
from policylab.environments.time_limit import TimeLimit
from policylab.errors import BadInput, Unsupported
from policylab.evaluation.frames import frames
from policylab.policy import Policy

KEY = jax.random.key(0)


class Random(Policy):
    space: spaces.Space = eqx.field(static=True)

    def act(self, observation, memory, *, key):
        return spaces.sample(self.space, key=key), None


def test_pendulum_steps_as_gymnasium_does():
    simulator, environment = gymnasium.make("Pendulum-v1").unwrapped, Pendulum()
    step = jax.jit(environment.step)
    rng = np.random.default_rng(0)
    simulator.reset(seed=0)
    for _ in range(300):
        angle, speed = rng.uniform(-9, 9), rng.uniform(-8, 8)
        torque = rng.uniform(-3, 3, 1).astype(np.float32)
        simulator.state = np.array([angle, speed])
        observation, reward, *_ = simulator.step(torque)
        state, ours = step(jnp.array([angle, speed]), torque, KEY)
        np.testing.assert_allclose(ours.observation, observation, atol=2e-5)
        np.testing.assert_allclose(ours.reward, reward, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(environment.at(ours.observation)[1], state[1], atol=1e-6)
        np.testing.assert_allclose(jnp.cos(environment.at(ours.observation)[0]), jnp.cos(state[0]), atol=1e-5)
    assert spaces.describe(environment.spec.action) == spaces.describe(spaces.from_gymnasium(simulator.action_space))
    assert environment.spec.observation == spaces.from_gymnasium(simulator.observation_space)


def test_cartpole_steps_as_gymnasium_does():
    simulator, environment = gymnasium.make("CartPole-v1").unwrapped, CartPole()
    step = jax.jit(environment.step)
    rng = np.random.default_rng(0)
    simulator.reset(seed=0)
    ends = []
    for _ in range(400):
        start, action = rng.uniform(-1, 1, 4) * [2.5, 2, 0.22, 2], int(rng.integers(2))
        simulator.state, simulator.steps_beyond_terminated = start, None
        observation, reward, terminal, *_ = simulator.step(action)
        _, ours = step(jnp.asarray(start, jnp.float32), jnp.asarray(action), KEY)
        np.testing.assert_allclose(ours.observation, observation, atol=1e-5)
        assert (float(ours.reward), bool(ours.terminal)) == (reward, terminal)
        ends.append(terminal)
    assert 0.1 < np.mean(ends) < 0.9
    assert spaces.describe(environment.spec.observation) == "Box(4)"


def test_time_limit_alone_truncates_and_a_terminal_last_step_is_no_truncation():
    limited = TimeLimit(Pendulum(), 5)
    assert limited.spec.horizon == 5
    assert TimeLimit(limited, 9).spec.horizon == 5
    play = jax.jit(lambda p: unroll(p, limited, episodes=2, horizon=8, key=KEY))
    episodes = play(Random(Pendulum().spec.action))
    np.testing.assert_array_equal(episodes.lengths, [5, 5])
    np.testing.assert_array_equal(episodes.truncated[:, 4], [True, True])
    assert not bool(episodes.terminal.any())
    pole = TimeLimit(CartPole(), 1)
    state, _ = pole.reset(KEY)
    fallen = jnp.array([2.5, 0.0, 0.0, 0.0])
    _, step = pole.step(pole.at(fallen), jnp.asarray(0), KEY)
    assert bool(step.terminal)
    assert not bool(step.truncated)
    state, observation = pole.renew(pole.step(state, jnp.asarray(1), KEY)[0], fallen, jnp.asarray(True), KEY)
    assert int(state.taken) == 0
    np.testing.assert_array_equal(observation, pole.reset(KEY)[1])
    kept, same = pole.renew(state, fallen, jnp.asarray(False), KEY)
    np.testing.assert_array_equal(same, fallen)
    assert int(kept.taken) == 0
    with pytest.raises(BadInput, match="leaves no episode"):
        TimeLimit(Pendulum(), 0)


def test_point_mass_noise_is_in_the_dynamics():
    quiet, noisy = PointMass(), PointMass(noise=0.05)
    state = jnp.zeros(2)
    keys = jax.random.split(KEY, 4_000)
    move = jax.jit(jax.vmap(lambda e, k: e.step(state, jnp.array([0.5, -3.0]), k)[1].observation, in_axes=(None, 0)))
    np.testing.assert_allclose(move(quiet, keys)[0], [0.025, -0.05], atol=1e-6)
    moved = move(noisy, keys)
    np.testing.assert_allclose(moved.mean(0), [0.025, -0.05], atol=0.004)
    np.testing.assert_allclose(moved.std(0), 0.05, rtol=0.05)
    assert move._cache_size() == 1  # another sigma compiles nothing


def test_point_mass_meets_obstacles_goals_and_walls():
    wall = PointMass(obstacle=(0.0, 0.0, 0.2), gain=20.0)  # 1 m per step: it would jump over the obstacle
    _, step = wall.step(jnp.array([-0.5, 0.0]), jnp.array([1.0, 0.0]), KEY)
    np.testing.assert_allclose(step.observation, [-0.5, 0.0])
    assert float(step.info["touched"]) == 1.0
    deadly = PointMass(obstacle=(0.0, 0.0, 0.2), gain=20.0, deadly=True, penalty=7.0)
    _, step = deadly.step(jnp.array([-0.5, 0.0]), jnp.array([1.0, 0.0]), KEY)
    assert bool(step.terminal)
    assert float(step.reward) == -8.0
    assert float(step.info["success"]) == 0.0
    _, step = deadly.step(jnp.array([-0.2, 0.5]), jnp.array([1.0, -0.5]), KEY)
    assert bool(step.terminal)
    assert float(step.reward) == 0.0
    assert float(step.info["success"]) == 1.0
    forced = PointMass(order=2, drag=2.0, gain=4.0)
    state, step = forced.step(jnp.array([0.0, 0.0, 1.0, 0.0]), jnp.array([0.0, 1.0]), KEY)
    np.testing.assert_allclose(state, [0.045, 0.01, 0.9, 0.2], atol=1e-6)
    state, _ = forced.step(jnp.array([0.0, 0.99, 0.0, 1.0]), jnp.array([0.0, 1.0]), KEY)
    np.testing.assert_allclose(state, [0.0, 1.0, 0.0, 0.0], atol=1e-6)
    shaped = PointMass(shaped=True)
    _, step = shaped.step(jnp.array([0.0, 0.0]), jnp.zeros(2), KEY)
    np.testing.assert_allclose(step.reward, -0.8, atol=1e-6)
    starts = jax.vmap(lambda k: PointMass(start=(0.1, 0.2, 0.3, 0.4)).reset(k)[1])(jax.random.split(KEY, 200))
    np.testing.assert_allclose(starts.min(0), [0.1, 0.2], atol=0.01)
    np.testing.assert_allclose(starts.max(0), [0.3, 0.4], atol=0.01)
    with pytest.raises(BadInput, match="order 3 is not known"):
        PointMass(order=3)


MAZE = gridworld(("S.#", "..G"))


@pytest.mark.parametrize(
    ("environment", "first", "second"),
    [
        (Pendulum(), [1.0, 0.0, 0.0], [0.98, 0.2, 0.0]),
        (CartPole(), [0.0, 0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.0]),
        (TimeLimit(PointMass(obstacle=(0, 0, 0.2)), 10), [-0.5, 0.0], [-0.45, 0.0]),
        (TimeLimit(MAZE, 10), 0, 1),
        (chain(12), 0, 11),
    ],
)
def test_pictures_show_the_observation(environment, first, second):
    before, after = environment.picture(np.asarray(first)), environment.picture(np.asarray(second))
    assert before.shape[1:] == (320, 3)
    assert before.shape == after.shape
    assert before.dtype == np.uint8
    assert (before != after).any()
    assert (before == environment.picture(np.asarray(first))).all()


def test_the_agent_stands_in_its_cell():
    for state, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]):
        picture = MAZE.picture(np.asarray(state)).astype(int)
        blue = np.argwhere((picture[..., 2] - picture[..., 0] > 80) & (picture[..., 0] < 80))
        cell = (blue.mean(0) / picture.shape[0] * 2.2 - 0.1).astype(int)
        assert tuple(cell) == (row, column)


def test_frames_are_evenly_spaced_pictures_of_one_episode():
    found = frames(Random(MAZE.spec.action), TimeLimit(MAZE, 40), seed=1, most=10)
    assert 2 <= len(found) <= 11
    assert {frame.shape for frame in found} == {MAZE.picture(np.asarray(0)).shape}
    assert (found[0] == MAZE.picture(np.asarray(0))).all()


def test_an_environment_without_pictures_says_so():
    from policylab.environments.hosted import Gymnasium

    with pytest.raises(Unsupported, match="cannot draw"):
        Gymnasium("Pendulum-v1").picture(np.zeros(3))
