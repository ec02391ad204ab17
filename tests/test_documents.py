"""What saved files say of themselves is checked: whatever is wrong in it is one sentence that names the file, and no traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file

import policylab as lab
from policylab import checkpoints, cli
from policylab.policies.gaussian import Gaussian
from tests.small import continuous_dataset

SMALL = lab.IQL(width=8, depth=1, batch_size=16, policy=Gaussian(width=8, depth=1))
NOTHING = object()


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder with a run, and its policy."""
    folder = tmp_path_factory.mktemp("saved")
    run = lab.train(SMALL, continuous_dataset(), steps=4, seeds=2, out=folder / "run")
    run.save_policy(folder / "policy.safetensors")
    return folder


def rewritten(source: Path, target: Path, where: tuple[str, ...], value: Any) -> Path:
    """A copy of `source` whose header has `value` at `where` (NOTHING: the entry is gone)."""
    document: Any = checkpoints.load_document(source)
    place = document
    for name in where[:-1]:
        place = place[name]
    if value is NOTHING:
        del place[where[-1]]
    else:
        place[where[-1]] = value
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(save(load_file(source), metadata={"policylab": json.dumps(document)}))
    return target


HEADERS = {
    "none": None,
    "another program's": {"format": "pt"},
    "no JSON": {"policylab": "{"},
    "a list": {"policylab": "[1, 2]"},
    "a number": {"policylab": "7"},
    "nested too deeply": {"policylab": "[" * 100_000},
}


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("load", [checkpoints.load_document, lab.load_policy])
def test_a_header_that_policylab_did_not_write_is_one_sentence(kind, load, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"x": np.zeros(2, np.float32)}, path, metadata=HEADERS[kind])
    with pytest.raises(lab.BadInput, match=r"other\.safetensors .*policylab header"):
        load(path)


def test_a_document_is_read_without_the_arrays(tmp_path, monkeypatch):
    path = tmp_path / "large.safetensors"
    checkpoints.save_arrays(path, {"x": np.zeros(8, np.float32)}, {"kind": "test"})
    opened = []

    class Watched:
        def __init__(self, *arguments, **options):
            self.file = real(*arguments, **options)

        def __enter__(self):
            self.file = self.file.__enter__()
            return self

        def __exit__(self, *problem):
            self.file.__exit__(*problem)

        def metadata(self):
            return self.file.metadata()

        def keys(self):
            return self.file.keys()

        def get_tensor(self, name):
            opened.append(name)
            return self.file.get_tensor(name)

    import safetensors

    real = safetensors.safe_open
    monkeypatch.setattr(safetensors, "safe_open", Watched)
    assert checkpoints.load_document(path) == {"kind": "test"}
    assert opened == []
    assert checkpoints.load_arrays(path, {"x": np.zeros(8, np.float32)})[1] == {"kind": "test"}
    assert opened == ["x"]


DOCUMENTS = {
    # where, what stands there, what the sentence says
    "no learner": (("learner",), NOTHING, "has no 'learner'"),
    "a learner that is a number": (("learner",), 3, "'learner'"),
    "an unknown learner": (("learner", "learner"), "dream", "dream is a learner of your own"),
    "a learner whose name is a list": (("learner", "learner"), ["iql"], "learner that does not exist here"),
    "no settings": (("learner", "fields"), NOTHING, "no 'fields'"),
    "settings that are a list": (("learner", "fields"), [1], "learner that does not exist here"),
    "a setting that does not exist": (("learner", "fields", "warmth"), 3, "warmth"),
    "a setting of another type": (
        ("learner", "fields", "width"),
        "wide",
        "width|damaged",
    ),  # the type checker of the tests is faster
    "a setting out of its range": (("learner", "fields", "expectile"), 7.0, "below 1"),
    "a form that does not exist": (("learner", "fields", "policy", "form"), "Dream", "no policy form 'Dream'"),
    "a form's setting that does not exist": (("learner", "fields", "policy", "fields", "warmth"), 3, "warmth"),
    "a number for a form": (("learner", "fields", "policy"), 3, "policy"),
    "no spaces": (("spec",), NOTHING, "has no 'spec'"),
    "spaces without actions": (("spec", "action"), NOTHING, "no 'action'"),
    "a space of an unknown kind": (("spec", "action", "kind"), "sphere", "unknown kind of space 'sphere'"),
    "a space that is a list": (("spec", "observation"), [3], "no spaces that could be read"),
    "a shape that is a word": (("spec", "observation", "shape"), "wide", "damaged"),
    "statistics that are a list": (("spec", "statistics"), [1], "no spaces that could be read"),
    "another kind": (("kind",), ["run"], "says that it holds"),
    "no kind": (("kind",), NOTHING, "says that it holds None"),
}
OF_RUNS = {
    "no seeds": (("seeds",), NOTHING, "has no 'seeds'"),
    "an empty list of seeds": (("seeds",), [], "'seeds'"),
    "seeds that are words": (("seeds",), ["a"], "'seeds'"),
    "steps that are a word": (("step",), "many", "'step'"),
    "no number of updates": (("total",), NOTHING, "has no 'total'"),
    "a stage that is true": (("stage",), True, "'stage'"),
}
OF_PRODUCTS = {
    "no product": (("product",), NOTHING, "has no 'product'"),
    "a product that is not learned": (("product",), "dream", "names the product 'dream'"),
    "a product that is a list": (("product",), [1], "'product'"),
}


@pytest.mark.parametrize("kind", [*DOCUMENTS, *OF_PRODUCTS])
def test_a_policy_with_a_broken_document_is_one_sentence(kind, saved, tmp_path):
    where, value, words = {**DOCUMENTS, **OF_PRODUCTS}[kind]
    path = rewritten(saved / "policy.safetensors", tmp_path / "mine.safetensors", where, value)
    for load in (lab.load_policy, lab.load_product):
        with pytest.raises(lab.BadInput, match=words) as refusal:
            load(path)
        assert str(path) in str(refusal.value)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", [*DOCUMENTS, *OF_RUNS])
def test_a_run_with_a_broken_document_is_one_sentence(kind, saved, tmp_path):
    where, value, words = {**DOCUMENTS, **OF_RUNS}[kind]
    path = rewritten(saved / "run" / "checkpoint.safetensors", tmp_path / "run" / "checkpoint.safetensors", where, value)
    with pytest.raises(lab.BadInput, match=words) as refusal:
        lab.load_run(tmp_path / "run")
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("kind", ["no learner", "no spaces", "no seeds", "steps that are a word", "a stage that is true"])
def test_resuming_with_a_broken_document_is_one_sentence(kind, saved, tmp_path):
    where, value, _ = {**DOCUMENTS, **OF_RUNS}[kind]
    path = rewritten(saved / "run" / "checkpoint.safetensors", tmp_path / "run" / "checkpoint.safetensors", where, value)
    before = path.read_bytes()
    with pytest.raises(lab.BadInput, match="damaged"):
        lab.train(SMALL, continuous_dataset(), steps=4, seeds=2, out=tmp_path / "run", resume=True)
    assert path.read_bytes() == before


def test_a_run_is_no_policy_and_a_policy_no_run(saved, tmp_path):
    with pytest.raises(lab.BadInput, match="load_run"):
        lab.load_policy(saved / "run" / "checkpoint.safetensors")
    (tmp_path / "checkpoint.safetensors").write_bytes((saved / "policy.safetensors").read_bytes())
    with pytest.raises(lab.BadInput, match="load_policy"):
        lab.load_run(tmp_path)


def test_metrics_that_policylab_did_not_write_are_one_sentence(saved, tmp_path):
    path = rewritten(saved / "run" / "checkpoint.safetensors", tmp_path / "run" / "checkpoint.safetensors", ("step",), 4)
    for line in ("[1]", '{"loss": 3}', "7"):
        (path.parent / "metrics.jsonl").write_text(line + "\n")
        with pytest.raises(lab.BadInput, match=r"metrics\.jsonl"):
            lab.load_run(path.parent)


def test_the_command_line_says_it_in_one_sentence_too(saved, tmp_path, capsys):
    path = rewritten(saved / "policy.safetensors", tmp_path / "mine.safetensors", ("learner",), [1])
    for own in ([], ["--learner", "mine.py:Mine"]):
        assert cli.main(["evaluate", str(path), "--environment", "Pendulum-v1", *own]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
