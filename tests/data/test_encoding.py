import json

import numpy as np
import pyarrow as pa
import pytest
from sklearn.feature_extraction import FeatureHasher

from policylab.data.encoding import Encoder, stable_hash
from policylab.data.fitting import HASHED_WIDTH, MOST_CATEGORIES, Fitter
from policylab.errors import BadInput


def fitted(columns, **roles):
    roles = {"action": "do", **roles}
    fitter = Fitter({role: [tuple((part + ":").split(":")[:2]) for part in text.split(",")] for role, text in roles.items()})
    fitter.see(pa.table({"do": [0] * len(next(iter(columns.values()))), **columns}))
    return fitter.encoder()


def test_few_words_are_one_hot_and_many_are_hashed():
    many = [f"user-{i}" for i in range(MOST_CATEGORIES + 1)]
    few = ["b", "a", None] * 21 + ["a", "b"]
    encoder = fitted({"many": many, "few": few, "age": np.arange(65)}, observation="few,many,age")
    assert [feature.kind for feature in encoder.observation] == ["categorical", "hashed", "numeric"]
    assert encoder.observation[0].vocabulary == ("", "a", "b")
    assert encoder.observation_space.shape == (3 + HASHED_WIDTH + 1,)
    encoded = encoder.encode({"few": ["a", "z", None], "many": ["user-3", "stranger", "user-3"], "age": [1, 2, 3]})
    np.testing.assert_array_equal(encoded[:, :3], [[0, 1, 0], [0, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(np.abs(encoded[:, 3:-1]).sum(axis=1), 1)
    np.testing.assert_array_equal(encoded[0, 3:-1], encoded[2, 3:-1])
    np.testing.assert_array_equal(encoded[:, -1], [1, 2, 3])


def test_hashing_is_stable_signed_and_spread():
    assert stable_hash("user", "alice", 32) == stable_hash("user", "alice", 32)
    places = [stable_hash("user", f"u{i}", 16) for i in range(8_000)]
    columns, signs = np.asarray(places).T
    np.testing.assert_allclose(np.bincount(columns.astype(int), minlength=16) / 8_000, 1 / 16, atol=0.01)
    assert abs(signs.mean()) < 0.05
    assert abs(np.corrcoef(columns, signs)[0, 1]) < 0.05
    # Saved policies depend on these numbers: a change here is a change of format.
    assert stable_hash("user", "alice", 1024) == (193, -1.0)
    assert stable_hash("user", "bob", 1024) == (139, 1.0)


def test_hashing_keeps_inner_products_like_scikit_learns():
    """Signed hashing is unbiased (Weinberger et al. 2009): different users are orthogonal on average, as in an independent hasher."""
    users = [f"u{i}" for i in range(400)]
    encoder = fitted({"user": users}, observation="user:hashed(16)")
    ours = encoder.encode({"user": users})
    theirs = FeatureHasher(16, input_type="string").transform([[user] for user in users]).toarray()
    for encoded in (ours, theirs):
        products = (encoded @ encoded.T)[np.triu_indices(400, 1)]
        assert abs(products.mean()) < 0.01
        np.testing.assert_allclose((products**2).mean(), 1 / 16, atol=0.01)


def test_numbers_of_choices_are_kept_and_other_actions_are_labelled():
    numbers = fitted({"do": [0, 3, 1, 3], "x": [1.0] * 4}, observation="x")
    assert numbers.action[0].vocabulary == ("0", "1", "2", "3")
    np.testing.assert_array_equal(numbers.encode_action({"do": [3, 2, 0]}), [3, 2, 0])
    codes = fitted({"do": [700, 12, 12, 90], "x": [1.0] * 4}, observation="x")
    assert codes.action[0].vocabulary == ("12", "90", "700")
    np.testing.assert_array_equal(codes.encode_action({"do": [700, 12]}), [2, 0])
    with pytest.raises(BadInput, match="do at row 1 is '13', which is none of the 3 actions"):
        codes.encode_action({"do": [700, 13]})


def test_whole_numbers_are_categories_only_where_they_are_a_context():
    encoder = fitted({"position": [1, 2, 3, 10], "age": [1, 2, 3, 10]}, observation="age", context="position")
    assert [(f.column, f.kind) for f in encoder.observation] == [("age", "numeric"), ("position", "categorical")]
    assert encoder.contexts == (("1",), ("2",), ("3",), ("10",))
    np.testing.assert_array_equal(encoder.encode_context({"position": [10, 4, 1]}), [3, -1, 0])


def test_an_encoder_survives_json_and_serves_single_requests():
    encoder = fitted({"country": ["NO", "DE"], "age": [30, 40]}, observation="country,age", context="country")
    again = Encoder.from_json(json.loads(json.dumps(encoder.to_json())))
    assert again == encoder
    assert again.names == ("country=DE", "country=NO", "age")
    np.testing.assert_array_equal(again.encode({"age": [7], "country": ["NO"]}), [[0, 1, 7]])
    assert again.unseen({"country": ["FR", "NO"], "age": [1, 2]}) == {"country": 1}
    with pytest.raises(BadInput, match="no column 'country'"):
        again.encode({"age": [7]})
    with pytest.raises(BadInput, match="column age at row 0 is missing"):
        again.encode({"age": [None], "country": ["NO"]})
    with pytest.raises(BadInput, match="no encoder of a log"):
        Encoder.from_json({"observation": []})


@pytest.mark.parametrize(
    ("column", "kind", "words"),
    [
        (pa.array([1, 2], pa.timestamp("s")), "", "holds timestamp.*not numbers"),
        (pa.array([[1.0], [2.0, 3.0]]), "", "has 2 entries where 1 are due"),
        (pa.array(["a", "b"]), "numeric", "holds string, not numbers"),
    ],
)
def test_columns_that_cannot_be_encoded(column, kind, words):
    with pytest.raises(BadInput, match=words):
        fitted({"x": column}, observation=f"x:{kind}").encode(pa.table({"x": column}))


def test_a_saved_policy_encodes_new_rows_and_names_its_action(tmp_path):
    import jax

    import policylab as lab
    from policylab.policy import actions
    from tests.data.builders import BANDIT_COLUMNS, bandit_log

    path = bandit_log(tmp_path / "log.csv", rows=400)
    log = lab.load_data(path, columns=BANDIT_COLUMNS)
    run = lab.train(lab.RewardRegression(width=8, depth=1, batch_size=16), log, steps=20)
    for folder in (run.save(tmp_path / "run"), None):
        spec = lab.load_run(folder).spec if folder else lab.load_product(run.save_policy(tmp_path / "policy.safetensors"))[1]
        encoder = Encoder.of(spec)
        assert encoder == Encoder.from_json(log.origin["encoder"])
    policy, spec = lab.load_product(tmp_path / "policy.safetensors")
    rows = {
        "user_feature_0": ["cef3390ed299c098", "never seen"],
        "user_feature_1": ["2d03db5543b14483"] * 2,
        "position": [1, 3],
    }
    observations = encoder.encode(rows)
    assert observations.shape == (2, *spec.observation.shape)
    same = lab.load_data(path, columns=BANDIT_COLUMNS, encoder=encoder)  # a second file is read just the same
    np.testing.assert_array_equal(same.observation, log.observation)
    chosen = encoder.decode_action(actions(policy.mode(), observations, key=jax.random.key(0)))
    assert list(chosen) == ["item_id"]
    assert set(chosen["item_id"]) <= {"0", "1", "2", "3", "4"}
    first = {name: values[:1] for name, values in rows.items()}
    alone, _ = policy.mode().act(encoder.encode(first)[0], None, key=jax.random.key(1))
    assert encoder.decode_action(alone)["item_id"] == chosen["item_id"][:1]


def test_labels_of_choices_and_continuous_actions_come_back_in_the_columns_of_the_log():
    words = fitted({"x": [1.0, 2.0, 3.0], "do": ["stay", "go", "stay"]}, observation="x")
    assert words.decode_action(words.encode_action({"do": ["stay", "go"]})) == {"do": ["stay", "go"]}
    numbers = fitted({"x": [1.0, 2.0], "a": [0.5, -0.5], "b": [[1.0, 2.0], [3.0, 4.0]]}, observation="x", action="a,b")
    rows = {"a": [0.25], "b": [[5.0, 6.0]]}
    assert numbers.decode_action(numbers.encode_action(rows)) == rows
    for encoder, wrong in ((words, [2]), (words, [-1]), (words, [0.5]), (numbers, [[1.0, 2.0]])):
        with pytest.raises(BadInput, match="no actions of the log"):
            encoder.decode_action(np.asarray(wrong))


def test_a_spec_without_encoder_and_a_broken_encoder_are_one_sentence():
    from dataclasses import replace

    import policylab as lab

    spec = lab.Spec(lab.Box((2,)), lab.Discrete(2))
    with pytest.raises(BadInput, match="has no encoder"):
        Encoder.of(spec)
    good = fitted({"x": [1.0, 2.0]}, observation="x").to_json()
    wrong = [{"observation": 3}, {"observation": [{"column": "x"}]}, {"action": [[]]}, {"contexts": 3}]
    wrong += [{"observation": [{**good["observation"][0], key: value}]} for key, value in (("kind", "magic"), ("width", "1"))]
    texts = ["{", "[]", "7", *(json.dumps({**good, **change}) for change in wrong)]
    for text in texts:
        with pytest.raises(BadInput, match="encoder"):
            Encoder.of(replace(spec, encoder=text))
