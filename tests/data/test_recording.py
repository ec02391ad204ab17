import numpy as np
import pytest

from policylab import spaces
from policylab.data.recording import Recording, infer_space, recording_from_steps
from policylab.errors import BadInput
from policylab.experience import Spec


def numbered(lengths, group=None):
    """Episodes whose observations are 100 * episode + step, so that every row says where it belongs."""
    lengths = np.asarray(lengths)
    observation = np.concatenate([100.0 * i + np.arange(n + 1) for i, n in enumerate(lengths)])[:, None]
    action = np.concatenate([100.0 * i + np.arange(n) for i, n in enumerate(lengths)])[:, None]
    last = np.zeros(len(action), bool)
    last[np.cumsum(lengths) - 1] = True
    extra = {} if group is None else {"group": np.repeat(group, lengths)}
    spec = Spec(spaces.Box((1,)), spaces.Box((1,)))
    return Recording({"x": observation}, action, np.ones(len(action)), last, ~last & False, lengths, spec, extra)


def test_select_keeps_each_episodes_rows_together_in_the_given_order():
    chosen = numbered([3, 1, 4, 2]).select(np.array([2, 0]))
    np.testing.assert_array_equal(chosen.lengths, [4, 3])
    np.testing.assert_array_equal(chosen.observation["x"][:, 0], [200, 201, 202, 203, 204, 0, 1, 2, 3])
    np.testing.assert_array_equal(chosen.action[:, 0], [200, 201, 202, 203, 0, 1, 2])
    np.testing.assert_array_equal(np.flatnonzero(chosen.terminal), [3, 6])
    np.testing.assert_array_equal(chosen.observation["x"][chosen.observation_rows, 0], chosen.action[:, 0])
    np.testing.assert_array_equal(chosen.returns, [4, 3])


def test_select_takes_a_mask_and_may_be_empty():
    recording = numbered([3, 1, 4])
    np.testing.assert_array_equal(recording.select(np.array([True, False, True])).lengths, [3, 4])
    nothing = recording.select(np.zeros(3, bool))
    assert nothing.steps == 0
    assert nothing.episodes == 0
    assert len(nothing.starts) == 0
    assert len(nothing.returns) == 0


def test_split_covers_every_episode_once_and_is_the_same_for_the_same_seed():
    recording = numbered([2] * 20)
    parts = recording.split((0.5, 0.3, 0.2), seed=3)
    assert [part.episodes for part in parts] == [10, 6, 4]
    episodes = np.concatenate([part.action[part.starts, 0] // 100 for part in parts])
    np.testing.assert_array_equal(np.sort(episodes), np.arange(20))
    again = recording.split((0.5, 0.3, 0.2), seed=3)
    np.testing.assert_array_equal(parts[1].action, again[1].action)
    assert not np.array_equal(parts[1].action, recording.split((0.5, 0.3, 0.2), seed=4)[1].action)


def test_split_never_tears_a_group_apart():
    random = np.random.default_rng(0)
    group = random.integers(0, 9, 40)
    parts = numbered(random.integers(1, 5, 40), group).split((0.7, 0.3), seed=1)
    assert not set(parts[0].extra["group"]) & set(parts[1].extra["group"])
    assert 0.4 < parts[0].episodes / 40 < 0.9


def test_split_shares_are_of_episodes_even_when_one_group_is_large():
    group = np.concatenate([np.zeros(90, int), np.arange(1, 11)])
    parts = numbered([1] * 100, group).split((0.9, 0.1), seed=0)
    assert max(part.episodes for part in parts) >= 90
    assert min(part.episodes for part in parts) >= 1


@pytest.mark.parametrize(("episodes", "shares"), [(2, (0.9, 0.1)), (3, (0.98, 0.01, 0.01)), (2, (0.01, 0.99))])
def test_split_leaves_no_part_empty(episodes, shares):
    assert all(part.episodes == 1 for part in numbered([2] * episodes).split(shares, seed=0))


def test_split_says_when_it_cannot():
    with pytest.raises(BadInput, match=r"cannot be split into 3 parts: it has only 2 episode\(s\)"):
        numbered([2, 2]).split((0.5, 0.3, 0.2), seed=0)
    with pytest.raises(BadInput, match=r"only 1 group\(s\)"):
        numbered([2, 2], np.array([5, 5])).split((0.5, 0.5), seed=0)
    with pytest.raises(BadInput, match="add up to 1"):
        numbered([2, 2]).split((0.5, 0.2), seed=0)


def test_returns_need_rewards():
    recording = recording_from_steps(np.zeros((2, 1)), np.zeros((2, 1)), None, [0, 1])
    with pytest.raises(TypeError, match="no rewards"):
        _ = recording.returns


def test_steps_with_successors_lose_nothing():
    observation = np.arange(7.0)[:, None]
    recording = recording_from_steps(
        observation, observation, np.ones(7), [0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0], observation + 1
    )
    np.testing.assert_array_equal(recording.lengths, [3, 3, 1])
    np.testing.assert_array_equal(recording.observation[:, 0], [0, 1, 2, 3, 3, 4, 5, 6, 6, 7])
    np.testing.assert_array_equal(np.flatnonzero(recording.truncated), [5, 6])
    assert recording.origin == {"steps_without_successor": 0, "breaks": 0}


def test_without_successors_the_last_step_of_a_cut_episode_is_left_out():
    observation = np.arange(7.0)[:, None]
    recording = recording_from_steps(observation, observation, np.ones(7), [0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(recording.lengths, [3, 2])
    np.testing.assert_array_equal(recording.observation[:, 0], [0, 1, 2, 2, 3, 4, 5])
    np.testing.assert_array_equal(np.flatnonzero(recording.terminal), [2])
    np.testing.assert_array_equal(np.flatnonzero(recording.truncated), [4])
    assert recording.origin["steps_without_successor"] == 2


def test_a_successor_that_is_not_the_next_row_ends_an_episode():
    observation, following = np.array([[0.0], [1], [7], [8]]), np.array([[1.0], [2], [8], [9]])
    recording = recording_from_steps(observation, observation, None, [0, 0, 0, 0], [0, 0, 0, 1], following)
    np.testing.assert_array_equal(recording.lengths, [2, 2])
    np.testing.assert_array_equal(recording.observation[:, 0], [0, 1, 2, 7, 8, 9])
    assert recording.origin["breaks"] == 1


def test_named_parts_and_extras_follow_their_steps():
    observation = {"a": np.arange(4.0)[:, None], "b": np.arange(4)}
    recording = recording_from_steps(
        observation, np.array([0, 2, 1, 0]), np.ones((4, 1)), [0, 1, 0, 0], extra={"user": np.array([5, 5, 6, 6])}
    )
    assert recording.spec.action == spaces.Discrete(3)
    assert recording.spec.observation == spaces.Composite((("a", spaces.Box((1,))), ("b", spaces.Discrete(4))))
    np.testing.assert_array_equal(recording.observation["b"], [0, 1, 1, 2, 3])
    np.testing.assert_array_equal(recording.extra["user"], [5, 5, 6])
    assert recording.reward.shape == (3,)


def test_one_step_episodes_repeat_their_observation():
    recording = recording_from_steps(np.array([[1.0], [2]]), np.array([0, 1]), np.ones(2), np.ones(2))
    np.testing.assert_array_equal(recording.lengths, [1, 1])
    np.testing.assert_array_equal(recording.observation[:, 0], [1, 1, 2, 2])


def test_steps_that_cannot_be_used_are_refused():
    with pytest.raises(BadInput, match="reward has 2 rows but action has 3"):
        recording_from_steps(np.zeros((3, 1)), np.zeros((3, 1)), np.zeros(2), np.ones(3))
    with pytest.raises(BadInput, match="no steps"):
        recording_from_steps(np.zeros((0, 1)), np.zeros((0, 1)))
    with pytest.raises(BadInput, match="no step has a successor"):
        recording_from_steps(np.zeros((2, 1)), np.zeros((2, 1)), None, None, np.ones(2))


def test_inferred_action_bounds_are_those_of_the_data_unless_they_are_within_one():
    assert infer_space(np.array([[0.5, -0.2]], np.float32)) == spaces.Box((2,), -1.0, 1.0)
    assert infer_space(np.array([[2.0, 0], [-1, 3]], np.float32)) == spaces.Box((2,), (-1.0, 0.0), (2.0, 3.0))
    assert infer_space(np.zeros((2, 4, 4, 3), np.uint8)) == spaces.Box((4, 4, 3), 0.0, 255.0, "uint8")
