"""The command line as a user meets it: help, listings, documents, and a whole way from data to an evaluated policy."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import policylab as lab
from policylab import cli, registry
from policylab.claim import Claim, Greater
from policylab.commands import COMMANDS, acting, choosing, literals, output
from policylab.data.loading import save
from policylab.errors import BadInput
from tests.data.builders import pendulum_steps
from tests.reporting.pages import alone
from tests.small import continuous_recording

TINY = 'iql --width 8 --depth 1 --batch-size 16 --policy "Gaussian(width=8, depth=1)"'
OWN = '''
from policylab.learners.imitation.bc import BC as _BC
import policylab as lab


@lab.settings
class Mine(_BC):
    """Cloning, called differently."""

    learning_rate: float = lab.setting(1e-3, "of Adam", above=0.0)
    batch_size: int = lab.setting(16, "steps per update", low=1)
    policy: lab.Form = lab.setting(lab.Gaussian(width=8, depth=1), "the form")
    steps: int = lab.setting(3, "a name that the command has taken")


@lab.settings
class Blind(Mine):
    """Learns something, and no policy."""

    def products(self, state):
        return {"encoder": Mine.products(self, state)["policy"]}
'''


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with data of Pendulum-v1 and a learner of the user's own; commands run in it."""
    folder = tmp_path_factory.mktemp("cli")
    data = pendulum_steps(episodes=8, length=25)
    flags = np.zeros((8, 25), bool)
    timeouts = flags.copy()
    timeouts[:, -1] = True
    np.savez(
        folder / "pendulum.npz",
        observations=data["observations"][:, :-1].reshape(-1, 3),
        next_observations=data["observations"][:, 1:].reshape(-1, 3),
        actions=data["actions"].reshape(-1, 1),
        rewards=data["rewards"].reshape(-1),
        terminals=flags.reshape(-1),
        timeouts=timeouts.reshape(-1),
    )
    save(continuous_recording(), folder / "good.npz")
    (folder / "mine.py").write_text(OWN)
    return folder


@pytest.fixture(autouse=True)
def inside(world, monkeypatch):
    monkeypatch.chdir(world)


def said(command: str, capsys) -> str:
    """What a command that succeeds prints on standard output."""
    status = cli.main(shlex.split(command))
    out, err = capsys.readouterr()
    assert status == 0, err
    return out


def document(command: str, capsys):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(said(f"{command} --json", capsys), parse_constant=refuse)


@pytest.fixture(scope="module")
def run(world):
    """A run made by the command line."""
    here = os.getcwd()
    os.chdir(world)
    try:
        assert cli.main(shlex.split(f"train {TINY} --data pendulum.npz --steps 40 --seeds 2 --out run")) == 0
    finally:
        os.chdir(here)
    return world / "run"


# Help and listings


def test_the_overview_lists_every_command_and_no_other(capsys):
    text = said("--help", capsys)
    listed = [line.split()[0] for line in text.splitlines() if line.startswith("  ")]
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_takes_the_common_options(command, capsys):
    text = said(f"{command} --help", capsys)
    assert f"policylab {command}" in text
    assert all(option in text for option in ("--help", "--seed", "--out", "--json"))


def test_help_for_a_learner_has_every_setting_with_range_and_default(capsys):
    text = " ".join(said("train iql --help", capsys).split())
    assert "--expectile NUMBER tau of the value regression; above 0 and below 1; default: 0.7" in text
    assert "--policy FORM the form of the policy; default: Gaussian()" in text


@pytest.mark.parametrize("command", ["--help", "systems", "tasks", "learners", "train --help"])
def test_listings_import_nothing_heavy(command):
    program = (
        "import sys; from policylab.cli import main; main(sys.argv[1:]); "
        "heavy = {'jax', 'numpy', 'scipy', 'gymnasium', 'h5py', 'matplotlib'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, *command.split()], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_learners_are_listed_from_their_files_as_they_are(capsys):
    rows = document("learners", capsys)["learners"]
    assert [row["name"] for row in rows] == list(registry.LEARNERS)
    for row in rows:
        cls = registry.learner_class(row["name"])
        assert row["title"] == (cls.title or cls.__name__)
        assert row["actions"] == cls.actions
        assert tuple(row["uses"]) == tuple(cls.uses)


@pytest.mark.parametrize("name", registry.LEARNERS)
def test_every_learner_documents_every_setting(name, capsys):
    found = document(f"learners {name}", capsys)
    assert found["about"]
    assert all(row["help"] for row in found["settings"])


def test_systems_lists_all_of_them(capsys):
    found = document("systems", capsys)
    assert len(found["systems"]) == 233
    assert set(found["systems"][0]) >= {"id", "title", "family", "status", "verdict", "scale", "stale"}
    only = document("systems --family offline-rl", capsys)
    assert {row["family"] for row in only["systems"]} == {"offline-rl"}


def test_tasks_lists_all_and_describes_one(capsys):
    from policylab.tasks import task_names

    assert [row["name"] for row in document("tasks", capsys)["tasks"]] == list(task_names())
    found = document("tasks pointmaze/umaze", capsys)
    assert found["horizon"] > 0
    assert "mixed" in found["datasets"]


def test_a_document_goes_to_a_file_too(capsys, tmp_path):
    said(f"learners --out {tmp_path}/learners.json", capsys)
    assert json.loads((tmp_path / "learners.json").read_text())["learners"]


def test_numbers_that_are_not_finite_become_null():
    text = output.to_json({"a": float("nan"), "b": np.float32(1.5), "c": np.array([1.0, np.inf])})
    assert json.loads(text) == {"a": None, "b": 1.5, "c": [1.0, None]}


# Settings


def test_forms_and_values_are_read_as_written():
    form = literals.literal("Gaussian(width=128)", "--policy")
    assert form == lab.Gaussian(width=128)
    assert literals.literal("(1, -2.5, 'a', true, none)", "x") == (1, -2.5, "a", True, None)
    assert literals.setting_value("1e-4", "float", "x") == 1e-4
    assert literals.setting_value("1_000", "int", "x") == 1000
    assert literals.setting_value("off", "bool", "x") is False


def test_worlds_and_learners_are_read_inside_of_learners():
    world = literals.literal("EnsembleDynamics(world=EndingEnsemble(rule='hopper', bounds=((3, -inf, 2.0),)))", "--dynamics")
    assert world == lab.EnsembleDynamics(lab.EndingEnsemble(rule="hopper", bounds=((3, -np.inf, 2.0),)))
    for text, words in (
        ("MBPO(agent=3)", "MBPO.agent is 3: give a learner"),
        ("EnsembleDynamics(world=Gaussian())", "give the shape of a world, such as DynamicsEnsemble"),
        ("SINDy(world=DynamicsEnsemble())", "such as SparseDynamics"),
        ("Gaussian(activation='nope')", "Gaussian.activation is 'nope': choose one of"),
        ("TD3BC(policy=Gaussian())", "TD3BC climbs its critic with one action per observation and Gaussian draws"),
        ("Diffusion(sampler='hune')", "Diffusion.sampler is 'hune': choose one of ddim, euler, heun, ancestral"),
    ):
        with pytest.raises(BadInput, match=words):
            literals.literal(text, "--dynamics")


@pytest.mark.parametrize(
    "text", ["lambda: 1", "[x for x in (1,)]", "Gaussian(**{})", "a.b", "1 + 1", "Gaussian(width=open('f'))", "f'{1}'"]
)
def test_programs_are_no_values(text):
    with pytest.raises(BadInput):
        literals.literal(text, "x")


@pytest.mark.parametrize(
    ("text", "label", "learner"),
    [
        ("iql", "iql", lab.IQL()),
        ("iql(expectile=0.9)", "iql(expectile=0.9)", lab.IQL(expectile=0.9)),
        ("bold=iql(expectile=0.9, policy=Gaussian(width=8))", "bold", lab.IQL(expectile=0.9, policy=lab.Gaussian(width=8))),
    ],
)
def test_arms_are_read_as_written(text, label, learner):
    assert choosing.written_out(text) == (label, learner)


# From data to an evaluated policy


def test_train_evaluates_saves_and_tells(run, world, capsys):
    found = document(
        f"train {TINY} --data pendulum.npz --environment Pendulum-v1 --steps 40 --seeds 2 --episodes 2 --out told", capsys
    )
    assert found["step"] == 40
    assert found["seeds"] == [0, 1]
    assert found["learner"]["fields"]["width"] == 8
    assert len(found["evaluation"]["return"]["values"]) == 2
    assert found["evaluation"]["scale"] == "return, Pendulum-v1"
    assert lab.load_run("told").step == 40
    assert lab.load_policy(found["policy"], spec=lab.load_run("told").spec) is not None
    page = Path(found["report"]).read_text()
    alone(page)
    assert found["report"] == "told/report.html"
    assert "--steps 40 --seeds 2 --episodes 2 --out told-again" in page
    assert all(f"{value:.0f}" in page for value in found["evaluation"]["return"]["values"])


def test_learners_that_act_get_the_source_that_answers_them():
    free = argparse.Namespace(steps=3, copies=None, warmup=10, capacity=None, collect=None, updates=None)
    fixed = argparse.Namespace(**{**vars(free), "warmup": None})
    river, room = lab.load_task("riverswim"), lab.load_task("pointmaze/umaze")
    goals = lab.GoalConditioned(lab.TD3(), part="achieved_goal", into="desired_goal")
    for learner, task, options, source in (
        (lab.UCBVI(), river, fixed, lab.Rollout),
        (lab.REINFORCE(), river, fixed, lab.Rollout),
        (goals, room, free, lab.Hindsight),
        (lab.DQN(), river, free, lab.Replay),
    ):
        assert type(acting.source_of(options, learner, task)[0]) is source


def test_a_learner_learns_by_acting(capsys):
    acting = "--online --environment Pendulum-v1 --seeds 2 --episodes 2"
    found = document(
        f"train sac {acting} --steps 20 --width 8 --depth 1 --batch-size 8 --warmup 30 --copies 2 --no-report --out acted",
        capsys,
    )
    assert found["data"] is None
    assert (found["acting"]["kind"], found["acting"]["environments"], found["acting"]["steps"]) == ("replay", 2, 30 + 2 * 20)
    assert len(found["evaluation"]["return"]["values"]) == 2
    assert lab.load_run("acted").step == 20
    text = said(
        f"train a2c {acting} --steps 3 --width 8 --depth 1 --learner-steps 5 --environments 4 --no-report --out rolled", capsys
    )
    assert "60 steps in Pendulum-v1 per seed" in text


def test_seeds_start_where_asked(capsys):
    found = document(f"train {TINY} --data good.npz --steps 10 --seeds 2 --seed 5 --no-report --out numbered", capsys)
    assert found["seeds"] == [5, 6]


def test_resuming_goes_on_and_writes_the_page_again_where_it_can_be_drawn(run, capsys, monkeypatch):
    command = f"train {TINY} --data pendulum.npz --steps 40 --seeds 2 --out run --resume"
    (run / "report.html").unlink()
    text = said(f"{command} --episodes 0", capsys)
    assert "40 updates" in text
    assert "Its policies were not evaluated at the end" in (run / "report.html").read_text()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    lines = said(command, capsys).splitlines()
    assert lines[-1].startswith("no report was written (the report draws with matplotlib, which is missing: pip install")
    assert "the run is whole in run" in lines[-1]


def test_progress_goes_to_standard_error(capsys):
    assert cli.main(shlex.split(f"train {TINY} --data good.npz --steps 10 --seeds 2 --no-report --json --out quiet")) == 0
    out, err = capsys.readouterr()
    json.loads(out)
    assert "100%" in err


def test_evaluate_reports_units_and_repeats_itself(run, capsys):
    command = "evaluate run --environment Pendulum-v1 --episodes 3"
    found = document(command, capsys)
    assert found["unit"] == "seed"
    assert len(found["return"]["values"]) == 2
    assert found == document(command, capsys)
    other = document(f"{command} --seed 1", capsys)
    assert other["return"]["values"] != found["return"]["values"]
    single = document("evaluate run/policy.safetensors --environment Pendulum-v1 --episodes 3", capsys)
    assert single["unit"] == "episode"
    # The saved policy is that of the first seed, and meets the same episodes.
    assert single["return"]["mean"] == pytest.approx(found["return"]["values"][0], rel=1e-4)
    text = said(command, capsys)
    assert "the mode, 3 episodes of 2 seeds" in text


def test_evaluate_writes_a_page(run, capsys):
    found = document("evaluate run --environment Pendulum-v1 --episodes 2 --report page.html", capsys)
    page = Path("page.html").read_text()
    assert found["report"] == "page.html"
    assert "on Pendulum-v1: return" in page
    assert "policylab evaluate run --environment Pendulum-v1" in page
    assert cli.main(["evaluate", "run", "--environment", "Pendulum-v1", "--report", "page.pdf"]) == 2
    assert "end it in .html" in capsys.readouterr().err


def test_evaluate_writes_a_film(capsys):
    found = document("evaluate random --task gridworld/rooms --episodes 2 --films 2 --render film.gif", capsys)
    assert found["film"]["file"] == "film.gif"
    with Image.open("film.gif") as image:
        assert 2 < image.n_frames <= found["film"]["pictures"]


def test_sampling_differs_from_the_mode(run, capsys):
    command = "evaluate run --environment Pendulum-v1 --episodes 2"
    assert document(command, capsys)["return"] != document(f"{command} --sample", capsys)["return"]


def test_collect_writes_what_can_be_learned_from(run, world, capsys):
    found = document("collect run --environment Pendulum-v1 --episodes 2 --out more.npz", capsys)
    assert found["episodes"] == 2
    assert lab.load_data("more.npz", environment="Pendulum-v1").steps == found["steps"]
    # Equal seeds collect equal data.
    said("collect run --environment Pendulum-v1 --episodes 2 --out again.npz", capsys)
    first, again = lab.load_data("more.npz"), lab.load_data("again.npz")
    np.testing.assert_array_equal(first.action, again.action)


def test_an_own_learner_trains_and_comes_back(capsys):
    found = document(
        "train mine.py:Mine --data pendulum.npz --steps 10 --seeds 2 --learner-steps 4 --learning-rate 1e-2 --out own", capsys
    )
    assert found["learner"] == {"learner": "Mine", "fields": found["learner"]["fields"]}
    assert found["learner"]["fields"]["learning_rate"] == 1e-2
    assert found["learner"]["fields"]["steps"] == 4
    again = document("evaluate own --learner mine.py:Mine --environment Pendulum-v1 --episodes 1", capsys)
    assert len(again["return"]["values"]) == 2
    assert cli.main(["evaluate", "own", "--environment", "Pendulum-v1"]) == 2
    assert "learner" in capsys.readouterr().err


def test_a_learner_without_a_policy_is_not_played_with(capsys):
    data = "--data pendulum.npz --environment Pendulum-v1 --steps 2 --seeds 1"
    found = document(f"train mine.py:Blind {data} --out blind", capsys)
    assert (found["evaluation"], found["policy"]) == (None, None)
    assert "It learns no policy, so that nothing was played; it offers encoder" in Path(found["report"]).read_text()
    text = said(f"train mine.py:Blind {data} --out blind --resume", capsys)
    assert "2 updates of 1 seed in" in text
    assert "Blind learns no policy, so that nothing was played" in text
    assert "policylab evaluate" not in text


def test_diagnose_prints_the_card_and_keeps_it(capsys, world):
    found = document("diagnose pendulum.npz --environment Pendulum-v1 --out card", capsys)
    assert found["data"]["steps"] == 200
    assert found["advice"]
    assert json.loads((world / "card" / "card.json").read_text()) == found
    assert (world / "card" / "card.png").read_bytes()[:4] == b"\x89PNG"
    assert "200 steps" in said("diagnose --data pendulum.npz", capsys)
    assert document("diagnose pendulum.npz --reference pendulum.npz", capsys)["coverage"]["saco"] == 1.0


def test_compare_prints_a_table_and_keeps_the_runs(world, capsys):
    arms = 'a="bc(batch_size=16, policy=Gaussian(width=8, depth=1))" b="bc(batch_size=16, policy=Gaussian(width=8, depth=1))"'
    command = f"compare {arms} --data pendulum.npz --environment Pendulum-v1 --seeds 2 --steps 10 --episodes 2 --out compared"
    found = document(f"{command} --tune learning-rate=1e-4,1e-3 --tuning-seeds 1", capsys)
    page = Path(found.pop("report")).read_text()
    alone(page)
    assert "compared-again" in page
    assert found == json.loads((world / "compared" / "comparison.json").read_text())
    assert len(found["arms"]["a"]["tuning"]) == 2
    assert found["differences"][0]["difference"] == 0.0
    assert lab.load_run("compared/a/Pendulum-v1").step == 10


@pytest.mark.parametrize(
    ("out", "sentence"), [("", "nothing of this comparison is kept"), ("--out=cut", "with --resume goes on")]
)
def test_an_interrupted_comparison_says_what_is_kept(world, capsys, monkeypatch, out, sentence):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("policylab.comparing.compare", interrupted)
    command = f"compare bc iql --data pendulum.npz --environment Pendulum-v1 --seeds 2 --steps 10 {out}"
    assert cli.main(shlex.split(command)) == 130
    assert sentence in capsys.readouterr().err


def test_values_of_a_grid_may_hold_commas():
    from policylab.commands.compare import _split

    assert _split("Gaussian(width=8, depth=1),Gaussian()") == ["Gaussian(width=8, depth=1)", "Gaussian()"]


def test_an_overwritten_result_comes_back_if_its_successor_fails(tmp_path):
    from policylab.commands.solve import set_aside

    place = tmp_path / "solved"
    place.mkdir()
    (place / "result.json").write_text("old")

    def fail():
        with set_aside(place):
            place.mkdir()
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert (place / "result.json").read_text() == "old"
    with set_aside(place):
        place.mkdir()
        (place / "result.json").write_text("new")
    assert (place / "result.json").read_text() == "new"
    assert list(tmp_path.iterdir()) == [place]


def test_the_version(capsys):
    assert said("--version", capsys).strip() == f"policylab {lab.__version__}"


@pytest.mark.parametrize(
    ("shift", "verdict", "status"), [(3.0, "supported", 0), (-3.0, "refuted", 3), (0.45, "inconclusive", 4)]
)
def test_reproduce_tells_the_verdict_by_its_status(shift, verdict, status, tmp_path, capsys, monkeypatch):
    def measure(seeds):
        noise = np.array([np.random.default_rng(seed).normal() for seed in seeds])
        return {"theirs": np.zeros(len(seeds)), "ours": shift + noise}

    claim = Claim(
        system="made-up",
        says="ours beats theirs",
        task="noise",
        arms={"ours": "shifted", "theirs": "not"},
        parts=(Greater("ours", "theirs", 0.5),),
        measure=measure,
        budget="nothing",
        scale="machinery",
        deviation="no paper",
        minutes=1.0,
    )
    monkeypatch.setattr("policylab.claims.load", lambda system: claim)
    assert cli.main(["reproduce", "made-up", "--json", "--out", str(tmp_path / "results")]) == status
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == verdict
    assert set(found) >= {"system", "scale", "parts", "arms", "seeds", "seconds"}
    assert set(found["parts"][0]) >= {"kind", "difference", "interval", "verdict"}
    assert (tmp_path / "results" / "made-up.jsonl").exists()
    assert cli.main(["reproduce", "made-up", "--seeds", "5", "--first-seed", "100", "--json", "--out", str(tmp_path)]) in (
        0,
        3,
        4,
    )
    again = json.loads(capsys.readouterr().out)
    assert again["seeds"] == [100, 101, 102, 103, 104]
    assert again["rerun"]
