import json

import numpy as np
import pytest

from policylab import spaces
from policylab.data import minari
from policylab.data.recording import Recording, recording_from_steps
from policylab.data.validation import validate
from policylab.experience import Spec
from tests.data.builders import minari_pendulum, pendulum_steps

STORAGES = ["hdf5", "arrow", "parquet"]
# What Minari warns about where a dataset names no environment; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:`eval_env` is set to None", "ignore:env_spec is None")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    (tmp_path / "minari").mkdir()
    return tmp_path / "minari"


def assert_equal(one: Recording, other: Recording):
    import jax

    for name in ("observation", "action", "reward", "terminal", "truncated", "lengths", "extra"):
        jax.tree.map(np.testing.assert_array_equal, getattr(one, name), getattr(other, name))
    assert one.spec == other.spec


def mixed() -> Recording:
    """PointMaze-like dict observations with a choice among the parts, composite actions, vectors and choices in extra."""
    random = np.random.default_rng(0)
    steps = 9
    observation = {
        "achieved_goal": random.normal(size=(steps, 2)).astype(np.float32),
        "camera": random.integers(0, 255, (steps, 40, 36, 3), np.uint8),
        "desired_goal": random.normal(size=(steps, 2)).astype(np.float32),
        "room": random.integers(0, 3, steps).astype(np.int32),
    }
    box = spaces.Box((2,))
    space = spaces.Composite(
        (
            ("achieved_goal", box),
            ("camera", spaces.Box((40, 36, 3), 0.0, 255.0, "uint8")),
            ("desired_goal", box),
            ("room", spaces.Discrete(3, ("hall", "kitchen", "attic"))),
        )
    )
    action = {
        "force": random.uniform(-1, 1, (steps, 2)).astype(np.float32),
        "grip": random.integers(0, 2, steps).astype(np.int32),
    }
    spec = Spec(
        space,
        spaces.Composite((("force", spaces.Box((2,), -1.0, 1.0)), ("grip", spaces.Discrete(2)))),
        horizon=5,
        control_rate=10.0,
    )
    return recording_from_steps(
        observation,
        action,
        random.normal(size=steps),
        [0, 0, 1, 0, 0, 0, 0, 0, 1],
        spec=spec,
        extra={"success": np.arange(steps) % 2 == 0, "qpos": random.normal(size=(steps, 3))},
        name="mixed-v0",
    )


@pytest.mark.parametrize("storage", STORAGES)
def test_reads_what_minari_writes(root, storage):
    recording = validate(minari.read(minari.local_path(minari_pendulum(root, data_format=storage))))
    steps = pendulum_steps()
    assert recording.name == "pendulum/swingup-v0"
    np.testing.assert_array_equal(recording.observation.reshape(6, 26, 3), steps["observations"])
    np.testing.assert_array_equal(recording.action.reshape(6, 25, 1), steps["actions"])
    np.testing.assert_array_equal(recording.reward.reshape(6, 25), steps["rewards"])
    np.testing.assert_array_equal(np.flatnonzero(recording.truncated), np.arange(24, 150, 25))
    assert not recording.terminal.any()
    assert recording.spec.environment == "Pendulum-v1"
    assert recording.spec.horizon == 200
    assert recording.spec.action == spaces.Box((1,), -2.0, 2.0)
    np.testing.assert_array_equal(recording.extra["energy"][:25], np.arange(1, 26))  # the reset's info is not a step's
    assert recording.origin["algorithm_name"] == "energy shaping"


@pytest.mark.parametrize("storage", STORAGES)
def test_minari_reads_what_we_write(root, storage):
    import minari as real

    ours = minari.read(minari.local_path(minari_pendulum(root)))
    minari.write(ours, root / "ours" / "copy-v3", dataset_id="ours/copy-v3", storage=storage)
    dataset = real.load_dataset("ours/copy-v3")
    assert (dataset.total_episodes, dataset.total_steps, dataset.id) == (6, 150, "ours/copy-v3")
    assert dataset.observation_space == real.load_dataset("pendulum/swingup-v0").observation_space
    assert dataset.action_space == real.load_dataset("pendulum/swingup-v0").action_space
    for one, other in zip(real.load_dataset("pendulum/swingup-v0").iterate_episodes(), dataset.iterate_episodes(), strict=True):
        for field in ("observations", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
        np.testing.assert_array_equal(one.infos["energy"][1:], other.infos["energy"][1:])
    assert dataset.recover_environment().spec.id == "Pendulum-v1"
    assert "ours/copy-v3" in real.list_local_datasets()
    assert len(dataset.filter_episodes(lambda episode: episode.rewards.sum() > -100)) < 6


@pytest.mark.parametrize("storage", STORAGES)
def test_named_parts_choices_and_pictures_survive_both_ways(root, storage):
    import minari as real

    recording = mixed()
    minari.write(recording, root / "mixed-v0", storage=storage)
    assert_equal(minari.read(root / "mixed-v0"), recording)
    dataset = real.load_dataset("mixed-v0")
    episode = dataset[0]
    assert dataset.observation_space.contains({name: part[0] for name, part in episode.observations.items()})
    np.testing.assert_array_equal(episode.observations["camera"], recording.observation["camera"][:4])
    np.testing.assert_array_equal(episode.actions["grip"], recording.action["grip"][:3])
    np.testing.assert_array_equal(episode.infos["qpos"][1:], recording.extra["qpos"][:3])


def test_reads_point_maze_collected_by_minari(root):
    import gymnasium
    import minari as real

    class Maze(gymnasium.Env):
        """PointMaze's spaces: a dict of float64 vectors."""

        vector = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        observation_space = gymnasium.spaces.Dict(
            {
                "observation": gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64),
                "achieved_goal": vector,
                "desired_goal": vector,
            }
        )
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.at = np.zeros(4)
            return self._see(), {"success": False}

        def step(self, action):
            self.at = self.at + np.concatenate([action, action])
            return self._see(), 1.0, False, False, {"success": bool(self.at[0] > 0)}

        def _see(self):
            return {"observation": self.at, "achieved_goal": self.at[:2], "desired_goal": np.ones(2)}

    env = real.DataCollector(gymnasium.wrappers.TimeLimit(Maze(), 7), record_infos=True)
    env.action_space.seed(0)
    temporary = env._tmp_dir
    for episode in range(3):
        env.reset(seed=episode)
        for _ in range(7 if episode < 2 else 4):  # the last episode is left unfinished
            env.step(env.action_space.sample())
    dataset = env.create_dataset(
        "maze/random-v0", algorithm_name="random", author="a", author_email="a@b", code_permalink="c", description="d"
    )
    for folder in (temporary, env._tmp_dir):  # Minari leaves both to the garbage collector, which warns
        folder.cleanup()
    recording = validate(minari.read(minari.local_path("maze/random-v0")))
    np.testing.assert_array_equal(recording.lengths, [7, 7, 4])
    assert spaces.describe(recording.spec.observation) == "{achieved_goal: Box(2), desired_goal: Box(2), observation: Box(4)}"
    for number, episode in enumerate(dataset.iterate_episodes()):
        ours = recording.select(np.array([number]))
        np.testing.assert_array_equal(ours.observation["observation"], episode.observations["observation"].astype(np.float32))
        np.testing.assert_array_equal(ours.extra["success"], np.asarray(episode.infos["success"])[1:])
    np.testing.assert_array_equal(np.flatnonzero(recording.truncated), [6, 13, 17])


@pytest.mark.parametrize("storage", ["hdf5", "arrow"])
def test_other_spaces_of_minari_become_ours(root, storage):
    import gymnasium
    import minari as real
    from minari.data_collector import EpisodeBuffer

    kinds = gymnasium.spaces
    observation = kinds.Tuple((kinds.Discrete(5, start=2), kinds.MultiBinary(3), kinds.Text(12)))
    words = ["find the key", "find the door", "find the key"]
    buffers = [
        EpisodeBuffer(
            observations=(np.array([2, 6, 3]), np.eye(3, dtype=np.int8), words),
            actions=np.array([[0, 2], [1, 0]]),
            rewards=[0.0, 1.0],
            terminations=[False, True],
            truncations=[False, False],
            infos={"note": ["a", "b", "c"], "depth": {"now": np.arange(3)}},
        )
        for _ in range(2)
    ]
    real.create_dataset_from_buffers(
        "rooms/words-v0",
        buffers,
        observation_space=observation,
        action_space=kinds.MultiDiscrete([2, 3]),
        data_format=storage,
        algorithm_name="a",
        author="a",
        author_email="a@b",
        code_permalink="c",
        description="d",
    )
    recording = validate(minari.read(minari.local_path("rooms/words-v0")))
    assert spaces.describe(recording.spec.observation) == "{0: Discrete(5), 1: Box(3), 2: Discrete(2)}"
    assert dict(recording.spec.observation.parts)["2"].labels == ("find the key", "find the door")
    assert dict(recording.spec.observation.parts)["0"].labels == ("2", "3", "4", "5", "6")
    np.testing.assert_array_equal(recording.observation["0"][:3], [0, 4, 1])
    np.testing.assert_array_equal(recording.observation["2"][:3], [0, 1, 0])
    np.testing.assert_array_equal(recording.action["1"], [2, 0, 2, 0])
    np.testing.assert_array_equal(recording.extra["depth/now"], [1, 2, 1, 2])
    assert recording.origin["infos_left_out"] == ["note"]


@pytest.mark.parametrize("storage", STORAGES)
def test_jpeg_pictures_of_minari_are_decoded(root, storage):
    import gymnasium
    import minari as real
    from minari.data_collector import EpisodeBuffer

    pictures = np.full((3, 32, 32, 3), 200, np.uint8)
    buffer = EpisodeBuffer(
        observations=pictures,
        actions=np.array([0, 1]),
        rewards=[0.0, 1.0],
        terminations=[False, True],
        truncations=[False, False],
    )
    space = gymnasium.spaces.Box(0, 255, (32, 32, 3), np.uint8)
    real.create_dataset_from_buffers(
        "pictures-v0",
        [buffer],
        observation_space=space,
        action_space=gymnasium.spaces.Discrete(2),
        data_format=storage,
        algorithm_name="a",
        author="a",
        author_email="a@b",
        code_permalink="c",
        description="d",
    )
    recording = validate(minari.read(minari.local_path("pictures-v0")))
    assert recording.observation.dtype == np.uint8
    assert np.abs(recording.observation.astype(int) - 200).max() <= 2


def test_a_recording_without_rewards_stays_without(root):
    import minari as real

    recording = recording_from_steps(np.zeros((3, 2)), np.zeros((3, 1)), None, [0, 0, 1])
    minari.write(recording, root / "demos-v0")
    assert np.isnan(real.load_dataset("demos-v0")[0].rewards).all()
    assert minari.read(root / "demos-v0").reward is None


def test_the_data_folder_itself_and_metadata_in_the_file_are_read_too(root):
    import h5py

    minari_pendulum(root)
    folder = minari.local_path("pendulum/swingup-v0") / "data"
    expected = minari.read(folder)
    metadata = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").unlink()
    with h5py.File(folder / "main_data.hdf5", "a") as file:  # as Minari 0.4 kept them
        for name in ("observation_space", "action_space", "dataset_id", "total_episodes", "env_spec"):
            file.attrs[name] = metadata[name]
    assert_equal(minari.read(folder), expected)
