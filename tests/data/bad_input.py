"""KINDS: every kind of bad data that a person may bring, with the words of the sentence that answers it."""

import json
import pickle

import h5py
import numpy as np

from policylab.data import minari
from tests.data.builders import (
    BANDIT_COLUMNS,
    CARTPOLE_COLUMNS,
    bandit_log,
    cartpole_log,
    d4rl_hopper,
    lerobot_folder,
    minari_pendulum,
)


def hopper(path, name=None, index=None, value=None, without=()):
    d4rl_hopper(path / "hopper.hdf5", without=without)
    if name:
        with h5py.File(path / "hopper.hdf5", "a") as file:
            values = file[name][...].astype(float) if index is not None else np.asarray(value)
            if index is not None:
                values[index] = value
            del file[name]
            file[name] = values
    return path / "hopper.hdf5"


def archive(path, **arrays):
    np.savez(path / "steps.npz", **arrays)
    return path / "steps.npz"


def table(path, header, *rows, name="log.csv"):
    (path / name).write_text("\n".join([header, *rows]) + "\n")
    return path / name


def text(path, name, content):
    (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path / name


def maimed_minari(path, spoil):
    folder = minari.local_path(minari_pendulum(path)) / "data"
    spoil(folder)
    return folder


def metadata(folder, **changes):
    facts = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(facts | changes))


def without_rewards_of_an_episode(folder):
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        del file["episode_3/rewards"]


def short_observations(folder):
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        values = file["episode_2/observations"][...]
        del file["episode_2/observations"]
        file["episode_2/observations"] = values[:-1]


def action_out_of_bounds(folder):
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        file["episode_1/actions"][4] = 9.0


def bandit(path, before, after, columns=BANDIT_COLUMNS, count=1):
    log = bandit_log(path / "log.csv", rows=30)
    content = log.read_text()
    assert before in content
    log.write_text(content.replace(before, after, count))
    return log, columns


def cartpole(path, columns, spoil=lambda lines: lines):
    log = cartpole_log(path / "log.csv", episodes=3, limit=9)
    log.write_text("\n".join(spoil(log.read_text().splitlines())) + "\n")
    return log, columns


def with_cell(row, column, value):
    def spoil(lines):
        cells = lines[row].split(",")
        cells[column] = value
        return [*lines[:row], ",".join(cells), *lines[row + 1 :]]

    return spoil


STEPS = {"observations": np.zeros((4, 2)), "actions": np.zeros((4, 1)), "terminals": [0, 1, 0, 1], "timeouts": np.zeros(4)}

# kind: (how to make it: path -> source or (source, columns), options of load, words of the sentence)
KINDS = {
    "nothing there": (lambda p: p / "absent.hdf5", {}, ["no file or folder", "absent.hdf5", "check the path"]),
    "an unknown Minari id": (
        lambda p: "D4RL/hopper/medium-v2",
        {},
        ["no Minari dataset of that id", "minari download D4RL/hopper/medium-v2"],
    ),
    "an address": (lambda p: "https://example.org/a.csv", {}, ["is an address", "download it first"]),
    "an unknown ending": (lambda p: text(p, "data.xlsx", "x"), {}, ["no known format", ".hdf5, .h5, .npz, .csv"]),
    "an unknown folder": (lambda p: p, {}, ["no known format", "recording.json, metadata.json"]),
    "an unknown format": (lambda p: hopper(p), {"format": "hdf"}, ["unknown format 'hdf'", "d4rl"]),
    "a pickle": (lambda p: text(p, "data.pkl", pickle.dumps([1])), {}, ["is a pickle", "run code", "numpy.savez"]),
    "the inside of a Minari dataset": (
        lambda p: maimed_minari(p, lambda f: None) / "main_data.hdf5",
        {},
        ["inside of a Minari", "give its folder"],
    ),
    "an unknown environment": (lambda p: hopper(p), {"environment": "Hoper-v9"}, ["no environment 'Hoper-v9'", "check the id"]),
    "another environment's data": (
        lambda p: hopper(p),
        {"environment": "Pendulum-v1"},
        ["observations of Box(11)", "Pendulum-v1 has Box(3)"],
    ),
    "words for numbered actions": (
        lambda p: cartpole(
            p, CARTPOLE_COLUMNS, lambda ls: [x.replace(",0,1.0", ",left,1.0").replace(",1,1.0", ",right,1.0") for x in ls]
        ),
        {"environment": "CartPole-v1"},
        ["calls its actions left, right", "numbers them from 0"],
    ),
    # HDF5 and arrays
    "no HDF5 at all": (lambda p: text(p, "data.hdf5", "hello"), {}, ["not a readable HDF5 file"]),
    "half a download": (
        lambda p: text(p, "half.hdf5", hopper(p).read_bytes()[:3000]),
        {},
        ["not a readable HDF5 file", "again"],
    ),
    "no actions": (lambda p: hopper(p, without=("actions",)), {}, ["has no actions", "it has", "observations"]),
    "no observations": (lambda p: archive(p, actions=np.zeros(3)), {}, ["has no observations", "columns=observation=NAME"]),
    "no ends": (
        lambda p: archive(p, observations=np.zeros((3, 1)), actions=np.zeros((3, 1))),
        {},
        ["neither terminals nor timeouts"],
    ),
    "no timeouts": (
        lambda p: archive(p, **{k: v for k, v in STEPS.items() if k != "timeouts"}),
        {},
        ["no timeouts", "max_episode_steps"],
    ),
    "dones": (
        lambda p: archive(p, observations=np.zeros((3, 1)), actions=np.zeros((3, 1)), dones=[0, 0, 1]),
        {},
        ["dones", "terminals or timeouts"],
    ),
    "NaN in an observation": (
        lambda p: hopper(p, "observations", (17, 2), np.nan),
        {},
        ["observation[2] at row 17 (episode 1, step 0) is nan"],
    ),
    "infinite reward": (lambda p: hopper(p, "rewards", 40, np.inf), {}, ["reward at row 40", "is inf"]),
    "too few rewards": (lambda p: hopper(p, "rewards", value=np.ones(7)), {}, ["reward has 7 rows but action has 204"]),
    "too few terminals": (
        lambda p: hopper(p, "terminals", value=np.ones(7)),
        {},
        ["terminal has 7 rows but the actions have 204"],
    ),
    "terminals that are no flags": (lambda p: hopper(p, "terminals", 3, 0.5), {}, ["terminal at row 3 is 0.5", "0 or 1"]),
    "an array that fits nowhere": (
        lambda p: archive(p, **STEPS, weights=np.zeros((3, 3))),
        {},
        ["weights is float64[3, 3]", "remove or rename"],
    ),
    "no steps": (
        lambda p: archive(p, observations=np.zeros((0, 2)), actions=np.zeros((0, 1)), terminals=[], timeouts=[]),
        {},
        ["no steps"],
    ),
    "only one-step episodes that were cut": (
        lambda p: archive(p, **STEPS | {"terminals": np.zeros(4), "timeouts": np.ones(4)}),
        {},
        ["no step has a successor"],
    ),
    "actions that are words": (
        lambda p: archive(p, **STEPS | {"actions": np.array(["l", "r", "l", "r"])}),
        {},
        ["action is of type <U1", "encode words"],
    ),
    "negative choices": (
        lambda p: archive(p, **STEPS | {"actions": np.array([0, 1, -1, 0])}),
        {"environment": "MountainCar-v0"},
        ["action", "Discrete(3)"],
    ),
    "an archive that is none": (lambda p: text(p, "a.npz", "zip"), {}, ["a.npz", "savez"]),
    "an unknown role for arrays": (
        lambda p: (hopper(p), "observation=observations,acton=actions"),
        {},
        ["unknown role 'acton'", "did you mean action"],
    ),
    "a column map where none belongs": (
        lambda p: (lerobot_folder(p / "robot"), "observation=a,action=b"),
        {},
        ["leave the column map out"],
    ),
    # Minari
    "a Minari episode without rewards": (
        lambda p: maimed_minari(p, without_rewards_of_an_episode),
        {},
        ["does not hold the 6 episodes"],
    ),
    "a Minari episode cut short": (
        lambda p: maimed_minari(p, short_observations),
        {},
        ["episode 2 has 25 rows of observation where 26 are due"],
    ),
    "fewer Minari episodes than promised": (
        lambda p: maimed_minari(p, lambda f: metadata(f, total_episodes=9)),
        {},
        ["the 9 episodes that metadata.json promises"],
    ),
    "an empty Minari dataset": (lambda p: maimed_minari(p, lambda f: metadata(f, total_episodes=0)), {}, ["has no episodes"]),
    "an action outside its bounds": (
        lambda p: maimed_minari(p, action_out_of_bounds),
        {},
        ["action[0] at row 29 (episode 1, step 4) is 9, outside [-2, 2]"],
    ),
    "an unknown Minari storage": (
        lambda p: maimed_minari(p, lambda f: metadata(f, data_format="zarr")),
        {},
        ["unknown Minari storage 'zarr'", "hdf5"],
    ),
    "a Minari space of an unknown kind": (
        lambda p: maimed_minari(p, lambda f: metadata(f, observation_space='{"type": "Graph"}', policylab=None)),
        {},
        ["Graph"],
    ),
    "damaged Minari metadata": (
        lambda p: maimed_minari(p, lambda f: (f / "metadata.json").write_text("{")),
        {},
        ["metadata.json is damaged"],
    ),
    # tables
    "no column map": (
        lambda p: bandit(p, "item_id", "item_id", None),
        {},
        ["say which column is what", "--columns", "item_id, position"],
    ),
    "an unknown role": (
        lambda p: bandit(p, "click", "click", "observation=user_*,action=item_id,rewards=click"),
        {},
        ["unknown role 'rewards'", "did you mean reward?"],
    ),
    "a role without a column": (
        lambda p: bandit(p, "click", "click", "observation=,action=item_id"),
        {},
        ["role observation", "has no column"],
    ),
    "a column of no role": (
        lambda p: bandit(p, "click", "click", "user_feature_0,action=item_id"),
        {},
        ["'user_feature_0' in the columns belongs to no role"],
    ),
    "a role named twice": (
        lambda p: bandit(p, "click", "click", "action=item_id,observation=click,action=position"),
        {},
        ["name action twice"],
    ),
    "no action in the map": (lambda p: bandit(p, "click", "click", "observation=user_*"), {}, ["name no action"]),
    "a missing column": (
        lambda p: bandit(p, "click", "click", "observation=user_feature_*,action=item"),
        {},
        ["no column 'item' for action", "item_id"],
    ),
    "a pattern that matches nothing": (
        lambda p: bandit(p, "click", "click", "observation=feature_*,action=item_id"),
        {},
        ["no column 'feature_*' for observation"],
    ),
    "an answer among the questions": (
        lambda p: bandit(p, "click", "click", "observation=user_*,click,action=item_id,reward=click"),
        {},
        ["both observation and reward"],
    ),
    "a propensity of zero": (
        lambda p: bandit(p, ",0.2,", ",0.0,"),
        {},
        ["propensity at row 0", "is 0, outside (0, 1]", "leave the column out"],
    ),
    "a reward that is a word": (
        lambda p: table(p, "x,do,gain", "1,a,2", "2,b,much"),
        {"columns": "observation=x,action=do,reward=gain"},
        ["reward column gain", "no number"],
    ),
    "a reward that is missing": (
        lambda p: table(p, "x,do,gain", "1,a,2", "2,b,"),
        {"columns": "observation=x,action=do,reward=gain"},
        ["reward column gain at row 1 is missing"],
    ),
    "a number that is missing": (
        lambda p: table(p, "x,do", "1,a", ",b"),
        {"columns": "observation=x,action=do"},
        ["column x at row 1 is missing"],
    ),
    "an infinite number": (
        lambda p: table(p, "x,do", "1,a", "inf,b"),
        {"columns": "observation=x,action=do"},
        ["observation[0] at row 1 (episode 1, step 0) is inf"],
    ),
    "a ragged row": (
        lambda p: table(p, "x,do", "1,a", "2,b,c"),
        {"columns": "observation=x,action=do"},
        ["cannot be read as a table", "Expected 2 columns"],
    ),
    "no rows": (lambda p: table(p, "x,do"), {"columns": "observation=x,action=do"}, ["has no rows"]),
    "an empty file": (lambda p: text(p, "log.csv", ""), {"columns": "observation=x,action=do"}, ["cannot be read as a table"]),
    "two columns of one name": (
        lambda p: table(p, "x,x,do", "1,2,a"),
        {"columns": "observation=x,action=do"},
        ["several columns named 'x'"],
    ),
    "no Parquet": (
        lambda p: text(p, "log.parquet", "hello"),
        {"columns": "observation=x,action=do"},
        ["cannot be read as a table"],
    ),
    "broken JSON lines": (
        lambda p: text(p, "log.jsonl", '{"x": 1, "do": "a"}\n{"x": '),
        {"columns": "observation=x,action=do"},
        ["cannot be read as a table"],
    ),
    "lists of several lengths": (
        lambda p: text(p, "log.jsonl", '{"x": [1, 2], "do": "a"}\n{"x": [1], "do": "b"}\n'),
        {"columns": "observation=x,action=do"},
        ["column x at row 1 has 1 entries where 2 are due"],
    ),
    "a terminal row in mid-episode": (
        lambda p: cartpole(p, CARTPOLE_COLUMNS, with_cell(3, 7, "1")),
        {},
        ["row 2 ends its episode", "goes on after it"],
    ),
    "a flag that is none": (
        lambda p: cartpole(p, CARTPOLE_COLUMNS, with_cell(3, 7, "2")),
        {},
        ["terminal at row 2 is 2", "0 or 1"],
    ),
    "time without episodes": (
        lambda p: cartpole(p, "observation=position,action=push,terminal=fell,time=angle"),
        {},
        ["time but no episode column"],
    ),
    "a group that changes": (
        lambda p: cartpole(p, CARTPOLE_COLUMNS + ",group=angle"),
        {},
        ["group changes", "episode belongs to one group"],
    ),
    "successors that do not match": (
        lambda p: cartpole(p, "observation=position,velocity,action=push,terminal=fell,next_observation=angle"),
        {},
        ["next_observation has 1 columns for 2"],
    ),
    "dates as observations": (
        lambda p: table(p, "x,do", "2024-01-01,a"),
        {"columns": "observation=x,action=do"},
        ["column x holds date32", "not numbers"],
    ),
    # LeRobot
    "a LeRobot folder of another version": (lambda p: lerobot_folder(p / "robot", "v1.6"), {}, ["version v1.6"]),
}
