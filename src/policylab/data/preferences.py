"""Judged answers from JSON lines or Parquet in the common column layouts: pairs, good and bad answers, ratings, chats; checked row by row."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from policylab.data.packages import package
from policylab.errors import BadInput

Message = dict[str, str]  # {"role": ..., "content": ...}
Text = str | tuple[Message, ...]
Value = Text | int | float | tuple[float, ...]  # what a prompt or an answer may be: text, messages, a choice, numbers
ROLES = ("system", "developer", "user", "assistant", "tool")
LAYOUTS = {
    "pairs": "prompt, chosen, rejected; or prompt, a, b and p, the probability that a is the better one; in both cases weight",
    "ratings": "prompt, completion, and label (true or false) or rating (a number); weight, rater",
    "chats": "messages: a list of {role, content}; weight",
}

Row = TypeVar("Row")


@dataclass(frozen=True)
class Pair:
    """Two answers to a prompt, and the probability that `a` is the better one."""

    prompt: Value
    a: Value
    b: Value
    p: float = 1.0
    weight: float = 1.0


@dataclass(frozen=True)
class Rating:
    """An answer to a prompt and what somebody gave it: 1 good and 0 bad, or any number."""

    prompt: Value
    answer: Value
    rating: float
    rater: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class Chat:
    """A conversation, to be imitated where the assistant speaks."""

    messages: tuple[Message, ...]
    weight: float = 1.0

    @property
    def prompt(self) -> Value:
        """What comes before the first answer."""
        first = next(i for i, message in enumerate(self.messages) if message["role"] == "assistant")
        return self.messages[:first]


@dataclass(frozen=True)
class Judged(Generic[Row]):
    """Checked rows of one layout ("pairs", "ratings" or "chats")."""

    layout: str
    rows: tuple[Row, ...]
    name: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, share: float = 0.1, *, seed: int = 0) -> tuple[Judged[Row], Judged[Row]]:
        """(rows to learn from, held-out rows): about `share` of the *prompts* are held out, with all their rows, so that no prompt is on both
        sides. Raises `BadInput` where either side would be empty."""
        prompts = [_spelled(row.prompt) for row in self.rows]  # ty: ignore[missing-attribute]  (every kind of row has one)
        distinct = list(dict.fromkeys(prompts))
        count = round(share * len(distinct))
        if not 1 <= count < len(distinct):
            raise BadInput(
                f"{self.name or 'the data'}: a share of {share:g} of {len(distinct)} different prompts holds out {count}: give more prompts or "
                "another share"
            )
        order = np.random.default_rng(seed).permutation(len(distinct))
        held = {distinct[i] for i in order[:count]}
        sides = ([row for row, p in zip(self.rows, prompts, strict=True) if (p in held) == side] for side in (False, True))
        learn, keep = (replace(self, rows=tuple(side)) for side in sides)
        return learn, keep

    def columns(self) -> dict[str, list[Any]]:
        """The rows as equally long lists by field."""
        return {field.name: [getattr(row, field.name) for row in self.rows] for field in fields(self.rows[0])}  # ty: ignore[invalid-argument-type]


def load_judged(path: str | Path, *, layout: str | None = None, columns: Mapping[str, str] = {}) -> Judged[Any]:
    """Judged answers of a .jsonl, .ndjson or .parquet file. The layout (a key of `LAYOUTS`) follows from the columns unless given; `columns`
    maps our names to those of the file, as in {"chosen": "response_1"}.

    Prompts and answers are text, lists of messages, whole numbers (choices) or lists of numbers (observations, torques). Where a file has no
    prompt and its answers are conversations, the prompt is what they share. Raises `BadInput` with the first row that is wrong.
    """
    path = Path(path)
    if layout is not None and layout not in LAYOUTS:
        raise BadInput(f"there is no layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    rows: list[Any] = []
    build: Callable[[dict[str, Any]], Any] | None = None
    names = {theirs: ours for ours, theirs in columns.items()}
    for number, raw in enumerate(_records(path), start=1):
        record = {names.get(name, name): value for name, value in raw.items()}
        where = f"{path} row {number}"
        if build is None:
            layout = layout or _layout(record, where)
            build = {"pairs": _pair, "ratings": _rating, "chats": _chat}[layout]
        try:
            rows.append(build(record))
        except BadInput as problem:
            raise BadInput(f"{where}: {problem}") from None
    if not rows:
        raise BadInput(f"{path} has no rows: give at least one")
    assert layout is not None
    return Judged(layout, tuple(rows), name=path.name)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".ndjson", ".parquet"):
        raise BadInput(f"{path} is neither .jsonl nor .parquet: save judged answers as one of these")
    if not path.is_file():
        raise BadInput(f"there is no file {path}")
    if suffix == ".parquet":
        pa, parquet = package("pyarrow"), package("pyarrow.parquet", "reading Parquet files")
        try:
            with parquet.ParquetFile(path) as file:
                for piece in file.iter_batches(4096):
                    yield from piece.to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise BadInput(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]}): save it again") from error
        return
    with path.open(encoding="utf-8") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise BadInput(f"{path} line {number} is no object: write one {{...}} with named columns per line")
                yield record
        except (json.JSONDecodeError, RecursionError) as error:
            raise BadInput(f"{path} line {number} is not JSON ({error}): write one object per line") from error
        except UnicodeDecodeError as error:
            raise BadInput(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8") from error


def _layout(record: Mapping[str, Any], where: str) -> str:
    has = lambda *names: all(name in record for name in names)
    if has("chosen", "rejected") or has("a", "b"):
        return "pairs"
    if has("completion") and (has("label") or has("rating")):
        return "ratings"
    if has("messages"):
        return "ratings" if has("rating") or has("label") else "chats"
    known = "; ".join(f"{name}: {what}" for name, what in LAYOUTS.items())
    raise BadInput(
        f"{where} has the columns {', '.join(record) or '(none)'}, which are no layout that is known ({known}): map the names"
    )


def _pair(record: Mapping[str, Any]) -> Pair:
    first, second = ("chosen", "rejected") if "chosen" in record else ("a", "b")
    a, b = (_value(record, name) for name in (first, second))
    p = 1.0 if first == "chosen" else _number(record, "p", 0.0, 1.0)
    if "prompt" in record:
        prompt = _value(record, "prompt")
    else:
        prompt, a, b = _shared(a, b, first, second)
    if a == b and p != 0.5:
        raise BadInput(f"{first} and {second} are the same: remove the row, or give a, b and p = 0.5")
    return Pair(prompt, a, b, p, _weight(record))


def _rating(record: Mapping[str, Any]) -> Rating:
    if "rating" in record:
        rating = _number(record, "rating", -math.inf, math.inf)
    else:
        label = record.get("label")
        if not (isinstance(label, bool) or (isinstance(label, int) and label in (0, 1))):
            raise BadInput(f"label is {label!r}: give true or false, or a rating")
        rating = float(label)
    if "completion" in record:
        prompt, answer = _value(record, "prompt"), _value(record, "completion")
    else:
        messages = _messages(record["messages"], "messages")
        if len(messages) < 2 or messages[-1]["role"] != "assistant":
            raise BadInput("messages must end with the assistant's answer, with at least one message before it")
        prompt, answer = messages[:-1], messages[-1:]
    rater = record.get("rater", "")
    return Rating(prompt, answer, rating, "" if rater is None else str(rater), _weight(record))


def _chat(record: Mapping[str, Any]) -> Chat:
    messages = _messages(record.get("messages"), "messages")
    if all(message["role"] != "assistant" for message in messages):
        raise BadInput("messages hold no answer of the assistant: there is nothing to imitate")
    return Chat(messages, _weight(record))


def _shared(a: Value, b: Value, first: str, second: str) -> tuple[Value, Value, Value]:
    """(what two conversations share at their beginning, the rest of each)."""
    if not (_is_chat(a) and _is_chat(b)):
        raise BadInput(
            f"there is no prompt: add the column, or give {first} and {second} as lists of messages that begin alike"
        )
    assert isinstance(a, tuple)
    assert isinstance(b, tuple)
    alike = 0
    while alike < min(len(a), len(b)) - 1 and a[alike] == b[alike]:
        alike += 1
    if alike == 0:
        raise BadInput(
            f"{first} and {second} share no message at their beginning, so that there is no prompt: add the column prompt"
        )
    return a[:alike], a[alike:], b[alike:]


def _value(record: Mapping[str, Any], name: str) -> Value:
    value = record.get(name)
    if isinstance(value, str):
        if not value.strip():
            raise BadInput(f"{name} is empty: fill it in or remove the row")
        return value
    if isinstance(value, bool) or value is None:
        raise BadInput(f"{name} is {value!r}: give text, messages, a choice or numbers")
    if isinstance(value, int | float):
        return _finite(value, name)
    if isinstance(value, list) and value and all(isinstance(x, int | float) and not isinstance(x, bool) for x in value):
        return tuple(float(_finite(x, name)) for x in value)
    return _messages(value, name)


def _messages(value: Any, name: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise BadInput(f"{name} is {_short(value)}: give text, a list of {{role, content}}, a choice or numbers")
    for place, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise BadInput(f"message {place} of {name} is {_short(message)}: give {{role, content}} with text in it")
        if message.get("role") not in ROLES:
            raise BadInput(f"message {place} of {name} has the role {message.get('role')!r}: choose one of {', '.join(ROLES)}")
    return tuple({"role": message["role"], "content": message["content"]} for message in value)


def _is_chat(value: Value) -> bool:
    return isinstance(value, tuple) and isinstance(value[0], dict)


def _finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise BadInput(f"{name} holds {value}: numbers must be finite")
    return value


def _number(record: Mapping[str, Any], name: str, low: float, high: float) -> float:
    value = record.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not (math.isfinite(value) and low <= value <= high):
        wanted = f"a number from {low:g} to {high:g}" if math.isfinite(high) else "a finite number"
        raise BadInput(f"{name} is {_short(value)}: give {wanted}")
    return float(value)


def _weight(record: Mapping[str, Any]) -> float:
    return 1.0 if record.get("weight") is None else _number(record, "weight", 0.0, 1e9)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _spelled(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def arrays_of(values: Sequence[Value], name: str) -> np.ndarray:
    """Choices [row] or numbers [row, number] as an array. Raises `BadInput` at text, which needs a tokenizer, and at rows of other kinds or
    lengths than the first."""
    first = values[0]
    kind = lambda value: (type(value).__name__, len(value) if isinstance(value, tuple) else 0)
    for number, value in enumerate(values, start=1):
        if isinstance(value, str) or _is_chat(value):
            raise BadInput(f"{name} of row {number} is text: give a tokenizer, which makes numbers of it")
        if kind(value) != kind(first):
            raise BadInput(
                f"{name} of row {number} is {_short(value)} but that of row 1 is {_short(first)}: use one kind and length"
            )
    return np.asarray(values, np.int32 if isinstance(first, int) else np.float32)
