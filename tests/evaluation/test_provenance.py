"""A verdict goes stale when what its measurement can reach has changed, and not when something else in those files has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policylab.evaluation import provenance, reach, records

NOUN = '''
"""A noun."""
import numpy as np
from elsewhere import shared as ours

SCALE = 2.0
UNUSED = 3.0


class Thing:
    """A thing."""

    size: int = 4

    def __call__(self, x: int) -> int:
        return ours(x)

    def act(self, x):
        """What it does."""
        return SCALE * x

    def draw(self):
        return UNUSED


def picture(thing):
    return thing.draw()
'''
CLAIM = "from nouns import Thing\n\n\ndef measure(seeds):\n    return Thing().act(1)\n"
USED = {"environments/nouns.py": NOUN, "claims/mine.py": CLAIM, "registry.py": "", "tasks/__init__.py": ""}


@pytest.fixture
def recorded(tmp_path):
    """A package of two files and what a verdict says that it rests on."""
    for name, text in USED.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path, lambda ran=None: provenance.hashes_of(
        {name: tmp_path / name for name in ("environments/nouns.py", "claims/mine.py")},
        tmp_path / "claims/mine.py", ran, tmp_path, since=float("inf"),
    )  # fmt: skip


def edited(package: Path, before: str, after: str) -> None:
    file = package / "environments/nouns.py"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


@pytest.mark.parametrize(
    ("before", "after", "stale"),
    [
        ("return SCALE * x", "return x * SCALE", True),
        ("SCALE = 2.0", "SCALE = 2.5", True),
        ("size: int = 4", "size: int = 5", True),
        ("return ours(x)", "return -ours(x)", True),  # a special method: nobody has to name it
        ("class Thing:", "class Thing(dict):", True),
        ("import shared as ours", "import other as ours", True),
        ("    def draw", "    def mode(self): ...\n\n    def draw", False),
        ("return UNUSED", "return 2 * UNUSED", False),
        ("UNUSED = 3.0", "UNUSED = 4.0", False),
        ("return thing.draw()", "return None", False),
        ('"""What it does."""', '"""What it really does."""', False),
        ('"""A noun."""', '"""Another noun."""', False),
        ("x: int) -> int", "x: float) -> float", False),
        ("import numpy as np", "import numpy as np  # not used", False),
    ],
)
def test_only_what_is_reached_makes_a_verdict_stale(recorded, before, after, stale):
    package, rests_on = recorded
    verdict = rests_on()
    assert provenance.changed(verdict, package) == []
    edited(package, before, after)
    assert provenance.changed(verdict, package) == (["environments/nouns.py"] if stale else [])


def test_functions_of_a_file_that_never_ran_do_not_count_but_its_classes_do(recorded):
    package, rests_on = recorded
    file = package / "environments/nouns.py"
    edited(package, "return SCALE * x", "return picture(x)")  # now all of the file is reached
    assert rests_on({file: frozenset({"Thing.", "picture"})})["idle"] == {}
    verdict = rests_on({file: frozenset({"picture"})})
    assert verdict["idle"] == {"environments/nouns.py": ["picture"]}
    edited(package, "return picture(x)", "return 0")
    assert provenance.changed(verdict, package) == []
    edited(package, "return thing.draw()", "return None")
    assert provenance.changed(verdict, package) == ["environments/nouns.py"]
    edited(package, "return None", "return thing.draw()")
    assert provenance.changed(verdict, package) == []
    edited(package, "size: int = 4", "size: int = 5")
    assert provenance.changed(verdict, package) == ["environments/nouns.py"]
    (package / "environments/nouns.py").unlink()
    assert provenance.changed(verdict, package) == ["environments/nouns.py"]


def test_a_file_that_is_no_python_any_more_is_stale(recorded):
    package, rests_on = recorded
    verdict = rests_on()
    edited(package, "class Thing:", "class Thing")
    assert provenance.changed(verdict, package) == ["environments/nouns.py"]


def test_calls_are_noticed_by_file_and_class_bodies_are_none():
    with provenance.Calls() as calls:
        reach.words(b"a = 1")

        class Local:
            pass

    ran = calls.names()
    assert {"words", "units"} <= ran[Path(reach.__file__).resolve()]
    assert Path(__file__).resolve() not in ran


def test_a_rehashed_run_keeps_its_verdict_and_takes_the_newer_hashes(tmp_path):
    path = tmp_path / "x.jsonl"
    records.append(path, {"run": "a", "event": "started", "time": 1.0, "declaration": "d", "rerun": False})
    records.append(path, {"run": "a", "event": "finished", "verdict": "supported", "code": {"x.py": ["1", "2"]}})
    records.append(path, {"run": "a", "event": "rehashed", "code": {"x.py": ["1", "3"]}, "names": "x", "idle": {}})
    (run,) = records.runs([path])
    assert run.verdict == "supported"
    assert (run.ended["code"], run.ended["names"]) == ({"x.py": ["1", "3"]}, "x")
    assert len(json.loads(path.read_text().splitlines()[1])["code"]) == 1
