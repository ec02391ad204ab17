import gymnasium
import h5py
import numpy as np
import pytest

from policylab.data import d4rl
from policylab.data.arrays import timeouts
from policylab.data.validation import validate
from policylab.errors import BadInput
from tests.data.builders import d4rl_hopper, hopper_arrays


def transitions(recording):
    rows = recording.observation_rows
    return recording.observation[rows], recording.action, recording.reward, recording.observation[rows + 1], recording.terminal


def published(arrays, max_episode_steps=None):
    """D4RL's qlearning_dataset as its documentation states it, row by row: (s, a, r, s', terminal) without timed-out steps."""
    rows, step = [], 0
    for i in range(len(arrays["rewards"]) - 1):
        timed_out = arrays["timeouts"][i] if max_episode_steps is None else step == max_episode_steps - 1
        if not timed_out:
            rows.append((i, i + 1))
        step = 0 if timed_out or arrays["terminals"][i] else step + 1
    now, then = np.asarray(rows).T
    return (
        arrays["observations"][now],
        arrays["actions"][now],
        arrays["rewards"][now],
        arrays["observations"][then],
        arrays["terminals"][now],
    )


def assert_same_transitions(ours, theirs):
    terminal = theirs[4]
    for i, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        keep = ~terminal if i == 3 else slice(None)  # what "follows" a terminal step is a reset there, and never used
        np.testing.assert_array_equal(mine[keep], other[keep])


def test_without_successors_the_transitions_are_those_of_qlearning_dataset(tmp_path):
    path = d4rl_hopper(tmp_path / "hopper.hdf5", episodes=8, without=("next_observations",))
    recording = validate(d4rl.read(path))
    assert_same_transitions(transitions(recording), published(hopper_arrays(episodes=8)))
    assert recording.origin["steps_without_successor"] == 4


def test_without_timeouts_the_step_limit_tells_them(tmp_path):
    path = d4rl_hopper(tmp_path / "mine.hdf5", episodes=8, without=("next_observations", "timeouts"))
    recording = validate(d4rl.read(path, max_episode_steps=30))
    assert_same_transitions(transitions(recording), published(hopper_arrays(episodes=8), max_episode_steps=30))
    assert recording.spec.horizon == 30
    with h5py.File(path, "a") as file:
        file.attrs["max_episode_steps"] = 30
    np.testing.assert_array_equal(d4rl.read(path).lengths, recording.lengths)


def test_with_successors_no_step_is_lost(tmp_path):
    arrays = hopper_arrays()
    recording = validate(d4rl.read(d4rl_hopper(tmp_path / "hopper_medium-v2.hdf5")))
    observation, action, reward, following, terminal = transitions(recording)
    np.testing.assert_array_equal(following, arrays["next_observations"])
    np.testing.assert_array_equal(observation, arrays["observations"])
    np.testing.assert_array_equal(action, arrays["actions"])
    np.testing.assert_array_equal(reward, arrays["rewards"])
    np.testing.assert_array_equal(terminal, arrays["terminals"])
    np.testing.assert_array_equal(recording.truncated, arrays["timeouts"])
    np.testing.assert_array_equal(recording.extra["action_log_probs"], np.full(recording.steps, -1.5, np.float32))
    assert recording.spec.horizon == 1000


def test_glued_recordings_are_cut_where_they_were_glued(tmp_path):
    path = tmp_path / "medium-expert.hdf5"
    one, other = hopper_arrays(episodes=3, seed=0), hopper_arrays(episodes=3, seed=1)
    with h5py.File(path, "w") as file:
        for name in one:  # the first part stops in the middle of an episode, as some published files do
            file[name] = np.concatenate([one[name][:-10], other[name]])
    recording = validate(d4rl.read(path))
    assert recording.origin["breaks"] == 1
    assert recording.truncated[len(one["rewards"]) - 11]


def test_columns_with_a_trailing_axis_of_one_are_read_as_flags(tmp_path):
    path, arrays = tmp_path / "old.hdf5", hopper_arrays()
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values[:, None] if values.ndim == 1 else values
    recording = validate(d4rl.read(path))
    np.testing.assert_array_equal(recording.reward, arrays["rewards"])


def test_a_failure_is_not_a_timeout():
    terminal = np.zeros(12, bool)
    terminal[[3, 8]] = True
    np.testing.assert_array_equal(np.flatnonzero(timeouts(terminal, 3, 12)), [2, 6, 11])
    np.testing.assert_array_equal(np.flatnonzero(timeouts(terminal, 5, 12)), [])


@pytest.mark.parametrize(
    ("name", "environment", "limit"),
    [
        ("hopper_medium-v2", "Hopper-v5", 1000),
        ("halfcheetah-medium-expert-v0", "HalfCheetah-v5", 1000),
        ("walker2d", "Walker2d-v5", 1000),
        ("maze2d-umaze-sparse-v1", "PointMaze_UMaze-v3", 300),
        ("antmaze-large-diverse-v2", "AntMaze_Large-v5", 1000),
        ("Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed", "AntMaze_UMaze-v5", 700),
        ("pen-human-v1", "AdroitHandPen-v1", 100),
    ],
)
def test_names_of_d4rl_lead_to_todays_environments(name, environment, limit):
    found = d4rl.gymnasium_id(name)
    assert found[:2] == (environment, limit)
    assert "not D4RL scores" in found[2]


def test_every_named_environment_exists():
    import gymnasium_robotics

    gymnasium.register_envs(gymnasium_robotics)
    assert {environment for environment, _ in d4rl.ENVIRONMENTS.values()} <= set(gymnasium.registry)
    assert d4rl.gymnasium_id("warehouse") is None


def test_what_is_written_is_read_again_unchanged(tmp_path):
    recording = d4rl.read(d4rl_hopper(tmp_path / "hopper.hdf5"))
    d4rl.write(recording, tmp_path / "copy.hdf5")
    again = d4rl.read(tmp_path / "copy.hdf5")
    for name in ("observation", "action", "reward", "terminal", "truncated", "lengths"):
        np.testing.assert_array_equal(getattr(recording, name), getattr(again, name))
    assert again.spec == recording.spec


def test_robomimic_files_are_named_as_such(tmp_path):
    with h5py.File(tmp_path / "low_dim.hdf5", "w") as file:
        file["data/demo_0/actions"] = np.zeros((3, 2))
    with pytest.raises(BadInput, match="robomimic"):
        d4rl.read(tmp_path / "low_dim.hdf5")
