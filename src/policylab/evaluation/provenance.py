"""What a verdict rests on: hashes of the declaration and of the code, and versions; all readable without importing the claim.

The code of a verdict is the claim's own file and every module of policylab that was loaded when it had been measured, except the
rooms that only show or record results (`FRONT`), other claims and `__init__.py` files, which hold names and registries. For each
file two hashes are kept: of its bytes, and of what in it the measurement can reach (`reach.py`), so that neither a changed comment
nor a new method of a noun that the claim knows nothing of makes a verdict stale. Of an implementation (`ROOMS`) that was loaded but
of whose classes no method ran while the claim was measured, only the functions count that did run."""

from __future__ import annotations

import ast
import cProfile
import hashlib
import inspect
import json
import platform
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from policylab.evaluation import reach

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
    "evaluation/reach.py",
    "evaluation/reproduction.py",
    "evaluation/report.py",
)
NAMING = ("registry.py", "tasks/__init__.py")  # where classes and functions stand as strings: these words may be names, too
ROOMS = ("data", "environments", "learners", "planners", "policies", "scorers", "sources", "tasks", "worlds")
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


class Calls:
    """A context that notices which functions ran, on this thread: what runs on others was begun by a method that ran on this one."""

    def __enter__(self) -> Calls:
        self.profile: cProfile.Profile | None = cProfile.Profile(builtins=False)
        try:
            self.profile.enable()
        except ValueError:  # another profiler is at work: nothing is known
            self.profile = None
        return self

    def __exit__(self, *_: object) -> None:
        if self.profile:
            self.profile.disable()

    def names(self) -> dict[Path, frozenset[str]] | None:
        """By file the names of functions that ran, methods as "Class." (bodies of modules and classes are none); None where nothing is
        known."""
        if self.profile is None:
            return None
        ran: dict[Path, set[str]] = {}
        for entry in self.profile.getstats():
            if not isinstance(entry.code, str) and entry.code.co_flags & inspect.CO_OPTIMIZED:
                name, _, inner = entry.code.co_qualname.partition(".")
                method = bool(inner) and not inner.startswith("<locals>")
                ran.setdefault(Path(entry.code.co_filename).resolve(), set()).add(f"{name}." if method else name)
        return {file: frozenset(names) for file, names in ran.items()}


def code_of(
    claim_file: Path | None, ran: Mapping[Path, frozenset[str]] | None = None, package: Path = PACKAGE, since: float = _BORN
) -> dict[str, Any]:
    """What a verdict rests on: `names`, those which the measurement can use (in one string), `code`, {path within the package: [hash
    of bytes, hash of what these names reach]} of the claim's file and the loaded modules that it may use, and the `idle` ones of these with what did
    run of their functions.

    `ran`: what ran, by file (see `Calls`), None for all. The hashes of a file changed after `since` read `EDITED`: the verdict is stale
    from the start."""
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
    return hashes_of(dict(sorted(used.items())), claim_file, ran, package, since)


def hashes_of(
    used: Mapping[str, Path], claim_file: Path | None, ran: Mapping[Path, frozenset[str]] | None, package: Path, since: float
) -> dict[str, Any]:
    """`names`, `code` and `idle` of these files (see `code_of`). Without a claim's file everything in them counts."""
    used = {name: file for name, file in used.items() if file.exists()}
    idle: dict[str, list[str]] = {}
    for name, file in used.items():
        called = frozenset({"all."}) if ran is None else ran.get(file, frozenset())
        if name.partition("/")[0] in ROOMS and not any("." in one for one in called):
            idle[name] = sorted(called)
    start = {"settle"}.union(*(reach.words((package / name).read_bytes()) for name in NAMING))
    start |= reach.words(claim_file.read_bytes()) if claim_file else set().union(*map(reach.words, map(_bytes, used.values())))
    names = reach.names_reached(used.values(), start)
    code = {name: _hashes(file, names, _called(idle, name), since) for name, file in used.items()}
    return {"names": " ".join(sorted(names)), "code": code, "idle": idle}


def _bytes(file: Path) -> bytes:
    return file.read_bytes()


def _called(idle: Mapping[str, list[str]], name: str) -> frozenset[str] | None:
    return frozenset(idle[name]) if name in idle else None


def _hashes(file: Path, names: frozenset[str], called: frozenset[str] | None, since: float) -> list[str]:
    if file.stat().st_mtime > since:
        return [EDITED, EDITED]
    content = file.read_bytes()
    return [digest(content), reach.meaning(content, names, called)]


def changed(ended: Mapping[str, Any], package: Path = PACKAGE, only: str = "") -> list[str]:
    """The files of a finished run's `code` (or `only` this one) in which what it could reach differs from what was recorded, or which
    are gone: empty unless the verdict is stale."""
    code = {only: ended["code"][only]} if only else ended["code"]
    names, idle = ended.get("names", ""), ended.get("idle", {})
    return [name for name, hashes in code.items() if not _same(package / name, tuple(hashes), names, _called(idle, name))]


def _same(file: Path, hashes: tuple[str, ...], names: str, called: frozenset[str] | None) -> bool:
    try:
        return _digest_of_file(file, file.stat().st_mtime_ns) == hashes[0] or (
            bool(names) and reach.meaning(file.read_bytes(), frozenset(names.split(" ")), called) == hashes[1]
        )
    except (OSError, SyntaxError):
        return False


@lru_cache(maxsize=4096)
def _digest_of_file(file: Path, stamp: int) -> str:
    return digest(file.read_bytes())


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide a number."""
    found = {"python": platform.python_version()}
    for name in ("policylab", "jax", "jaxlib", "equinox", "optax", "numpy", "scipy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
