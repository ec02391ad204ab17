"""What a claim's measurement can reach of the code, so that a verdict goes stale when that changes and not when its file does.

A file is taken apart into units: functions, classes (their heading and fields), methods, assignments, imports. A unit is reached if a
name that it binds is used in a unit that is reached, wherever that is; a method also needs its class to be reached, and a special
method needs nothing else.
Names are compared as such, without types: `x.act` reaches every `act` of every reached class, so that too much is reached rather than
too little. Words in short strings count as used, too (registries, `getattr`). Comments, docstrings and annotations of arguments do
not count as meaning."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_WORD = re.compile(r"[A-Za-z_]\w*")
_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
_LONGEST = 80  # characters of a string whose words may be names; longer ones are sentences


@dataclass(frozen=True)
class Unit:
    """A piece of a file: the names any of which reaches it (none: it is always reached), the class that has to be reached as well
    ("": none), the names it uses, and what it says."""

    binds: frozenset[str]
    owner: str
    uses: frozenset[str]
    text: str
    kind: str = ""  # "function" (or method) or "import", which do nothing until a function is called

    def reached(self, names: frozenset[str] | set[str]) -> bool:
        """Whether code that uses `names` can run it."""
        return (not self.binds or not self.binds.isdisjoint(names)) and (not self.owner or self.owner in names)


def names_reached(files: Iterable[Path], start: Iterable[str]) -> frozenset[str]:
    """All names that code can use which begins with the names of `start` and can run what stands in `files`."""
    left = [unit for file in files for unit in units(file.read_bytes())]
    names, found = set(start), [True]
    while found:
        found = [unit for unit in left if unit.reached(names)]
        left = [unit for unit in left if not unit.reached(names)]
        names = names.union(*(unit.uses for unit in found))
    return frozenset(names)


def meaning(content: bytes, names: frozenset[str], called: frozenset[str] | None = None) -> str:
    """16 hexadecimal digits: the hash of the units of a file that are reached by `names`. Where its classes were not used, `called` names
    the functions that were: others, all methods and all imports are left out then. Raises `SyntaxError` for what is no Python."""
    said = [unit.text for unit in units(content) if unit.reached(names) and _counts(unit, called)]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


def _counts(unit: Unit, called: frozenset[str] | None) -> bool:
    return called is None or not unit.kind or (unit.kind == "function" and not unit.owner and not unit.binds.isdisjoint(called))


def words(content: bytes) -> frozenset[str]:
    """Every name that a file uses or that stands in one of its short strings."""
    return frozenset().union(*(unit.uses | unit.binds for unit in units(content)))


@lru_cache(maxsize=2048)
def units(content: bytes) -> tuple[Unit, ...]:
    """A file's text taken apart. Raises `SyntaxError` for what is no Python."""
    return tuple(unit for node in _said(ast.parse(content)) for unit in _units(_plain(node)))


def _units(node: ast.stmt) -> Iterator[Unit]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            place = "." * node.level + (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            yield Unit(frozenset({name}), "", frozenset({alias.name}), f"{place} {alias.name} {name}", "import")
    elif isinstance(node, ast.ClassDef):
        methods = [item for item in node.body if isinstance(item, _FUNCTION)]
        node.body = [item for item in node.body if item not in methods]
        yield _unit(node, {node.name})
        for method in methods:
            yield _unit(method, set() if method.name.startswith("__") else {method.name}, owner=node.name)
    elif isinstance(node, _FUNCTION):
        yield _unit(node, {node.name})
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        bound = {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
        yield _unit(node, bound if all(isinstance(target, ast.Name | ast.Tuple) for target in targets) else set())
    else:
        yield _unit(node, set())


def _unit(node: ast.stmt, binds: set[str], owner: str = "") -> Unit:
    uses: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            uses.add(part.id)
        elif isinstance(part, ast.Attribute):
            uses.add(part.attr)
        elif isinstance(part, ast.alias):
            uses.add(part.name)
        elif isinstance(part, ast.Constant) and isinstance(part.value, str) and len(part.value) <= _LONGEST:
            uses.update(_WORD.findall(part.value))
    return Unit(frozenset(binds), owner, frozenset(uses), ast.dump(node), "function" if isinstance(node, _FUNCTION) else "")


def _said(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.stmt]:
    """The body without its docstring."""
    return node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body


def _plain(node: ast.stmt) -> ast.stmt:
    """Without docstrings and without annotations of arguments and results."""
    for part in ast.walk(node):
        if isinstance(part, ast.ClassDef | _FUNCTION):
            part.body = _said(part) or [ast.Pass()]
        if isinstance(part, _FUNCTION):
            part.returns = None
        if isinstance(part, ast.arg):
            part.annotation = None
    return node
