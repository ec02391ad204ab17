from dataclasses import replace

import numpy as np
import pytest

from policylab import spaces
from policylab.data.recording import recording_from_steps
from policylab.data.validation import validate
from policylab.errors import BadInput


def sound(**changes):
    """Two episodes of 3 and 2 steps with everything a recording can have."""
    recording = recording_from_steps(
        np.arange(10.0).reshape(5, 2),
        np.linspace(-1, 1, 5)[:, None],
        np.ones(5),
        [0, 0, 1, 0, 1],
        name="mine",
        extra={"propensity": np.full(5, 0.5), "group": np.array([7, 7, 7, 8, 8])},
    )
    return replace(recording, **changes)


def with_value(name, index, value):
    def spoil(recording):
        tree = recording.extra[name] if name in recording.extra else getattr(recording, name)
        tree = tree.copy()
        tree[index] = value
        return (
            replace(recording, extra=recording.extra | {name: tree})
            if name in recording.extra
            else replace(recording, **{name: tree})
        )

    return spoil


def choices(recording):
    spec = replace(recording.spec, action=spaces.Discrete(3))
    return replace(recording, spec=spec, action=np.array([0, 1, 2, 3, 0]))


BROKEN = {
    "no episodes": (lambda r: r.select(np.zeros(2, bool)), ["mine has no episodes"]),
    "an empty episode": (lambda r: replace(r, lengths=np.array([3, 0, 2])), ["episode 1 has no steps"]),
    "flags of another type": (
        lambda r: replace(r, terminal=r.terminal.astype(float)),
        ["terminal is float64[5]", "True or False"],
    ),
    "terminal too early": (with_value("terminal", 1, True), ["row 1 (episode 0, step 1) is terminal", "goes on"]),
    "truncated too early": (with_value("truncated", 3, True), ["row 3 (episode 1, step 0) is truncated", "goes on"]),
    "an end that is none": (with_value("terminal", 4, False), ["episode 1 ends at row 4 neither terminal nor truncated"]),
    "an observation short": (
        lambda r: replace(r, observation=r.observation[:-1]),
        ["observation has shape [6, 2]", "one row more"],
    ),
    "actions of another shape": (
        lambda r: replace(r, action=np.zeros((5, 2))),
        ["action has shape [5, 2] but Box(1) needs [5, 1]"],
    ),
    "words": (lambda r: replace(r, action=np.full((5, 1), "left")), ["action is of type <U4", "encode words"]),
    "choices as fractions": (lambda r: replace(choices(r), action=np.zeros(5)), ["action is of type float64 but Discrete(3)"]),
    "rewards short": (lambda r: replace(r, reward=np.ones(4)), ["reward has 4 rows for 5 steps"]),
    "two rewards where one is due": (lambda r: replace(r, reward=np.ones((5, 2))), ["reward rows have shape [2]"]),
    "an extra column short": (lambda r: replace(r, extra={"user": np.ones(3)}), ["user has 3 rows for 5 steps"]),
    "parts that are not named": (
        lambda r: replace(r, observation={"x": r.observation}),
        ["observation has parts ['x']", "Box(2)"],
    ),
    "parts that are missing": (
        lambda r: replace(r, spec=replace(r.spec, observation=spaces.Composite((("x", spaces.Box((2,))),)))),
        ["observation has one column", "['x']"],
    ),
    "NaN": (with_value("observation", (5, 1), np.nan), ["observation[1] at row 4 (episode 1, step 1) is nan"]),
    "infinity": (with_value("reward", 2, -np.inf), ["reward at row 2 (episode 0, step 2) is -inf"]),
    "NaN in an action": (with_value("action", (4, 0), np.nan), ["action[0] at row 4 (episode 1, step 1) is nan"]),
    "a choice that does not exist": (choices, ["action at row 3 (episode 1, step 0) is 3, outside 0 to 2"]),
    "a negative choice": (lambda r: replace(choices(r), action=np.array([0, -1, 2, 1, 0])), ["is -1, outside 0 to 2"]),
    "an action out of bounds": (
        with_value("action", (1, 0), 1.5),
        ["action[0] at row 1 (episode 0, step 1) is 1.5, outside [-1, 1]"],
    ),
    "a propensity of zero": (with_value("propensity", 3, 0.0), ["propensity at row 3", "is 0, outside (0, 1]"]),
    "a propensity above one": (with_value("propensity", 0, 1.2), ["is 1.2, outside (0, 1]"]),
    "no propensity": (with_value("propensity", 0, np.nan), ["propensity at row 0 (episode 0, step 0) is nan"]),
    "a group that changes": (with_value("group", 1, 9), ["group changes from 7 to 9 at row 1 (episode 0, step 1)"]),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_the_first_thing_that_is_wrong_is_one_sentence(kind):
    spoil, words = BROKEN[kind]
    with pytest.raises(BadInput) as error:
        validate(spoil(sound()))
    message = str(error.value)
    assert message.startswith("mine")
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_sound_recording_is_returned_as_it_is():
    recording = sound()
    assert validate(recording) is recording


def test_missing_rewards_and_propensities_are_no_error():
    recording = sound(reward=None, extra={})
    assert validate(recording) is recording


def test_rounding_at_the_bounds_is_no_error():
    recording = sound()
    action = recording.action.copy()
    action[0, 0] = -1.00001
    validate(replace(recording, action=action))


def test_large_columns_are_read_in_pieces(monkeypatch):
    monkeypatch.setattr("policylab.data.validation._PIECE", 16)
    with pytest.raises(BadInput, match=r"observation\[0\] at the end of episode 1, after row 4, is inf"):
        validate(with_value("observation", (6, 0), np.inf)(sound()))
