"""Which learner, with which settings: by name, by `file.py:Class`, or written out as `iql(expectile=0.9)`."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policylab import registry
from policylab.commands import literals, nearest
from policylab.commands.arguments import Parser
from policylab.errors import BadInput
from policylab.reporting.settings import shown


def learner_class(name: str) -> Any:
    """The learner class of a registered name, or of the user's own `file.py:Class`. Raises `BadInput` if there is none."""
    if ":" in name:
        return own_class(name)
    if name not in registry.LEARNERS:
        hint = nearest(
            name, registry.LEARNERS, f"choose one of {', '.join(registry.LEARNERS)}, or name your own as mine.py:Mine"
        )
        raise BadInput(f"there is no learner {name!r}: {hint}")
    return registry.learner_class(name)


def own_class(name: str) -> Any:
    """The class `file.py:Class`. Raises `BadInput` for a file that does not load or a class that is no learner."""
    from policylab.learner import Learner

    file, _, class_name = name.rpartition(":")
    if not file.endswith(".py"):
        raise BadInput(f"{name!r} names no learner: write the path to your file and the class, as in mine.py:Mine")
    try:
        cls = registry.learner_class(name)
    except SyntaxError as error:
        raise BadInput(f"{file} is no valid Python: {error.msg}, line {error.lineno}; mend it first") from None
    except ImportError as error:
        raise BadInput(f"{file} imports something that is not there: {error}; install it, or mend the import") from None
    if not (issubclass(cls, Learner) and dataclasses.is_dataclass(cls)):
        raise BadInput(
            f"{class_name} in {file} is no learner: derive it from policylab.Learner and decorate it with policylab.settings"
        )
    missing = [name for name in ("needs", "init", "update", "products") if getattr(cls, name) is getattr(Learner, name)]
    if missing:
        raise BadInput(f"{class_name} in {file} has no {', '.join(missing)}: write what every learner needs")
    return cls


def settings_of(cls: Any) -> list[dict[str, Any]]:
    """The settings of a learner: flag, name, type, default, help and range in words."""
    from policylab.hyperparameters import describe

    return [{**row, "flag": f"--{row['name'].replace('_', '-')}", "range": in_words(row)} for row in describe(cls)]


def in_words(row: Mapping[str, Any]) -> str:
    """The range of a setting: `above 0 and below 1`; empty where every value will do."""
    said = {"low": "at least", "above": "above", "high": "at most", "below": "below"}
    return " and ".join(f"{words} {row[end]:g}" for end, words in said.items() if math.isfinite(row.get(end, math.inf)))


def add_settings(parser: Parser, cls: Any, name: str) -> dict[str, dict[str, Any]]:
    """One option per setting of the learner; {attribute of the namespace: its row}.

    A setting that bears the name of an option of the command becomes `--learner-NAME`.
    """
    taken = {text for action in parser._actions for text in action.option_strings}
    group = parser.add_argument_group(f"settings of {name}", (getattr(cls, "title", "") or cls.__name__).rstrip("."))
    rows = {}
    for row in settings_of(cls):
        flag = f"--learner-{row['flag'][2:]}" if row["flag"] in taken else row["flag"]
        target = f"setting_{row['name']}"
        told = "; ".join(part for part in (row["help"], row["range"], f"default: {shown(row['default'])}") if part)
        kind = {"float": "NUMBER", "int": "N", "bool": "true|false", "Form": "FORM"}.get(row["type"], "VALUE")
        group.add_argument(flag, dest=target, metavar=kind, help=told.replace("%", "%%"))
        rows[target] = {**row, "flag": flag}
    return rows


def build(cls: Any, options: argparse.Namespace, rows: Mapping[str, Mapping[str, Any]], name: str) -> Any:
    """The learner with the settings that were given. Raises `BadInput` for a value of another type or out of its range."""
    given = {
        row["name"]: literals.setting_value(text, row["type"], row["flag"])
        for target, row in rows.items()
        if (text := getattr(options, target)) is not None
    }
    return literals.made(cls, [], given, name)


def written_out(text: str) -> tuple[str, Any]:
    """An arm of a comparison: `iql`, `iql(expectile=0.9)`, `mine.py:Mine` or any of these after `name=`; its name and learner."""
    label, separator, rest = text.partition("=")
    if not separator or "(" in label:
        label, rest = text, text
    name, bracket, settings = rest.partition("(")
    cls = learner_class(name.strip())
    if label == text and ":" in name:
        label = text.replace(name, cls.__name__)
    if not bracket:
        return label, literals.made(cls, [], {}, name)
    try:
        call = ast.parse(f"made({settings}", mode="eval").body
    except SyntaxError:
        call = None
    if not isinstance(call, ast.Call):
        raise BadInput(f"{text!r} does not read: write an arm as iql(expectile=0.9)")
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise BadInput(f"{text!r}: name every setting, as in iql(expectile=0.9)")
    given = {str(keyword.arg): literals.value(keyword.value, text) for keyword in call.keywords}
    return label, literals.made(cls, [], given, name)


def first_learner(argv: Sequence[str]) -> str | None:
    """The learner that the words of a command name, before its own options are known: by `--learner`, or as the first word."""
    for place, word in enumerate(argv):
        if word == "--learner" and place + 1 < len(argv):
            return argv[place + 1]
        if word.startswith("--learner="):
            return word.partition("=")[2]
    return argv[0] if argv and not argv[0].startswith("-") else None


def listed() -> list[dict[str, Any]]:
    """Every learner: name, title, actions, what it uses. Read from the files' syntax trees: importing them would import jax."""
    rows = []
    for name, (module, cls) in registry.LEARNERS.items():
        facts = {"title": cls, "actions": "any", "uses": (), **_declared(f"policylab.learners.{module}", cls)}
        rows.append({"name": name, "class": cls, "family": module.split(".")[0], **facts, "uses": list(facts["uses"])})
    return rows


def _declared(module: str, cls: str) -> dict[str, Any]:
    """The class variables `title`, `actions` and `uses` of a class, its own before those of its bases."""
    file = Path(registry.__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    origin = {
        alias.asname or alias.name: (str(node.module), alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    facts: dict[str, Any] = {}
    for base in classes[cls].bases:
        name = ast.unparse(base)
        place = (module, name) if name in classes else origin.get(name, ("", ""))
        if place[0].startswith("policylab.learners."):
            facts |= _declared(*place)
    for item in classes[cls].body:
        match item:
            case ast.AnnAssign(target=ast.Name(id="title" | "actions" | "uses" as name), value=ast.expr() as value):
                facts[name] = ast.literal_eval(value)
    return facts
