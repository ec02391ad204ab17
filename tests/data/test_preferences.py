"""Judged answers are read in every common layout, split by prompt, and the first row that is wrong is named."""

from __future__ import annotations

import json

import numpy as np
import pytest

import policylab as lab
from policylab.data.preferences import load_judged

ASK, SAY, OTHER = (
    {"role": role, "content": text} for role, text in (("user", "hi"), ("assistant", "hello"), ("assistant", "go"))
)


def written(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


GOOD = {
    "chosen and rejected": ({"prompt": "x", "chosen": "y", "rejected": "z"}, "pairs"),
    "probabilities": ({"prompt": [0.5, 1], "a": 2, "b": 0, "p": 0.25, "weight": 2}, "pairs"),
    "conversations that begin alike": ({"chosen": [ASK, SAY], "rejected": [ASK, OTHER]}, "pairs"),
    "labels": ({"prompt": "x", "completion": "y", "label": True}, "ratings"),
    "ratings of conversations": ({"messages": [ASK, SAY], "rating": 3.5, "rater": 7}, "ratings"),
    "chats": ({"messages": [ASK, SAY]}, "chats"),
}


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_every_layout_is_recognised(kind, suffix, tmp_path):
    row, layout = GOOD[kind]
    path = tmp_path / f"data.{suffix}"
    if suffix == "parquet":
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pa.Table.from_pylist([row, row]), path)
    else:
        written(path, [row, row])
    judged = load_judged(path)
    assert judged.layout == layout
    assert len(judged) == 2
    assert judged.rows[0] == judged.rows[1]


def test_the_prompt_of_conversations_is_what_they_share_and_numbers_stay_numbers(tmp_path):
    pair = load_judged(written(tmp_path / "a.jsonl", [GOOD["conversations that begin alike"][0]])).rows[0]
    assert (pair.prompt, pair.a, pair.b, pair.p) == ((ASK,), (SAY,), (OTHER,), 1.0)
    pair = load_judged(written(tmp_path / "b.jsonl", [GOOD["probabilities"][0]])).rows[0]
    assert (pair.prompt, pair.a, pair.b, pair.p, pair.weight) == ((0.5, 1.0), 2, 0, 0.25, 2.0)
    renamed = written(tmp_path / "c.jsonl", [{"question": "x", "good": "y", "bad": "z"}])
    assert load_judged(renamed, columns={"prompt": "question", "chosen": "good", "rejected": "bad"}).rows[0].b == "z"


BAD = {
    "row 2: rejected is empty": {"prompt": "x", "chosen": "y", "rejected": " "},
    "row 2: chosen and rejected are the same": {"prompt": "x", "chosen": "y", "rejected": "y"},
    "row 2: prompt is None": {"prompt": None, "chosen": "y", "rejected": "z"},
    "row 2: there is no prompt": {"chosen": "y", "rejected": "z"},
    "row 2: message 0 of chosen has the role 'king'": {
        "prompt": "x",
        "chosen": [{"role": "king", "content": ""}],
        "rejected": "z",
    },
    "row 2: message 1 of prompt is 3": {"prompt": [ASK, 3], "chosen": "y", "rejected": "z"},
    "row 2: weight is -1": {"prompt": "x", "chosen": "y", "rejected": "z", "weight": -1},
    "row 2: prompt holds inf": {"prompt": [1.0, float("inf")], "chosen": 0, "rejected": 1},
    "line 2 is no object": [1, 2],
}


@pytest.mark.parametrize("sentence", BAD)
def test_the_first_wrong_row_is_one_sentence(sentence, tmp_path):
    good = GOOD["chosen and rejected"][0]
    with pytest.raises(lab.BadInput, match=sentence) as raised:
        load_judged(written(tmp_path / "data.jsonl", [good, BAD[sentence], {"nonsense": 1}]))
    assert "\n" not in str(raised.value)


def test_what_is_no_table_of_judged_answers_is_one_sentence(tmp_path):
    (tmp_path / "broken.jsonl").write_text('{"prompt": ')
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "no.parquet").write_text("text")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    written(tmp_path / "other.jsonl", [{"x": 1}])
    written(tmp_path / "label.jsonl", [{"prompt": "x", "completion": "y", "label": 2}])
    written(tmp_path / "p.jsonl", [{"prompt": "x", "a": "y", "b": "z", "p": 1.5}])
    for name, sentence in {
        "broken.jsonl": "line 1 is not JSON", "empty.jsonl": "has no rows", "no.parquet": "cannot be read as Parquet",
        "latin.jsonl": "not UTF-8", "other.jsonl": "no layout that is known", "label.jsonl": "give true or false",
        "p.jsonl": "a number from 0 to 1", "absent.jsonl": "there is no file", "data.csv": "neither .jsonl nor .parquet",
    }.items():  # fmt: skip
        with pytest.raises(lab.BadInput, match=sentence):
            load_judged(tmp_path / name)


def test_no_prompt_is_on_both_sides_of_a_split(tmp_path):
    rows = [{"prompt": f"{i % 20}", "chosen": f"y{i}", "rejected": f"z{i}"} for i in range(60)]
    judged = load_judged(written(tmp_path / "data.jsonl", rows))
    learn, held = judged.split(0.2, seed=3)
    sides = [{row.prompt for row in side.rows} for side in (learn, held)]
    assert len(sides[1]) == 4
    assert not sides[0] & sides[1]
    assert len(learn) + len(held) == 60
    assert [row.a for row in judged.split(0.2, seed=3)[1].rows] == [row.a for row in held.rows]
    with pytest.raises(lab.BadInput, match="different prompts"):
        judged.split(0.01)


def test_numbers_become_a_source_and_text_asks_for_a_tokenizer(tmp_path):
    rows = [{"prompt": [float(i), 1.0], "a": i % 3, "b": (i + 1) % 3, "p": 0.5, "weight": i} for i in range(5)]
    spec = lab.Spec(lab.Box((2,)), lab.Discrete(3))
    source = lab.Preferences.of_rows(load_judged(written(tmp_path / "a.jsonl", rows)), spec=spec)
    assert int(source.count) == 5
    np.testing.assert_array_equal(source.observation[:5, 0], np.arange(5.0))
    np.testing.assert_array_equal(source.b[:5], [1, 2, 0, 1, 2])
    np.testing.assert_array_equal(source.weight[:5], np.arange(5.0))
    text = load_judged(written(tmp_path / "b.jsonl", [GOOD["chosen and rejected"][0]]))
    with pytest.raises(lab.BadInput, match="is text"):
        lab.Preferences.of_rows(text, spec=spec)
