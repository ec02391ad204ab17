"""The house keeps its shape: short files, imports one way, a learner per file, and nothing that runs what it reads.

Read from the syntax trees, without importing anything, so that a broken rule is told by file and line.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "src" / "policylab"
MOST_LINES = 300

# Rooms and files of the package from the ground up. A file imports from its own level and those below it, also inside functions.
LEVELS = (
    ("errors", "spaces", "progress", "compilation", "fingerprints", "trackers"),
    # the nouns, and how they are named and stored
    ("experience", "hyperparameters", "policy", "environment", "world", "scorer", "source", "learner", "task", "claim"),
    ("registry", "checkpoints", "documents", "tokenizer", "templates"),
    ("networks",),
    ("policies", "environments", "worlds", "scorers"),
    ("planners",),
    ("data",),
    ("sources", "learners"),
    # what is done with them
    (
        "program", "runs", "training", "tasks", "evaluation", "collecting", "repeating", "tuning", "comparison", "comparing",
        "examples", "conformance",
    ),
    ("claims", "studies"),
    ("evidence", "reporting"),
    ("aligning", "solving", "catalogue", "studio", "serve", "commands", "cli", "__init__"),
)  # fmt: skip
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}

# (file, what it imports): why this one import may go the other way.
UPWARD = {
    (
        "evaluation/reproduction.py",
        "claims",
    ): "runs a claim that was asked for by name; nothing else in evaluation knows of claims",
    (
        "claims/__init__.py",
        "catalogue",
    ): "a claim that does not exist is named beside those of the catalogue, at the moment of failing",
}

# (file, learner's file, name): whole learners may be extended or nested; these reuse one function of another learner by name.
REUSED = {
    ("offline/riql.py", "offline.iql", "expectile_loss"): "RIQL is IQL with other losses around the same expectile",
    ("representation/hilp.py", "offline.iql", "expectile_loss"): "skills are learned by IQL around the same expectile",
    ("offline/qr_dqn.py", "offline.dqn", "huber"): "the quantile Huber loss is built on the Huber loss",
    ("worldmodel/sparse.py", "worldmodel.ensemble", "bootstrap"): "both worlds resample the rows of the data in one way",
    (
        "worldmodel/sindy_rl.py",
        "worldmodel.ensemble",
        "bootstrap",
    ): "policies are distilled from bootstrap samples as worlds are fitted",
    ("worldmodel/sindy_rl.py", "worldmodel.sparse", "ridge"): "policies are distilled by the regression that fits the world",
}

RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "runpy", "code"}


@cache
def trees() -> dict[str, ast.Module]:
    """Every file of the package by its path within it."""
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def room(file: str) -> str:
    """The folder of the package, or the module, that a file belongs to."""
    return file.split("/")[0].removesuffix(".py")


def imports(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """(line, module, name) of every import within the package, but for those that only a type checker sees."""
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write imports in full"
            if node.module and node.module.split(".")[0] == "policylab":
                for name in node.names:
                    yield node.lineno, node.module.removeprefix("policylab").removeprefix("."), name.name
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] == "policylab":
                    yield node.lineno, name.name.removeprefix("policylab").removeprefix("."), ""


def told(problems: list[str]) -> str:
    return "\n" + "\n".join(problems)


def test_no_file_has_two_things_in_it():
    long = {file: len((PACKAGE / file).read_text().splitlines()) for file in trees()}
    problems = [f"{file} has {lines} lines: split it" for file, lines in long.items() if lines > MOST_LINES]
    assert not problems, told(problems)


def test_every_room_has_its_place():
    problems = [f"{file}: name {room(file)!r} in LEVELS" for file in trees() if room(file) not in LEVEL]
    assert not problems, told(problems)


def test_imports_run_one_way():
    problems, used = [], set()
    for file, tree in trees().items():
        for line, module, name in imports(tree):
            target = module.split(".")[0] if module else name
            target = target if target in LEVEL else "__init__"
            if LEVEL.get(target, 0) <= LEVEL.get(room(file), 99):
                continue
            if (file, target) in UPWARD:
                used.add((file, target))
            else:
                problems.append(f"{file}:{line} imports {target}, which stands above {room(file)}")
    assert not problems, told(problems)
    assert used == set(UPWARD), f"no longer needed: {set(UPWARD) - used}"


def test_a_learner_knows_no_source_and_no_data():
    problems = [
        f"{file}:{line} imports {module}: a learner learns from whatever batches it gets"
        for file, tree in trees().items()
        if room(file) in ("learners", "networks", "policies", "scorers")
        for line, module, _ in imports(tree)
        if module.split(".")[0] in ("sources", "data")
    ]
    assert not problems, told(problems)


def test_a_learner_imports_another_whole_or_reuses_a_part_by_name():
    """A class is extended or nested as it stands; of everything else REUSED says why."""
    problems, used = [], set()
    for file, tree in trees().items():
        if room(file) != "learners":
            continue
        for line, module, name in imports(tree):
            if module.split(".")[0] != "learners" or name[:1].isupper():
                continue
            reuse = (file.removeprefix("learners/"), module.removeprefix("learners."), name)
            if reuse in REUSED:
                used.add(reuse)
            else:
                problems.append(f"{file}:{line} imports {name or 'all'} of {module}: extend or nest it, or say in REUSED why")
    assert not problems, told(problems)
    assert used == set(REUSED), f"no longer needed: {set(REUSED) - used}"


def test_nothing_runs_what_it_reads():
    problems = []
    for file, tree in trees().items():
        for node in ast.walk(tree):
            line = f"{file}:{getattr(node, 'lineno', 0)}"
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            problems += [f"{line} imports {name}" for name in names if name.split(".")[0] in RUNS_CODE]
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called in ("eval", "exec", "compile", "__import__", "torch.load", "yaml.load"):
                problems.append(f"{line} calls {called}")
            for word in node.keywords:
                if word.arg == "allow_pickle" and not (isinstance(word.value, ast.Constant) and word.value.value is False):
                    problems.append(f"{line} allows pickles")
    assert not problems, told(problems)


def test_the_rules_would_notice():
    """What is forbidden is found where it stands, also inside a function, and what only a type checker sees is not."""
    tree = ast.parse("def f():\n    from policylab.solving import solve\nif TYPE_CHECKING:\n    from policylab import cli\n")
    assert list(imports(tree)) == [(2, "solving", "solve")]
    assert LEVEL["solving"] > LEVEL["learners"] > LEVEL["networks"] > LEVEL["learner"]
