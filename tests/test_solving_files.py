"""`policylab solve` on files in the real formats, through the command line: what a user finds afterwards."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import policylab as lab
from policylab import cli, solving, spaces
from policylab.evidence.plan import make_plan
from policylab.policy import actions
from tests.data.builders import BANDIT_COLUMNS, CARTPOLE_COLUMNS, bandit_log, cartpole_log, d4rl_hopper, minari_pendulum
from tests.small import continuous_recording, discrete_recording


@dataclass(frozen=True)
class Found:
    """What one solve left behind: the document on standard output, the words on standard error, and the report."""

    document: dict[str, Any]
    progress: str
    report: str
    out: Path


@pytest.fixture
def solve(tmp_path, monkeypatch, capsys) -> Callable[..., Found]:
    """Runs `policylab solve --json ...` in this process, in a folder of its own, with a budget of a second."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    small = lambda *given, **named: replace(make_plan(*given, **named), episodes=4, report_episodes=5)  # quicker
    monkeypatch.setattr("policylab.solving.make_plan", small)
    monkeypatch.setattr("policylab.evidence.plan.SELECTION_SEEDS", 2)
    monkeypatch.setattr("policylab.evidence.plan.FRESH_SEEDS", 3)
    monkeypatch.chdir(tmp_path)

    def run(*words: str, out: str = "out") -> Found:
        capsys.readouterr()
        status = cli.main(["solve", *words, "--budget", "1s", "--out", out, "--json"])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        document = json.loads(printed.out)
        assert json.loads((tmp_path / out / "result.json").read_text()) == document
        return Found(document, printed.err, (tmp_path / out / "report.html").read_text(), tmp_path / out)

    return run


def words_of(page: str) -> str:
    """The page as a reader sees it."""
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S)).split())


def assert_policies_load_and_act(found: Found, names: set[str]) -> None:
    """Every saved policy acts on observations of its Spec, inside its action space, and the same twice."""
    assert set(found.document["policies"]) == names
    for path in found.document["policies"].values():
        policy, spec = lab.load_product(path)
        observations = jax.random.normal(jax.random.key(0), (5, *spec.observation.shape))
        chosen = actions(policy.mode(), observations, key=jax.random.key(1))
        np.testing.assert_array_equal(chosen, actions(policy.mode(), observations, key=jax.random.key(2)))
        if isinstance(spec.action, spaces.Discrete):
            assert np.all((np.asarray(chosen) >= 0) & (np.asarray(chosen) < spec.action.n))
        else:
            low, high = spec.action.bounds()
            assert np.all((np.asarray(chosen) >= low - 1e-5) & (np.asarray(chosen) <= high + 1e-5))


def test_a_minari_dataset_with_its_environment(solve, tmp_path):
    found = solve("--data", minari_pendulum(tmp_path), "--environment", "Pendulum-v1", "--methods", "bc")
    assert found.document["kind"] == "environment"
    assert found.document["winner"] == "bc"
    best, saved = found.document["confirmed"]
    assert best["over"] == "3 seeds"
    assert "saved policy" in saved["method"]
    assert -2000 < best["interval"][0] <= best["value"] <= best["interval"][1] < 0  # returns of Pendulum-v1
    assert "Every policy was tried in the environment" in words_of(found.report)
    assert_policies_load_and_act(found, {"bc"})
    policy = found.document["policy"]
    assert cli.main(["evaluate", policy, "--environment", "Pendulum-v1", "--episodes", "2", "--horizon", "5"]) == 0


def test_a_minari_dataset_without_environment_is_unverified(solve, tmp_path):
    found = solve("--data", minari_pendulum(tmp_path, episodes=10, length=8), "--methods", "bc")
    assert_unverified(found, {"bc"})


def assert_unverified(found: Found, names: set[str]) -> None:
    """Fitted Q evaluation: no winner, and every estimate says that nothing verified it."""
    assert (found.document["kind"], found.document["winner"], found.document["policy"]) == ("fitted-q", None, None)
    logged, *estimates = found.document["confirmed"]
    assert logged["note"] == "what was really earned"
    assert {row["method"] for row in estimates} == names
    assert {row["note"] for row in estimates} == {"unverified"}
    text = words_of(found.report)
    assert "No winner" in text
    assert "unverified" in text
    assert "blind trial" in text
    assert_policies_load_and_act(found, names)


def test_a_d4rl_file_with_an_environment(solve, tmp_path):
    d4rl_hopper(tmp_path / "hopper.hdf5")
    found = solve("--data", "hopper.hdf5", "--environment", "Hopper-v5", "--methods", "percent-bc")
    assert (found.document["kind"], found.document["winner"]) == ("environment", "percent-bc")
    assert "95% interval" in found.document["verdict"]
    assert_policies_load_and_act(found, {"percent-bc"})


def test_a_d4rl_file_without_environment_is_unverified(solve, tmp_path):
    d4rl_hopper(tmp_path / "hopper.hdf5", episodes=12, limit=8)
    found = solve("--data", "hopper.hdf5", "--methods", "bc")
    assert_unverified(found, {"bc"})


def test_a_log_of_choices_with_its_environment(solve, tmp_path):
    cartpole_log(tmp_path / "log.csv", episodes=20)
    found = solve("--data", "log.csv", "--columns", CARTPOLE_COLUMNS, "--environment", "CartPole-v1", "--methods", "bc")
    assert (found.document["kind"], found.document["winner"]) == ("environment", "bc")
    assert 5 < found.document["confirmed"][0]["value"] <= 500  # steps that the pole stands
    assert_policies_load_and_act(found, {"bc"})


def test_choices_in_arrays_without_propensities_are_unverified(solve, tmp_path):
    lab.save_data(discrete_recording(length=8), tmp_path / "choices.npz")
    assert_unverified(solve("--data", "choices.npz", "--methods", "dqn"), {"dqn"})


def with_users(path: Path) -> Path:
    """The log with a column of users, each of whom saw three rows."""
    rows = list(csv.reader(path.read_text().splitlines()))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([[*row, "user" if i == 0 else f"u{i // 3}"] for i, row in enumerate(rows)])
    return path


def test_impressions_with_propensities_and_users(solve, tmp_path):
    with_users(bandit_log(tmp_path / "log.csv", rows=3000))
    words = ["--data", "log.csv", "--columns", BANDIT_COLUMNS + ",group=user", "--methods", "reward-regression"]
    found = solve(*words)
    assert found.document["kind"] == "off-policy"
    (estimate,) = found.document["confirmed"]
    assert estimate["over"].endswith("groups")
    assert 200 < int(estimate["over"].split()[0].replace(",", "")) < 400  # of 1,000 users, a third reports
    (gain,) = found.document["differences"]
    assert gain["interval"][0] < gain["value"] < gain["interval"][1]
    text = words_of(found.report)
    assert "Nothing was tried for real: these are off-policy estimates" in text
    assert "matched positives" in text
    assert_policies_load_and_act(found, {"reward-regression"})
    # A saved policy reads new rows of the log and answers in its words.
    policy, spec = lab.load_product(found.document["policies"]["reward-regression"])
    encoder = lab.Encoder.of(spec)
    rows = {"user_feature_0": ["cef3390ed299c098"], "user_feature_1": ["03a5648a76832f83"], "position": [1]}
    chosen = encoder.decode_action(actions(policy.mode(), encoder.encode(rows), key=jax.random.key(0)))
    assert chosen["item_id"][0] in {"0", "1", "2", "3", "4"}
    assert "lab.Encoder.of(spec)" in found.report
    # The same seed gives the same numbers, another one others.
    told = ("confirmed", "selection", "differences", "verdict", "winner", "steps", "shortlist")
    again = solve(*words, "--seed", "0", out="again")
    assert {name: again.document[name] for name in told} == {name: found.document[name] for name in told}
    policy_bytes = [Path(run.document["policies"]["reward-regression"]).read_bytes() for run in (found, again)]
    assert policy_bytes[0] == policy_bytes[1]
    assert solve(*words, "--seed", "1", out="other").document["confirmed"] != found.document["confirmed"]


def test_demonstrations_alone_are_described_and_no_winner_is_named(solve, tmp_path):
    lab.save_data(continuous_recording(reward=False), tmp_path / "shown.npz")
    found = solve("--data", "shown.npz")
    assert (found.document["kind"], found.document["winner"], found.document["policy"]) == ("likelihood", None, None)
    assert found.document["unit"] == "log-likelihood per step (nats)"
    assert {row["over"] for row in found.document["confirmed"]} == {"4 held-out episodes"}
    text = words_of(found.report)
    assert "No winner" in text
    assert "run a blind trial" in text
    assert "Trials per policy" in text
    names = {"gaussian, one spread", "gaussian, spread by state"}
    assert_policies_load_and_act(found, names)
    assert len({Path(path).name for path in found.document["policies"].values()}) == len(names)


def test_the_command_in_the_report_repeats_it_all(solve, tmp_path, monkeypatch, capsys):
    import html
    import shlex

    cartpole_log(tmp_path / "log.txt", limit=8)
    words = ["--data", "log.txt", "--format", "log", "--columns", CARTPOLE_COLUMNS, "--methods", "bc", "--seed", "3"]
    seen: dict[str, Any] = {}

    def instead(*arguments, **options):
        seen.update(options, data=arguments[0])
        raise lab.BadInput("enough")

    import policylab.solving as solving

    real = solving.solve
    monkeypatch.setattr("policylab.evidence.plan.FRESH_SEEDS", 1)
    found = solve(*words, out="my runs/out")
    command = html.unescape(re.search(r"Repeat all of this</h2><pre class=wrap>(.*?)</pre>", found.report, re.S)[1])
    monkeypatch.setattr(solving, "solve", instead)
    program, *rest = shlex.split(command)
    assert program == "policylab"
    assert cli.main(rest) == 2  # ours said so
    import inspect

    assert set(seen) == set(inspect.signature(real).parameters) - {"model", "aligned"}  # those of language models
    given = {
        "data": "log.txt",
        "format": "log",
        "columns": CARTPOLE_COLUMNS,
        "methods": ["bc"],
        "seed": 3,
        "out": Path("my runs/out"),
    }
    assert {name: seen[name] for name in given} == given
    assert seen["task"] is seen["dataset"] is seen["environment"] is None
    assert (tmp_path / "my runs/out/report.html").is_file()  # what was there came back


def test_an_interrupt_of_solve_says_what_is_true_of_solve(tmp_path, monkeypatch, capsys):
    lab.save_data(continuous_recording(length=4), tmp_path / "data.npz")
    monkeypatch.chdir(tmp_path)

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    for place in ("policylab.evidence.fitted.judge", "policylab.solving.write_report"):
        monkeypatch.setattr(place, interrupt)
        assert cli.main(["solve", "--data", "data.npz", "--methods", "bc", "--budget", "1s"]) == 130
        sentence = capsys.readouterr().err.splitlines()[-1]
        assert "solve writes its results when all is done" in sentence
        assert "--resume" not in sentence
        assert not (tmp_path / "runs" / "solve").exists()
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)


def test_what_only_python_can_say_is_repeated_from_python(tmp_path):
    from policylab.solving import _command

    given = {"data": continuous_recording(), "columns": None, "budget": "1s", "methods": ["bc"], "out": tmp_path, "seed": 2}
    assert _command(given) == f"lab.solve(data=your_data, budget='1s', methods=['bc'], out='{tmp_path}', seed=2)"
    mapped = {"data": "a b.csv", "columns": {"observation": ["x", "y"], "action": "a"}, "seed": 0}
    assert _command(mapped) == "policylab solve --data 'a b.csv' --columns observation=x,y,action=a --seed 0 --overwrite"
    task = lab.load_task("cartpole")
    assert _command({"data": "d.npz", "task": task}) == "policylab solve --data d.npz --task cartpole --overwrite"


@pytest.mark.parametrize("there", [True, False], ids=["a folder in use", "no folder"])
def test_what_others_put_into_the_folder_meanwhile_is_not_taken_back(there, tmp_path):
    place = tmp_path / "out"
    if there:
        place.mkdir()
        (place / "mine.txt").write_text("kept")

    def fails() -> None:
        with solving._all_or_nothing(place):
            (place / "report.html").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert ([path.name for path in place.iterdir()] == ["mine.txt"]) if there else not place.exists()


def test_an_interrupt_of_solve_on_a_model_says_how_to_go_on(monkeypatch, capsys):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", interrupt)
    assert cli.main(["solve", "--data", "prefs.jsonl", "--model=folder"]) == 130
    assert "same command with --resume goes on" in capsys.readouterr().err
