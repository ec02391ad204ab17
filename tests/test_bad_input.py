"""Every kind of bad input to the command line: exit status 2, one sentence on standard error, no traceback, nothing written or lost.

`KINDS` lists them: what is wrong -> (the words of the command, what the sentence must name). Files that do not load are a list of their
own, `tests/data/bad_input.py`; those that the command line can meet are passed through it too.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import policylab as lab
from policylab import cli
from policylab.data.loading import save
from tests.data.bad_input import KINDS as BAD_DATA
from tests.data.builders import BANDIT_COLUMNS, bandit_log, d4rl_hopper
from tests.small import continuous_recording, discrete_recording

SMALL = 'iql --width 8 --depth 1 --batch-size 16 --policy "Gaussian(width=8, depth=1)"'

KINDS = {
    # commands and options
    "a command that does not exist": ("trian iql", "did you mean train"),
    "an option that does not exist": ("train iql --data good.npz --expectil 0.8", "did you mean --expectile"),
    "an option of another learner": ("train bc --data good.npz --expectile 0.8", "--expectile"),
    "an option without its value": ("train iql --data good.npz --steps", "--steps"),
    "a word that belongs to nothing": ("tasks pendulum more", "'more'"),
    "a choice that is none": ("systems --status fine", "works"),
    # learners
    "no learner": ("train --data good.npz", "which learner"),
    "a learner that does not exist": ("train iqll --data good.npz", "did you mean iql"),
    "two learners": ("train iql --learner bc --data good.npz", "two learners"),
    "a learner's file that is not there": ("train nowhere.py:Mine --data good.npz", "nowhere.py"),
    "a learner's class that is not there": ("train mine.py:Other --data good.npz", "'Other'"),
    "a class that is no learner": ("train mine.py:Plain --data good.npz", "Plain"),
    "a learner without methods": ("train mine.py:Half --data good.npz", "has no init, update"),
    "a learner's file with a mistake in it": ("train broken.py:Mine --data good.npz", "line 3"),
    "a learner's file that imports what is not there": ("train lacking.py:Mine --data good.npz", "no_such_package"),
    "an own learner without file": ("train Mine:Mine --data good.npz", "mine.py:Mine"),
    # settings
    "a word for a number": ("train iql --data good.npz --expectile high", "give a number"),
    "a setting out of its range": ("train iql --data good.npz --expectile 1.5", "below 1"),
    "a setting that is not a number": ("train iql --data good.npz --discount nan", "--discount"),
    "a fraction for a whole number": ("train iql --data good.npz --batch-size 2.5", "whole number"),
    "a form that does not exist": ('train iql --data good.npz --policy "Gausian(width=8)"', "did you mean Gaussian"),
    "a form's setting that does not exist": ('train iql --data good.npz --policy "Gaussian(widht=8)"', "did you mean width"),
    "a form's setting of another type": ("train iql --data good.npz --policy \"Gaussian(width='big')\"", "whole number"),
    "a number for a form": ("train iql --data good.npz --policy 7", "policy form"),
    "a program for a form": ("train iql --data good.npz --policy \"open('hacked', 'w')\"", "open"),
    "a longer program for a form": ('train iql --data good.npz --policy "().__class__.mro()"', "is no value"),
    "no updates": ("train iql --data good.npz --steps 0", "at least 1"),
    "a number of updates that is none": ("train iql --data good.npz --steps many", "'many'"),
    "no seeds": ("train iql --data good.npz --seeds 0", "at least 1"),
    "a negative seed": ("train iql --data good.npz --seed -1", "at least 0"),
    # films
    "a film of no kind": ("evaluate random --task cartpole --render film.webm", "end it in .gif or .mp4"),
    # acting
    "acting beside data": ("train sac --online --environment Pendulum-v1 --data good.npz", "--data from data"),
    "acting nowhere": ("train sac --online", "where to act"),
    "settings of acting without it": ("train sac --data good.npz --warmup 10", "needs --online"),
    "a replay too small for its warmup": ("train sac --online --environment Pendulum-v1 --capacity 10", "raise capacity"),
    "a replay for a learner of its own doing": (
        "train ppo --online --environment Pendulum-v1 --capacity 10",
        "--capacity means nothing",
    ),
    "a learner of its own doing on data": ("train ppo --data good.npz", "lab.Rollout"),
    "learning for a scripted dataset": ("collect --task cartpole --dataset mixed --learning 9 --out x.npz", "scripted pilot"),
    # data
    "no data": ("train iql --steps 10", "no data"),
    "data named twice": ("train iql --data good.npz --dataset mixed", "--dataset and --data"),
    "a task that does not exist": ("train iql --task pointmaze/umase --dataset mixed", "did you mean pointmaze/umaze"),
    "a dataset that the task does not have": ("train iql --task pointmaze/umaze --dataset mixd", "did you mean mixed"),
    "a task without dataset": ("train iql --task pointmaze/umaze", "which dataset"),
    "columns without data": ("train iql --task pointmaze/umaze --dataset mixed --columns observation=a", "--columns"),
    "a file that is not there": ("train iql --data nowhere.hdf5", "nowhere.hdf5"),
    "a table without column map": ("train bc --data log.csv", "--columns"),
    "a column that the table lacks": ("train bc --data log.csv --columns observation=nothing,action=item_id", "'nothing'"),
    "a role that does not exist": (
        "train bc --data log.csv --columns observations=a,action=item_id",
        "did you mean observation",
    ),
    "a format that does not exist": ("train iql --data good.npz --format tfrecord", "tfrecord"),
    "data that do not fit the environment": ("train iql --data good.npz --environment CartPole-v1", "Box(4)"),
    "data that do not fit the task": ("train iql --data good.npz --task pointmaze/umaze", "Box(2)"),
    "an environment that does not exist": ("train iql --data good.npz --environment Hoper-v5", "did you mean Hopper"),
    "discrete actions for a continuous learner": ("train iql --data choices.npz", "discrete"),
    "a learner that needs rewards, without rewards": ("train iql --data silent.npz", "rewards"),
    "a policy form that cannot do the actions": ('train bc --data good.npz --policy "Categorical()"', "Categorical"),
    # places
    "a file where the run should go": ("train iql --data good.npz --out good.npz", "good.npz is a file"),
    "a place below a file": ("train iql --data good.npz --out good.npz/run", "good.npz is a file"),
    "a folder that holds a run": (f"train {SMALL} --data good.npz --steps 20 --seeds 2 --out run", "--resume"),
    "resuming with another setting": (
        f"train {SMALL} --discount 0.5 --data good.npz --steps 20 --seeds 2 --out run --resume",
        "other settings",
    ),
    "resuming with other seeds": (f"train {SMALL} --data good.npz --steps 20 --seeds 3 --out run --resume", "other seeds"),
    "resuming for another number of updates": (
        f"train {SMALL} --data good.npz --steps 30 --seeds 2 --out run --resume",
        "other updates",
    ),
    "resuming with data of other spaces": (
        f"train {SMALL} --data hopper.hdf5 --steps 20 --seeds 2 --out run --resume",
        "other spaces",
    ),
    "resuming with other data of the same shapes": (
        f"train {SMALL} --data other.npz --steps 20 --seeds 2 --out run --resume",
        "other data",
    ),
    "a policy whose description is broken": ("evaluate broken.safetensors --environment Pendulum-v1", "header"),
    "resuming from a damaged checkpoint": (
        f"train {SMALL} --data good.npz --steps 20 --seeds 2 --out damaged --resume",
        "damaged",
    ),
    "a document where a file is": ("learners --out good.npz", "exists already"),
    # evaluating and collecting
    "a run that is not there": ("evaluate nowhere --environment Pendulum-v1", "nowhere"),
    "no place to evaluate": ("evaluate run", "--task"),
    "two places to evaluate": ("evaluate run --task pointmaze/umaze --environment Pendulum-v1", "both"),
    "a folder without run": ("evaluate empty --environment Pendulum-v1", "checkpoint"),
    "a damaged run": ("evaluate damaged --environment Pendulum-v1", "damaged"),
    "a file that is no policy": ("evaluate good.npz --environment Pendulum-v1", "safetensors"),
    "a policy of other spaces": ("evaluate run/policy.safetensors --environment CartPole-v1", "Box"),
    "a run of other spaces": ("evaluate run --environment CartPole-v1", "Box"),
    "no episodes": ("evaluate run --environment Pendulum-v1 --episodes 0", "at least 1"),
    "a level that is no probability": ("evaluate run --environment Pendulum-v1 --level 95", "between 0 and 1"),
    "a collection without place": ("collect run --environment Pendulum-v1 --episodes 1", "--out"),
    "a collection of two sizes": ("collect run --environment Pendulum-v1 --episodes 1 --steps 9 --out new.npz", "either"),
    "a collection in an unknown format": ("collect run --environment Pendulum-v1 --episodes 1 --out new.xyz", "new.xyz"),
    "a collection over a file": ("collect run --environment Pendulum-v1 --episodes 1 --out good.npz", "exists already"),
    "a collection by nobody": ("collect --environment Pendulum-v1 --episodes 1 --out new.npz", "who plays"),
    # comparing
    "a comparison of one": ("compare iql --task pointmaze/umaze --dataset mixed", "at least one more"),
    "an arm twice": ("compare iql iql --task pointmaze/umaze --dataset mixed", "two arms"),
    "an arm that does not read": ('compare iql "bc(" --task pointmaze/umaze --dataset mixed', "does not read"),
    "an arm's setting out of range": ('compare bc "iql(expectile=3)" --task pointmaze/umaze --dataset mixed', "below 1"),
    "a comparison on one seed": ("compare iql bc --task pointmaze/umaze --dataset mixed --seeds 1", "at least 2"),
    "a comparison nowhere": ("compare iql bc --dataset mixed", "where to compare"),
    "a grid over what one arm lacks": (
        "compare iql bc --task pointmaze/umaze --dataset mixed --tune expectile=0.7,0.9",
        "bc has no setting 'expectile'",
    ),
    "grids of different sizes": (
        "compare iql bc --task pointmaze/umaze --dataset mixed --tune iql.expectile=0.7,0.9 --tune bc.learning-rate=1e-3",
        "different numbers of trials",
    ),
    "a grid with a value out of range": (
        "compare iql bc --task pointmaze/umaze --dataset mixed --tune learning-rate=1e-3,-1",
        "above 0",
    ),
    "a grid that does not read": ("compare iql bc --task pointmaze/umaze --dataset mixed --tune learning-rate", "SETTING=A,B"),
    "a comparison with unsuited data": ("compare iql bc --environment Pendulum-v1 --data choices.npz", "Box(4)"),
    # solving, diagnosing, reproducing, listing
    "solving nothing": ("solve", "no data"),
    "a budget that is no time": ("solve --data good.npz --budget soon", "'soon'"),
    "a budget of nothing": ("solve --data good.npz --budget 0min", "0min"),
    "a method that does not exist": ("solve --data good.npz --methods iql,bcc", "did you mean bc"),
    "a method that cannot learn these data": ("solve --data choices.npz --methods iql --out new", "IQL learns continuous"),
    "solving for another environment": ("solve --data good.npz --environment CartPole-v1 --out new", "Box(4)"),
    "an empty method": ("solve --data good.npz --methods iql,,bc", "empty name"),
    "solving into a folder with something in it": ("solve --data good.npz --out run", "exists already"),
    "diagnosing nothing": ("diagnose", "no data"),
    "diagnosing against data of other spaces": ("diagnose good.npz --reference choices.npz", "Box(4)"),
    "a board where a file is": ("train iql --data good.npz --tensorboard good.npz --out new", "good.npz is a file"),
    "a board for data that do not suit": ("train iql --data choices.npz --tensorboard board", "discrete"),
    "diagnosing a file that is not there": ("diagnose nowhere.csv", "nowhere.csv"),
    "reproducing a system that does not exist": ("reproduce riqll", "riql"),
    "reproducing without a place for results": ("reproduce riql --out good.npz", "cannot be written"),
    "reproducing with one seed": ("reproduce riql --seeds 1", "at least 2"),
    "reproducing nothing": ("reproduce", "NAME"),
    "a task to list that does not exist": ("tasks pointmaze/umase", "did you mean pointmaze/umaze"),
    "a learner to list that does not exist": ("learners iqll", "did you mean iql"),
    "a family that does not exist": ("systems --family offlin", "choose one of"),
}


HALF = """
import policylab as lab


class Plain:
    pass


@lab.settings
class Half(lab.Learner):
    rate: float = lab.setting(0.1, "of nothing")
    needs = {}
    products = dict
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with good data, a finished run, a damaged one and files of learners."""
    folder = tmp_path_factory.mktemp("world")
    save(continuous_recording(), folder / "good.npz")
    save(continuous_recording(reward=False), folder / "silent.npz")
    save(continuous_recording(seed=1), folder / "other.npz")
    save(discrete_recording(), folder / "choices.npz")
    save_file({"x": np.zeros(1, np.float32)}, folder / "broken.safetensors", metadata={"policylab": "[1]"})
    bandit_log(folder / "log.csv", rows=50)
    d4rl_hopper(folder / "hopper.hdf5")
    (folder / "mine.py").write_text(HALF)
    (folder / "broken.py").write_text("import math\n\nclass Mine\n    pass\n")
    (folder / "lacking.py").write_text("import no_such_package\n\nclass Mine:\n    pass\n")
    (folder / "empty").mkdir()
    learner = lab.IQL(width=8, depth=1, batch_size=16, policy=lab.Gaussian(width=8, depth=1))
    data = lab.Dataset.of(lab.load_data(folder / "good.npz"))
    for name in ("run", "damaged"):
        run = lab.train(learner, data, steps=20, seeds=2, out=folder / name)
        run.save_policy(folder / name / "policy.safetensors")
    checkpoint = folder / "damaged" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


def refused(argv: list[str], folder: Path, capsys, monkeypatch) -> str:
    """Run a command that must refuse; the sentence."""
    monkeypatch.chdir(folder)
    before = contents(folder)
    status = cli.main(argv)
    out, err = capsys.readouterr()
    assert status == 2, err
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith("policylab: ")
    assert "Traceback" not in err
    assert contents(folder) == before
    return err


def test_there_are_at_least_forty_kinds():
    assert len(KINDS) >= 40


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_one_sentence(kind, world, capsys, monkeypatch):
    command, named = KINDS[kind]
    sentence = refused(shlex.split(command), world, capsys, monkeypatch)
    assert named in sentence


@pytest.mark.parametrize(
    "kind", [kind for kind, (_, options, _) in BAD_DATA.items() if set(options) <= {"columns", "format", "environment"}]
)
def test_bad_data_are_one_sentence(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    make, options, words = BAD_DATA[kind]
    made = make(tmp_path)
    source, columns = made if isinstance(made, tuple) else (made, None)
    options = options | ({"columns": columns} if columns else {})
    assert all(isinstance(options.get(name, ""), str) for name in ("columns", "environment")), "the command line takes words"
    given = [word for name, value in options.items() for word in (f"--{name}", value)]
    sentence = refused(["train", "bc", "--data", str(source), *given, "--out", "run"], tmp_path, capsys, monkeypatch)
    if "environment" not in options:
        assert all(" ".join(word.split()) in sentence for word in words)


def test_a_mistake_with_json_leaves_standard_output_empty(world, capsys, monkeypatch):
    refused(["learners", "iqll", "--json"], world, capsys, monkeypatch)


def test_a_missing_package_names_the_extra(world, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert 'pip install "policylab[data]"' in refused(["train", "bc", "--data", "hopper.hdf5"], world, capsys, monkeypatch)


def test_a_full_disk_is_one_sentence(world, capsys, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/new/run.json")

    monkeypatch.setattr("policylab.runs.RunFolder.begin", full)
    sentence = refused(shlex.split(f"train {SMALL} --data good.npz --steps 20 --seeds 2"), world, capsys, monkeypatch)
    assert "No space left on device" in sentence
    assert "--out" in sentence


def test_an_interrupt_is_one_sentence(world, capsys, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("policylab.commands.learners.run", interrupt)
    assert cli.main(["learners"]) == 130
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_diverging_is_one_sentence_of_its_own_status(world, capsys, monkeypatch):
    monkeypatch.chdir(world)
    before = contents(world)
    command = f"train {SMALL} --learning-rate 1e30 --data good.npz --steps 20 --seeds 2 --out ../diverged"
    assert cli.main(shlex.split(command)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "stopped being finite at step" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert contents(world) == before


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: out of memory allocating 9 bytes")])
def test_memory_that_runs_out_is_one_sentence(error, capsys, monkeypatch):
    def exhaust(*arguments, **options):
        raise error

    monkeypatch.setattr("policylab.commands.learners.run", exhaust)
    assert cli.main(["learners"]) == 1
    assert "not enough memory" in capsys.readouterr().err


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch):
    def defect(*arguments, **options):
        raise RuntimeError("ours")

    monkeypatch.setattr("policylab.commands.learners.run", defect)
    with pytest.raises(RuntimeError, match="ours"):
        cli.main(["learners"])


def test_a_folder_without_rights_is_one_sentence(world, tmp_path, capsys, monkeypatch):
    # As the system would answer: root may write everywhere, so that taking rights away would test nothing for root.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    argv = shlex.split(f"train {SMALL} --data good.npz --steps 20 --out {tmp_path}/run")
    assert "may not write" in refused(argv, world, capsys, monkeypatch)


def test_rights_that_go_while_it_runs_are_one_sentence(world, tmp_path, capsys, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "run"))

    monkeypatch.setattr("policylab.runs.RunFolder.begin", refuse)
    argv = shlex.split(f"train {SMALL} --data good.npz --steps 20 --out {tmp_path}/run")
    assert "Permission denied" in refused(argv, world, capsys, monkeypatch)


@pytest.mark.parametrize(
    "command", ["trian iql", "train iql --data nowhere.npz", 'train iql --data good.npz --policy "Gaussian("']
)
def test_a_process_of_its_own_says_the_same(command, world):
    before = contents(world)
    done = subprocess.run(
        [sys.executable, "-m", "policylab.cli", *shlex.split(command)], cwd=world, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert contents(world) == before


def test_a_good_log_is_not_refused(world):
    recording = lab.load_data(world / "log.csv", columns=BANDIT_COLUMNS)
    assert np.isfinite(recording.reward).all()
