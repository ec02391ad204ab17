import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from policylab import spaces
from policylab.data import logs, tables
from policylab.data.encoding import Encoder
from policylab.data.roles import parse, resolve
from policylab.data.validation import validate
from policylab.errors import BadInput
from tests.data.builders import BANDIT_COLUMNS, CARTPOLE_COLUMNS, bandit_log, cartpole_log

SHOP = Path(__file__).parents[3] / "shared/data/open_bandit"


def write(path, header, *rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


def test_impressions_become_episodes_of_one_terminal_step(tmp_path):
    path = bandit_log(tmp_path / "log.csv")
    recording = validate(logs.read(path, BANDIT_COLUMNS))
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert recording.steps == recording.episodes == len(rows)
    assert recording.terminal.all()
    assert not recording.truncated.any()
    np.testing.assert_array_equal(recording.action, [int(row["item_id"]) for row in rows])
    np.testing.assert_array_equal(recording.reward, [float(row["click"]) for row in rows])
    np.testing.assert_allclose(recording.extra["propensity"], [float(row["propensity_score"]) for row in rows])
    np.testing.assert_array_equal(recording.extra["context"] + 1, [int(row["position"]) for row in rows])
    assert recording.spec.action == spaces.Discrete(5, ("0", "1", "2", "3", "4"))
    names = Encoder.from_json(recording.origin["encoder"]).names
    now = recording.observation[recording.observation_rows]
    for name, values in zip(names, now.T, strict=True):
        column, word = name.split("=")
        np.testing.assert_array_equal(values, [row[column] == word for row in rows])
    assert [name for name in names if name.startswith("position")] == ["position=1", "position=2", "position=3"]
    np.testing.assert_array_equal(now, recording.observation[recording.observation_rows + 1])


def test_episodes_of_a_control_log(tmp_path):
    recording = validate(logs.read(cartpole_log(tmp_path / "log.csv"), CARTPOLE_COLUMNS))
    assert recording.episodes == 12
    assert recording.origin["steps_without_successor"] == int((~recording.terminal[np.cumsum(recording.lengths) - 1]).sum())
    for episode in range(recording.episodes):  # the cart moves by its velocity
        see = recording.select(np.array([episode])).observation[: recording.lengths[episode]]
        np.testing.assert_allclose(see[1:, 0] - see[:-1, 0], 0.02 * see[:-1, 1], atol=2e-6)
    assert recording.spec.observation == spaces.Box((4,))
    assert recording.spec.action == spaces.Discrete(2, ("0", "1"))


def test_rows_of_an_episode_are_ordered_by_time_and_need_not_be_neighbours(tmp_path):
    path = write(
        tmp_path / "log.csv",
        "user,when,x,do,gain",
        ["b", "2024-01-02", 4, "buy", 1],
        ["a", "2024-01-03", 3, "wait", 0],
        ["a", "2024-01-01", 1, "buy", 5],
        ["b", "2024-01-01", 2, "wait", 0],
        ["a", "2024-01-02", 2, "buy", 2],
    )
    recording = validate(logs.read(path, "observation=x,action=do,reward=gain,episode=user,time=when,group=user"))
    np.testing.assert_array_equal(recording.lengths, [2, 3])
    np.testing.assert_array_equal(recording.observation[:, 0], [2, 4, 4, 1, 2, 3, 3])
    np.testing.assert_array_equal(recording.reward, [0, 1, 5, 2, 0])
    np.testing.assert_array_equal(recording.extra["group"], [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(np.flatnonzero(recording.terminal), [1, 4])
    assert recording.spec.action.labels == ("buy", "wait")
    assert "taken as terminal" in recording.origin["ends"]


def test_the_same_table_in_every_format_gives_the_same_recording(tmp_path):
    path = bandit_log(tmp_path / "log.csv", rows=50)
    table = pa.csv.read_csv(path)
    pa.parquet.write_table(table, tmp_path / "log.parquet")
    pa.parquet.write_table(
        pa.table(
            {
                name: table[name].dictionary_encode() if table[name].type == pa.string() else table[name]
                for name in table.column_names
            }
        ),
        tmp_path / "coded.parquet",
    )
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row, default=str) + "\n" for row in table.to_pylist()))
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "log.tsv").write_text(path.read_text().replace(",", "\t"))
    expected = logs.read(path, BANDIT_COLUMNS)
    for name in ("log.parquet", "coded.parquet", "log.jsonl", "log.csv.gz", "log.tsv"):
        recording = logs.read(tmp_path / name, BANDIT_COLUMNS)
        np.testing.assert_array_equal(recording.observation, expected.observation)
        np.testing.assert_array_equal(recording.action, expected.action)
        assert recording.spec == expected.spec
        assert recording.origin["encoder"] == expected.origin["encoder"]


def test_many_pieces_are_one_table(tmp_path, monkeypatch):
    path = bandit_log(tmp_path / "log.csv", rows=300)
    expected = logs.read(path, BANDIT_COLUMNS)
    whole = tables.batches

    def in_pieces(*arguments):
        for table in whole(*arguments):
            yield from (table.slice(start, 7) for start in range(0, len(table), 7))

    monkeypatch.setattr(tables, "batches", in_pieces)
    recording = logs.read(path, BANDIT_COLUMNS)
    np.testing.assert_array_equal(recording.observation, expected.observation)
    assert recording.origin == expected.origin
    np.testing.assert_array_equal(recording.extra["context"], expected.extra["context"])


def test_a_second_file_is_encoded_with_the_first_ones_encoder(tmp_path):
    first = logs.read(bandit_log(tmp_path / "random.csv", rows=400), BANDIT_COLUMNS)
    encoder = Encoder.from_json(json.loads(json.dumps(first.origin["encoder"])))
    other = bandit_log(tmp_path / "bts.csv", rows=40, seed=1, policy="bts")
    text = other.read_text().replace("4ae385d792f81dde", "0000newcomer0000", 1)
    other.write_text(text)
    second = validate(logs.read(other, BANDIT_COLUMNS, encoder=encoder))
    assert second.spec == first.spec
    assert second.origin["unseen"] == {"user_feature_0": 1}
    assert (second.observation[:, :3].sum(axis=1) == 0).sum() == 2  # the row and what followed it
    with open(other, "a") as file:
        file.write("41,2019-11-24,9,1,0,0.5,cef3390ed299c098,03a5648a76832f83,0,0,0,0,0\n")
    with pytest.raises(BadInput, match=r"item_id at row 40 is '9', which is none of the 5 actions"):
        logs.read(other, BANDIT_COLUMNS, encoder=encoder)


def test_actions_of_numbers_and_list_columns(tmp_path):
    table = pa.table(
        {
            "state": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
            "force_x": [0.5, 3.0, -3.0],
            "force_y": [1, 2, 3],
            "end": [False, False, True],
        }
    )
    pa.parquet.write_table(table, tmp_path / "log.parquet")
    recording = validate(logs.read(tmp_path / "log.parquet", "observation=state,action=force_*,terminal=end"))
    np.testing.assert_array_equal(recording.observation, [[1, 2], [3, 4], [5, 6], [5, 6]])
    assert recording.spec.action == spaces.Box((2,), (-3.0, 1.0), (3.0, 3.0))
    assert recording.reward is None


def test_successors_and_several_objectives(tmp_path):
    path = write(
        tmp_path / "log.csv", "s,a,r1,r2,s2,cut", [0.0, "l", 1, 2, 1.0, 0], [1.0, "r", 3, 4, 2.0, 1], [5.0, "l", 5, 6, 6.0, 1]
    )
    recording = validate(logs.read(path, "observation=s,action=a,reward=r1,r2,next_observation=s2,truncated=cut"))
    np.testing.assert_array_equal(recording.observation[:, 0], [0, 1, 2, 5, 6])
    np.testing.assert_array_equal(recording.reward, [[1, 2], [3, 4], [5, 6]])
    assert recording.spec.reward_shape == (2,)


def test_a_column_map_is_read_as_written():
    assert parse("observation=a,b , action=c:categorical") == {"observation": ["a", "b"], "action": ["c:categorical"]}
    names = ["", "x_1", "x_2", "item:id", "click", "age"]
    found = resolve("observation=*,action=item:id,reward=click", names, "log.csv")
    assert found["observation"] == [("x_1", ""), ("x_2", ""), ("age", "")]
    assert resolve("observation=x_*:hashed(8),action=age:numeric", names, "log.csv") == {
        "observation": [("x_1", "hashed(8)"), ("x_2", "hashed(8)")],
        "action": [("age", "numeric")],
    }


@pytest.mark.skipif(not SHOP.is_dir(), reason="the Open Bandit Dataset is not beside the project")
def test_the_shops_own_impressions():
    random = validate(logs.read(SHOP / "men_random.csv", BANDIT_COLUMNS))
    assert random.steps == 10_000
    assert random.spec.action.n == 34
    np.testing.assert_allclose(random.extra["propensity"], 1 / 34)
    bts = validate(logs.read(SHOP / "men_bts.csv", BANDIT_COLUMNS, encoder=Encoder.from_json(random.origin["encoder"])))
    assert bts.spec == random.spec
    assert (random.reward.sum(), bts.reward.sum()) == (46, 69)
