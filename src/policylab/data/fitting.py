"""What an encoder has to know about a log before it is frozen: kinds of columns, their words, their widths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from policylab.data.encoding import Encoder, Feature, column_of, words_of
from policylab.data.packages import package
from policylab.errors import BadInput

MOST_CATEGORIES = 64  # more distinct words than this are hashed
MOST_CONTEXTS = 32  # whole numbers with at most so many values are categories where they are a context
MOST_ACTIONS = 65_536
HASHED_WIDTH = 32
_NUMBER = re.compile(r"0|-?[1-9][0-9]*")


class Fitter:
    """Collects what an encoder needs to know from one piece of a table after the other."""

    def __init__(self, roles: Mapping[str, list[tuple[str, str]]]):
        self.roles, self.rows = roles, 0
        self._seen: dict[str, dict[str, None]] = {}
        self._types: dict[str, Any] = {}
        self._width: dict[str, int] = {}
        self._contexts: dict[tuple[str, ...], None] = {}

    def see(self, table: Any) -> None:
        """Take note of these rows."""
        for role in ("observation", "context", "action"):
            for column, kind in self.roles.get(role, []):
                self._note(role, column, kind, column_of(table, column))
        if self.roles.get("context"):
            columns = [words_of(column_of(table, column)).to_pylist() for column, _ in self.roles["context"]]
            self._contexts |= dict.fromkeys(zip(*columns))
        self.rows += table.num_rows

    def encoder(self) -> Encoder:
        """The frozen encoder. Raises `BadInput` at a column that cannot be encoded."""
        kinds = dict([*self.roles.get("observation", []), *self.roles.get("context", [])])
        context = tuple(column for column, _ in self.roles.get("context", []))
        observation = tuple(self._feature(column, kind, column in context) for column, kind in kinds.items())
        actions = self.roles["action"]
        if len(actions) == 1 and self._chosen(*actions[0]):
            action = (Feature(actions[0][0], "categorical", 1, self._labels(actions[0][0])),)
        else:
            action = tuple(self._numeric(column) for column, _ in actions)
        contexts = tuple(sorted(self._contexts, key=lambda values: [_order(value) for value in values]))
        return Encoder(observation, action, context, contexts)

    def _note(self, role: str, column: str, kind: str, values: Any) -> None:
        types = package("pyarrow").types
        self._types[column] = values.type
        if types.is_list(values.type) or types.is_fixed_size_list(values.type) or types.is_large_list(values.type):
            self._width[column] = len(values[0]) if len(values) and values[0].is_valid else self._width.get(column, 1)
        limit = MOST_ACTIONS if role == "action" or kind == "categorical" else max(MOST_CATEGORIES, MOST_CONTEXTS)
        undecided = role != "observation" and not types.is_floating(values.type)
        seen = self._seen.setdefault(column, {})
        if (
            column not in self._width
            and (undecided or kind == "categorical" or _worded(types, values.type))
            and len(seen) <= limit
        ):
            seen |= dict.fromkeys(words_of(values).unique().to_pylist())

    def _feature(self, column: str, kind: str, context: bool) -> Feature:
        types, of = package("pyarrow").types, self._types[column]
        words = _worded(types, of)
        if not kind:
            few = len(self._seen[column]) <= (MOST_CATEGORIES if words else MOST_CONTEXTS)
            listed = words or (context and types.is_integer(of))
            kind = ("categorical" if few else "hashed" if words else "numeric") if listed else "numeric"
        match kind.split("(")[0]:
            case "categorical":
                vocabulary = tuple(sorted(self._seen[column], key=_order))
                return Feature(column, "categorical", len(vocabulary), vocabulary)
            case "hashed":
                return Feature(column, "hashed", int(kind[7:-1]) if "(" in kind else HASHED_WIDTH)
        return self._numeric(column)

    def _numeric(self, column: str) -> Feature:
        types, of = package("pyarrow").types, self._types[column]
        inner = of.value_type if column in self._width else of
        if not (types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner) or types.is_decimal(inner)):
            raise BadInput(
                f"column {column} holds {of}, not numbers: choose another column, or say {column}:categorical or {column}:hashed"
            )
        return Feature(column, "numeric", self._width.get(column, 1))

    def _chosen(self, column: str, kind: str) -> bool:
        """Whether an action column lists choices: words, whole numbers and True/False do."""
        types, of = package("pyarrow").types, self._types[column]
        if kind.startswith("hashed"):
            raise BadInput(
                f"the action {column} cannot be hashed: a policy has to name the action that it takes; say {column}:categorical"
            )
        return kind == "categorical" or (not kind and (_worded(types, of) or types.is_integer(of) or types.is_boolean(of)))

    def _labels(self, column: str) -> tuple[str, ...]:
        words = sorted(self._seen[column], key=_order)
        if len(words) > MOST_ACTIONS:
            raise BadInput(
                f"the action {column} has more than {MOST_ACTIONS} distinct values: join rare ones, or say {column}:numeric"
            )
        if all(_NUMBER.fullmatch(word) for word in words) and words[0] == "0" and int(words[-1]) < 2 * len(words):
            return tuple(str(i) for i in range(int(words[-1]) + 1))  # numbers of choices, a few of which were never taken
        return tuple(words)


def _worded(types: Any, of: Any) -> bool:
    return types.is_string(of) or types.is_large_string(of) or types.is_string_view(of)


def _order(word: str) -> tuple[int, float, str]:
    """Whole numbers in their order, then words in theirs."""
    return (0, int(word), "") if _NUMBER.fullmatch(word) else (1, 0, word)
