"""What a saved file says of itself, checked before it is believed: the document in the header of a run or a product."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from policylab import registry
from policylab.checkpoints import load_document
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.hyperparameters import check
from policylab.learner import Learner

_PARTS = {
    "run": {"learner": dict, "spec": dict, "seeds": list, "step": int, "total": int, "stage": int},
    "product": {"learner": dict, "spec": dict, "product": str},
}
_WORDS = {"run": "a run: use load_run on its folder", "product": "a policy or other product: use load_policy"}
_BROKEN = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError)


def read(path: Path, kind: str) -> dict[str, Any]:
    """The document of the `run` or `product` at `path`, its parts present and of their types. Raises `BadInput` naming the file."""
    document = load_document(path)
    found = document.get("kind")
    if found != kind and isinstance(found, str) and found in _WORDS:
        raise BadInput(f"{path} holds {_WORDS[found]}")
    if found != kind:
        raise damaged(path, f"says that it holds {found!r}, not a {kind}")
    for part, of in _PARTS[kind].items():
        if not isinstance(document.get(part), of) or isinstance(document[part], bool):
            how = "has no" if part not in document else f"has {str(document[part])[:40]!r} for"
            raise damaged(path, f"{how} {part!r}")
    if kind == "run" and not (document["seeds"] and all(type(seed) is int and seed >= 0 for seed in document["seeds"])):
        raise damaged(path, f"has {str(document['seeds'])[:40]} for 'seeds'")
    return document


def damaged(path: Path, what: str) -> BadInput:
    """The sentence about a file whose document is not what policylab writes."""
    return BadInput(f"{path} is damaged or was written by another version, its header {what}: save it again")


def learner_in(document: Mapping[str, Any], path: Path, given: Learner | None = None) -> Learner:
    """The learner that the document describes, or `given`, which must have its settings. Raises `BadInput` naming the file."""
    if given is not None:
        if registry.to_json(given) != document["learner"]:
            raise BadInput(f"{path} was saved with other settings than the learner you gave: see its run.json")
        return given
    try:
        learner = registry.from_json(document["learner"])
        if isinstance(learner, Learner):
            check(learner)
            return learner
        reason = "it names no learner"
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    except _BROKEN as error:
        reason = _reason(error)
    raise damaged(path, f"describes a learner that does not exist here ({reason})")


def spec_in(document: Mapping[str, Any], path: Path) -> Spec:
    """The Spec that the document describes. Raises `BadInput` naming the file."""
    try:
        return Spec.from_json(document["spec"])
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    except _BROKEN as error:
        raise damaged(path, f"describes no spaces that could be read ({_reason(error)})") from None


def fields_in(path: Path) -> dict[str, Any]:
    """The settings of the learner that is described in the file at `path`, by name. Raises `BadInput` naming the file."""
    described = load_document(path).get("learner")
    fields = described.get("fields") if isinstance(described, dict) else None
    if not isinstance(fields, dict):
        raise damaged(path, "describes no learner")
    try:
        return {name: registry.from_json(value) for name, value in fields.items()}
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    except _BROKEN as error:
        raise damaged(path, f"describes settings that cannot be read ({_reason(error)})") from None


def shapes_in(build: Callable[[], PyTree], path: Path) -> PyTree:
    """The shapes of what `build` would make of the document's learner and spaces. Raises `BadInput` where they do not go together."""
    try:
        return jax.eval_shape(build)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    except _BROKEN as error:
        raise damaged(path, f"describes settings and spaces that do not go together ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return f"no {first}" if isinstance(error, KeyError) else first[:120] or type(error).__name__
