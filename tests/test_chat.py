"""`policylab chat` with a checkpoint folder."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from policylab import cli

FOLDER = str(Path(__file__).parent / "fixtures" / "language" / "qwen3")


def test_it_answers_every_turn_and_remembers_the_ones_before(capsys):
    command = ["chat", FOLDER, "--say", "the cat", "--say", "hat", "--answer", "6", "--json", "--seed", "1"]
    assert cli.main(command) == 0
    first = json.loads(capsys.readouterr().out)
    assert [m["role"] for m in first["messages"]] == ["user", "assistant", "user", "assistant"]
    assert cli.main(command) == 0
    assert json.loads(capsys.readouterr().out)["messages"] == first["messages"]


def test_lines_of_standard_input_are_answered(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\n"))
    assert cli.main(["chat", FOLDER, "--answer", "6", "--greedy"]) == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    ("arguments", "problem"), [([FOLDER + "/nowhere"], "no file"), ([FOLDER, "--answer", "500", "--say", "a"], "context of 64")]
)
def test_a_mistake_is_one_sentence(arguments, problem, capsys):
    assert cli.main(["chat", *arguments]) == 2
    assert problem in capsys.readouterr().err
