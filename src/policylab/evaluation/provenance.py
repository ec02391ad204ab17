"""What a verdict rests on: hashes of the declaration and of the code, and versions; all readable without importing the claim.

The code of a verdict is the claim's own file and every module of policylab that was loaded when it had been measured, except the
rooms that only show or record results (`FRONT`), other claims and `__init__.py` files, which hold names and registries. For each
file two hashes are kept: of its bytes, and of its syntax tree without docstrings, so that a changed comment makes no verdict stale."""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
FRONT = (
    "cli.py",
    "commands",
    "catalogue.py",
    "registry.py",
    "progress.py",
    "solving",
    "solving.py",
    "studio",
    "serve",
    "evaluation/records.py",
    "evaluation/provenance.py",
    "evaluation/reproduction.py",
    "evaluation/report.py",
)
EDITED = "edited while it ran"
_BORN = time.time()  # a file changed after this may differ from what this process runs


def digest(content: bytes | str) -> str:
    """The first 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]


def declaration_hash(declared: Mapping[str, Any]) -> str:
    """The hash of task, unit, arms, parts (metrics, margins) and looks; line breaks and spaces within words do not count."""
    return digest(json.dumps(_plain(declared), sort_keys=True, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return " ".join(value.split()) if isinstance(value, str) else value


def declared_in(source: str) -> dict[str, Any] | None:
    """The declaration of `CLAIM = Claim(...)` in a file's text, read from its syntax tree without running it. None where it is not
    written as literals, or as module constants that are literals."""
    constants: dict[str, ast.expr] = {}
    call = None
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and node.value is not None:
            constants[target.id] = node.value
            call = node.value if target.id == "CLAIM" else call
    if not isinstance(call, ast.Call):
        return None
    from policylab import claim

    given = {word.arg: word.value for word in call.keywords}
    try:
        parts = [_part(node, constants, claim) for node in given["parts"].elts]
        looks = _literal(given["looks"], constants) if "looks" in given else claim.LOOKS
        unit = _literal(given["unit"], constants) if "unit" in given else claim.Claim.unit
        task, arms = _literal(given["task"], constants), _literal(given["arms"], constants)
    except (KeyError, ValueError, AttributeError, TypeError):
        return None
    return {"task": task, "unit": unit, "arms": arms, "looks": list(looks), "parts": parts}


def _part(node: ast.expr, constants: Mapping[str, ast.expr], claim: Any) -> dict[str, Any]:
    kind = getattr(claim, node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id)
    return kind(
        *(_literal(value, constants) for value in node.args),
        **{word.arg: _literal(word.value, constants) for word in node.keywords},
    ).declared


def _literal(node: ast.expr, constants: Mapping[str, ast.expr]) -> Any:
    return ast.literal_eval(constants[node.id] if isinstance(node, ast.Name) else node)


def syntax_hash(content: bytes) -> str:
    """The hash of a Python file's syntax tree without docstrings: comments and layout do not count."""
    tree = ast.parse(content)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
    return digest(ast.dump(tree))


def code_of(claim_file: Path | None, package: Path = PACKAGE, since: float = _BORN) -> dict[str, list[str]]:
    """{path within the package: [hash of bytes, hash of syntax]} of the claim's file and the loaded modules that it may use. The
    hashes of a file changed after `since` read `EDITED`: the verdict is stale from the start."""
    files = {
        Path(module.__file__).resolve()
        for name, module in sys.modules.copy().items()
        if name.partition(".")[0] == "policylab" and getattr(module, "__file__", None)
    }
    inside = {file.relative_to(package).as_posix(): file for file in files if file.is_relative_to(package)}
    used = {
        name: file
        for name, file in inside.items()
        if not name.endswith("__init__.py")
        and not name.startswith("claims/")
        and name not in FRONT
        and name.partition("/")[0] not in FRONT
    }
    if claim_file is not None:
        claim_file = claim_file.resolve()
        used[claim_file.relative_to(package).as_posix() if claim_file.is_relative_to(package) else claim_file.name] = claim_file
    return {name: _hashes(file, since) for name, file in sorted(used.items()) if file.exists()}


def _hashes(file: Path, since: float) -> list[str]:
    if file.stat().st_mtime > since:
        return [EDITED, EDITED]
    content = file.read_bytes()
    return [digest(content), syntax_hash(content)]


def changed(code: Mapping[str, list[str]], package: Path = PACKAGE) -> list[str]:
    """The files of `code` whose meaning differs from what was recorded, or which are gone: empty unless the verdict is stale."""
    return [name for name, hashes in code.items() if not _same(package / name, tuple(hashes))]


def _same(file: Path, hashes: tuple[str, ...]) -> bool:
    try:
        stamp = file.stat().st_mtime_ns
        return _hash_of_file(file, stamp, False) == hashes[0] or _hash_of_file(file, stamp, True) == hashes[1]
    except (OSError, SyntaxError):
        return False


@lru_cache(maxsize=4096)
def _hash_of_file(file: Path, stamp: int, syntax: bool) -> str:
    content = file.read_bytes()
    return syntax_hash(content) if syntax else digest(content)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide a number."""
    found = {"python": platform.python_version()}
    for name in ("policylab", "jax", "jaxlib", "equinox", "optax", "numpy", "scipy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
