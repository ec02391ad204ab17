"""The column map of a log: which column of a table plays which role."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from policylab.data.encoding import KINDS
from policylab.errors import BadInput

ROLES = {
    "observation": "what the policy saw (patterns such as user_feature_* are welcome)",
    "action": "what was done: one column of choices, or several of numbers",
    "reward": "what it brought; leave it out if it was not logged",
    "next_observation": "what was seen afterwards, in the order of the observation columns",
    "propensity": "the probability with which the logging policy chose the logged action",
    "context": "a column that joins the observation and is kept beside it, such as the position on the page",
    "episode": "which episode a row belongs to; without it (and terminal) every row is an episode of one step",
    "time": "what orders the rows of an episode",
    "terminal": "1 where the process ended",
    "truncated": "1 where only the clock did",
    "group": "the user or document that must never be split between learning and testing",
}
_SINGLE = ("propensity", "episode", "time", "terminal", "truncated", "group")
_APART = ("action", "reward", "next_observation", "propensity", "terminal", "truncated")
EXAMPLE = '--columns "observation=feature_*,action=item,reward=click,propensity=score"'

Columns = str | Mapping[str, str | Sequence[str]]


def parse(columns: Columns) -> dict[str, list[str]]:
    """Roles and their patterns: from `observation=a,b,action=c` or a dict with the same content.

    Raises `BadInput` at an unknown role, a role given twice or a part that belongs to no role.
    """
    if isinstance(columns, Mapping):
        roles = {role: [names] if isinstance(names, str) else list(names) for role, names in columns.items()}
    else:
        roles, role = {}, ""
        for part in filter(None, (part.strip() for part in columns.split(","))):
            if "=" in part:
                role, part = (text.strip() for text in part.split("=", 1))
                if role in roles:
                    raise BadInput(f"the columns name {role} twice: list its columns after one {role}=, separated by commas")
                roles[role] = []
            if not role:
                raise BadInput(f"{part!r} in the columns belongs to no role: write for example {EXAMPLE}")
            roles[role] += [part] if part else []
    for role in roles:
        if role not in ROLES:
            near = difflib.get_close_matches(role, ROLES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose among {', '.join(ROLES)}"
            raise BadInput(f"unknown role {role!r} in the columns: {hint}")
        if not roles[role]:
            raise BadInput(f"the role {role} in the columns has no column: write {role}=NAME")
    return roles


def resolve(columns: Columns, names: Sequence[str], where: str) -> dict[str, list[tuple[str, str]]]:
    """For every role the columns of this table and the kind that was asked for (`age:categorical`), if any.

    A `*` stands for any text, never for a column that another role names in full nor for one without a name.
    Raises `BadInput` if a column is missing, a pattern matches nothing, observation or action is not given, or a column that
    the policy cannot know in advance is also an observation.
    """
    roles = parse(columns)
    for needed in ("observation", "action"):
        if needed not in roles and not (needed == "observation" and "context" in roles):
            raise BadInput(f"the columns of {where} name no {needed}: write for example {EXAMPLE}")
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if repeated:
        raise BadInput(f"{where} has several columns named {repeated[0]!r}: rename them")
    exact = {_split(pattern)[0]: role for role, patterns in roles.items() for pattern in patterns if "*" not in pattern}
    found: dict[str, list[tuple[str, str]]] = {}
    for role, patterns in roles.items():
        chosen: dict[str, str] = {}
        for pattern in patterns:
            text, kind = _split(pattern)
            regex = re.compile(".*".join(re.escape(piece) for piece in text.split("*")))
            matches = [n for n in names if regex.fullmatch(n) and ("*" not in text or (n and exact.get(n, role) == role))]
            if not matches:
                near = difflib.get_close_matches(text, names, n=3) or [n for n in names if n][:8]
                raise BadInput(f"{where} has no column {text!r} for {role}: near it are {', '.join(near)}")
            chosen |= dict.fromkeys(matches, kind)
        if role in _SINGLE and len(chosen) > 1:
            raise BadInput(f"{role} is one column, but {len(chosen)} of {where} match: {', '.join(list(chosen)[:5])}; name one")
        found[role] = list(chosen.items())
    seen = {name for role in ("observation", "context") for name, _ in found.get(role, [])}
    for role in _APART:
        for name, _ in found.get(role, []):
            if name in seen:
                raise BadInput(
                    f"column {name} of {where} is both observation and {role}: the policy could not know it before it acts; "
                    "take it out of the observation"
                )
    return found


def _split(pattern: str) -> tuple[str, str]:
    """A pattern and the kind after its last colon, if that is one of the known kinds."""
    text, colon, kind = pattern.rpartition(":")
    if colon and re.fullmatch(r"hashed\([1-9]\d*\)|" + "|".join(KINDS), kind):
        return text, kind
    return pattern, ""
