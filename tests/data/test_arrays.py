import numpy as np
import pytest

from policylab.data import arrays
from policylab.data.validation import validate
from policylab.errors import BadInput
from tests.data.builders import hopper_arrays


def test_reads_plain_archives_under_usual_names(tmp_path):
    steps = hopper_arrays()
    np.savez(tmp_path / "a.npz", **steps, seed=np.array(7), **{"infos/qpos": np.zeros((len(steps["rewards"]), 2))})
    np.savez(
        tmp_path / "b.npz",
        obs=steps["observations"],
        action=steps["actions"],
        reward=steps["rewards"],
        terminated=steps["terminals"],
        truncated=steps["timeouts"],
        next_obs=steps["next_observations"],
    )
    one, other = (validate(arrays.read(tmp_path / name)) for name in ("a.npz", "b.npz"))
    for name in ("observation", "action", "reward", "terminal", "truncated"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.extra["qpos"].shape == (one.steps, 2)
    assert one.origin["facts"] == {"seed": 7}


def test_dict_observations_and_choices(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        **{"observations/goal": np.ones((4, 2)), "observations/room": np.arange(4)},
        actions=np.array([0, 1, 2, 0]),
        terminals=[0, 1, 0, 1],
    )
    np.savez(
        tmp_path / "line.npz", observations=np.arange(3.0), actions=np.arange(3.0), terminals=[0, 0, 1], timeouts=[0, 0, 0]
    )
    with pytest.raises(BadInput, match="no timeouts"):
        arrays.read(tmp_path / "a.npz")
    recording = validate(arrays.read(tmp_path / "a.npz", max_episode_steps=10))
    np.testing.assert_array_equal(recording.observation["room"], [0, 1, 1, 2, 3, 3])
    assert recording.reward is None
    assert arrays.read(tmp_path / "line.npz").observation.shape == (4, 1)


def test_a_map_names_what_has_another_name(tmp_path):
    np.savez(tmp_path / "a.npz", s=np.ones((3, 2)), u=np.ones((3, 1)), dones=[0, 0, 1])
    recording = arrays.read(
        tmp_path / "a.npz", columns={"observation": ["s"], "action": "u", "terminal": "dones"}, max_episode_steps=9
    )
    assert recording.steps == 3
    with pytest.raises(BadInput, match="no array 'state' for observation: it has s, u, dones"):
        arrays.read(tmp_path / "a.npz", columns={"observation": "state"})


def test_our_own_archives_are_lossless(tmp_path):
    np.savez(tmp_path / "a.npz", **hopper_arrays())
    recording = arrays.read(tmp_path / "a.npz")
    arrays.write(recording, tmp_path / "b.npz")
    again = arrays.read(tmp_path / "b.npz")
    assert (again.spec, again.name, again.origin) == (recording.spec, recording.name, recording.origin)
    np.testing.assert_array_equal(again.observation, recording.observation)
    with pytest.raises(BadInput, match="exists already"):
        arrays.write(recording, tmp_path / "b.npz")


def test_an_archive_with_pickled_objects_is_refused_without_unpickling(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "a.npz", observations=np.array([Trap()], dtype=object), actions=np.zeros(1))
    with pytest.raises(BadInput, match="Python objects"):
        arrays.read(tmp_path / "a.npz")
    assert not (tmp_path / "sprung").exists()
