"""Values written on the command line: numbers, words, forms such as `Gaussian(width=128)`. Read from the syntax tree; nothing is run."""

from __future__ import annotations

import ast
import dataclasses
from typing import Any

from policylab import registry
from policylab.commands import nearest
from policylab.errors import BadInput

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def setting_value(text: str, kind: str, label: str) -> Any:
    """The value of a setting whose annotation is `kind`; `label` names it in messages. Raises `BadInput` if the text is none."""
    if kind == "str":
        return text
    if kind == "bool":
        if text.lower() not in (*_TRUE, *_FALSE):
            raise BadInput(f"{label} is {text!r}: give true or false")
        return text.lower() in _TRUE
    if kind == "float":
        try:
            number = float(text)
        except ValueError:
            raise BadInput(f"{label} is {text!r}: give a number") from None
        if number != number:
            raise BadInput(f"{label} is not a number: give one")
        return number
    if kind == "int":
        try:
            return int(text.replace("_", ""))
        except ValueError:
            raise BadInput(f"{label} is {text!r}: give a whole number") from None
    return literal(text, label)


def literal(text: str, label: str) -> Any:
    """Numbers, strings, tuples, None, true and false as Python writes them, and forms or learners by name with their settings."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise BadInput(f"{label} is {text!r}: write a value such as 0.5 or Gaussian(width=128)") from None
    return value(tree, label)


def value(tree: ast.expr, label: str) -> Any:
    """The value that a syntax tree writes out. Raises `BadInput` if it is an expression to be computed."""
    match tree:
        case ast.Constant():
            return tree.value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.UnaryOp(op=ast.USub(), operand=ast.Name(id="inf")):
            return -float("inf")
        case ast.Tuple() | ast.List():
            return tuple(value(item, label) for item in tree.elts)
        case ast.Name(id="true" | "false" as word):
            return word == "true"
        case ast.Name(id="none"):
            return None
        case ast.Name(id="inf"):
            return float("inf")
        case ast.Name():
            return _made(tree.id, [], {}, label)
        case ast.Call(func=ast.Name(id=name)):
            if any(keyword.arg is None for keyword in tree.keywords):
                break_off(tree, label)
            named = {str(keyword.arg): value(keyword.value, label) for keyword in tree.keywords}
            return _made(name, [value(item, label) for item in tree.args], named, label)
    return break_off(tree, label)


def break_off(tree: ast.expr, label: str) -> Any:
    """Refuse an expression that is no value."""
    raise BadInput(f"{label}: {ast.unparse(tree)!r} is no value: write numbers, words and forms such as Gaussian(width=128)")


def _made(name: str, given: list[Any], named: dict[str, Any], label: str) -> Any:
    """The form or learner of that name with these settings, by position or by name, checked."""
    if name in _shapes():
        cls = registry.form_class(name)
    elif name in registry.LEARNERS or name in {known for _, known in registry.LEARNERS.values()}:
        cls = registry.learner_class(next(key for key, (_, known) in registry.LEARNERS.items() if name in (key, known)))
    else:
        known = [*_shapes(), *(cls for _, cls in registry.LEARNERS.values())]
        hint = nearest(name, known, f"choose among {', '.join(registry.FORMS)}")
        raise BadInput(f"{label}: there is no form {name!r}: {hint}")
    return made(cls, given, named, label)


def _shapes() -> dict[str, str]:
    """Everything with settings that is no learner: forms of policies, shapes of worlds and of scorers, descriptors."""
    return {**registry.FORMS, **registry.TEXT_FORMS, **registry.WORLDS, **registry.SCORERS, **registry.DESCRIPTORS}


def made(cls: Any, given: list[Any], named: dict[str, Any], label: str) -> Any:
    """`cls(*given, **named)` if it has those fields and the values lie in their ranges, else `BadInput`."""
    from policylab.hyperparameters import check

    fields = {field.name: str(field.type) for field in dataclasses.fields(cls) if field.init}
    if len(given) > len(fields):
        raise BadInput(f"{label}: {cls.__name__} has {len(fields)} settings, not {len(given)}: name them, {', '.join(fields)}")
    settings = dict(zip(fields, given)) | named
    for name in settings:
        if name not in fields:
            hint = nearest(name, fields, f"it has {', '.join(fields) or 'none'}")
            raise BadInput(f"{label}: {cls.__name__} has no setting {name!r}: {hint}")
    for name, kind in fields.items():
        if name in settings:
            settings[name] = _fitting(settings[name], kind, f"{cls.__name__}.{name}")
    value = cls(**settings)
    check(value)
    _require_deterministic(value)
    return value


def _require_deterministic(learner: Any) -> None:
    """Raise `BadInput` where a learner of values whose own form is a deterministic policy got one that draws its actions."""
    row = next((field for field in dataclasses.fields(learner) if field.name == "policy"), None)
    if row is None or "reward" not in getattr(learner, "uses", ()) or type(row.default).__name__ != "Deterministic":
        return
    if type(learner.policy).__name__ != "Deterministic":
        raise BadInput(
            f"{type(learner).__name__} climbs its critic with one action per observation and {type(learner.policy).__name__} draws"
            " actions: give --policy Deterministic(), or choose a learner such as iql or sac"
        )


def _fitting(value: Any, kind: str, label: str) -> Any:
    """The value as a setting of this kind; whole numbers will do for floats. Raises `BadInput` where it is of another type."""
    wanted = {"float": (int, float), "int": int, "bool": bool, "str": str}.get(kind)
    if wanted is not None and (not isinstance(value, wanted) or (kind in ("float", "int") and isinstance(value, bool))):
        words = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "a word in quotes"}[kind]
        raise BadInput(f"{label} is {value!r}: give {words}")
    if kind.startswith("Form") and not (_is_form(value) or (value is None and "None" in kind)):
        raise BadInput(f"{label} is {value!r}: give a policy form, such as {_example()}")
    if label.endswith(".activation"):
        from policylab.networks.mlp import _ACTIVATIONS

        if value not in _ACTIVATIONS:
            raise BadInput(f"{label} is {value!r}: choose one of {', '.join(_ACTIVATIONS)}")
    if kind.startswith("Literal[") and value not in (words := ast.literal_eval(f"({kind[8:-1]},)")):
        raise BadInput(f"{label} is {value!r}: choose one of {', '.join(map(str, words))}")
    if kind == "Learner" and not _is_learner(value):
        raise BadInput(f"{label} is {value!r}: give a learner, such as SAC(width=128) (policylab learners lists them)")
    if kind in registry.WORLDS and not isinstance(value, registry.form_class(kind)):
        raise BadInput(f"{label} is {value!r}: give the shape of a world, such as {kind}()")
    return float(value) if kind == "float" else value


def _is_learner(value: Any) -> bool:
    from policylab.learner import Learner

    return isinstance(value, Learner)


def _is_form(value: Any) -> bool:
    from policylab.policy import Form

    return isinstance(value, Form)


def _example() -> str:
    return f"Gaussian(width=128); there are {', '.join(registry.FORMS)}"
