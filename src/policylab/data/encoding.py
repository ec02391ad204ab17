"""Rows of a table as numbers, fitted once and then frozen, so that a second file or a live request is encoded just the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from policylab import spaces
from policylab.data.packages import package
from policylab.errors import BadInput
from policylab.experience import Spec

KINDS = ("numeric", "categorical", "hashed")


@dataclass(frozen=True)
class Feature:
    """How one column becomes `width` numbers.

    `numeric`: itself (a list column: its entries). `categorical`: one-hot over `vocabulary`, all zeros for a word never seen.
    `hashed`: signed feature hashing (Weinberger et al. 2009) with a keyless, stable hash into `width` columns.
    """

    column: str
    kind: str
    width: int = 1
    vocabulary: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each of the numbers."""
        if self.kind == "categorical":
            return tuple(f"{self.column}={word}" for word in self.vocabulary)
        if self.kind == "hashed":
            return tuple(f"hash({self.column})[{i}]" for i in range(self.width))
        return (self.column,) if self.width == 1 else tuple(f"{self.column}[{i}]" for i in range(self.width))


@dataclass(frozen=True)
class Encoder:
    """The encoding of a log: which columns make the observation, the action and the context, and how.

    `numbered` says that action labels are the numbers of the choices themselves (0 ... n - 1).
    """

    observation: tuple[Feature, ...]
    action: tuple[Feature, ...]
    context: tuple[str, ...] = ()
    contexts: tuple[tuple[str, ...], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each entry of an observation."""
        return tuple(name for feature in self.observation for name in feature.names)

    @property
    def observation_space(self) -> spaces.Box:
        """A vector without bounds."""
        return spaces.Box((sum(feature.width for feature in self.observation),))

    @property
    def action_space(self) -> spaces.Space | None:
        """The choices with their labels; None for continuous actions, whose bounds come from the data."""
        return spaces.Discrete(len(self.action[0].vocabulary), self.action[0].vocabulary) if self.discrete else None

    @property
    def discrete(self) -> bool:
        """Whether an action is a choice."""
        return self.action[0].kind == "categorical"

    def encode(self, table: Any, *, first_row: int = 0) -> Float[np.ndarray, "row size"]:
        """Observations of the rows of an Arrow table, or of a dict of columns. Raises `BadInput` at a missing column or value."""
        parts = [_encode(feature, column_of(table, feature.column), first_row) for feature in self.observation]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def encode_action(self, table: Any, *, first_row: int = 0) -> Shaped[np.ndarray, "row ..."]:
        """Choices as int32 [row], or continuous actions as float32 [row, size].

        Raises `BadInput` at an action that was never seen.
        """
        if not self.discrete:
            parts = [_encode(feature, column_of(table, feature.column), first_row) for feature in self.action]
            return np.concatenate(parts, axis=1, dtype=np.float32)
        feature = self.action[0]
        words = words_of(column_of(table, feature.column))
        codes = _codes(words, feature.vocabulary)
        if (codes < 0).any():
            row = int(np.argmax(codes < 0))
            word, known = words[row].as_py(), len(feature.vocabulary)
            raise BadInput(
                f"{feature.column} at row {first_row + row} is {word!r}, which is none of the {known} actions that the "
                "encoder knows: fit it on a file that has them all, or leave the row out"
            )
        return codes

    def encode_context(self, table: Any) -> Int[np.ndarray, " row"]:
        """The number of each row's combination of context values in `contexts`; -1 for one never seen."""
        columns = [words_of(column_of(table, column)).to_pylist() for column in self.context]
        known = {values: code for code, values in enumerate(self.contexts)}
        return np.asarray([known.get(values, -1) for values in zip(*columns)], np.int32)

    def decode_action(self, actions: Any) -> dict[str, list[Any]]:
        """Actions of a policy ([row] choices or [row, size] numbers, or one of them) in the columns and words of the log.

        Raises `BadInput` where they are not actions of this log.
        """
        values = np.asarray(actions)
        if self.discrete:
            codes, words = np.atleast_1d(values), self.action[0].vocabulary
            whole = codes.ndim == 1 and np.issubdtype(codes.dtype, np.integer)
            if not whole or not np.all((codes >= 0) & (codes < len(words))):
                raise BadInput(f"these are no actions of the log: give numbers of choices from 0 to {len(words) - 1}")
            return {self.action[0].column: [words[code] for code in codes]}
        rows, size = np.atleast_2d(values), sum(feature.width for feature in self.action)
        if rows.ndim != 2 or rows.shape[1] != size:
            raise BadInput(f"these are no actions of the log: give rows of {size} numbers, not shape {values.shape}")
        parts = np.split(rows, np.cumsum([feature.width for feature in self.action])[:-1], axis=1)
        return {
            feature.column: (part[:, 0] if feature.width == 1 else part).tolist() for feature, part in zip(self.action, parts)
        }

    def unseen(self, table: Any) -> dict[str, int]:
        """For each categorical column the number of rows with a word that the encoder never saw (they become zeros)."""
        counts = {
            feature.column: int((_codes(words_of(column_of(table, feature.column)), feature.vocabulary) < 0).sum())
            for feature in self.observation
            if feature.kind == "categorical"
        }
        return {column: count for column, count in counts.items() if count}

    def to_json(self) -> dict[str, Any]:
        """A description that `from_json` turns back into an equal encoder."""
        features = lambda group: [
            {"column": f.column, "kind": f.kind, "width": f.width, "vocabulary": list(f.vocabulary)} for f in group
        ]
        return {
            "version": 1,
            "observation": features(self.observation),
            "action": features(self.action),
            "context": list(self.context),
            "contexts": [list(values) for values in self.contexts],
        }

    def to_text(self) -> str:
        """`to_json` as one line of JSON, the same for equal encoders: what `Spec.encoder` holds."""
        return json.dumps(self.to_json(), separators=(",", ":"), ensure_ascii=False)

    @staticmethod
    def of(spec: Spec) -> Encoder:
        """The encoder of the log that a policy with this Spec was learned from. Raises `BadInput` if it was learned from no log."""
        if not spec.encoder:
            raise BadInput(
                "this Spec has no encoder: its data were numbers already (or were saved by an older version), so give the policy "
                "observations in the units of the data"
            )
        try:
            return Encoder.from_json(json.loads(spec.encoder))
        except ValueError as error:
            raise BadInput(f"the encoder in this Spec is no JSON ({error}): save the policy again") from error

    @staticmethod
    def from_json(document: Any) -> Encoder:
        """The encoder that `to_json` described. Raises `BadInput` if it isn't one."""
        try:
            features = lambda group: tuple(_feature(row) for row in document[group])
            contexts = tuple(tuple(values) for values in document["contexts"])
            return Encoder(features("observation"), features("action"), tuple(document["context"]), contexts)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise BadInput(
                f"this is no encoder of a log ({error}): take origin['encoder'] of a recording, or Encoder.of(spec) of a saved policy"
            ) from error


def _feature(row: dict[str, Any]) -> Feature:
    """A feature from JSON. Raises ValueError or KeyError if it isn't one."""
    column, kind, width, vocabulary = row["column"], row["kind"], row["width"], tuple(row["vocabulary"])
    if kind not in KINDS or not isinstance(column, str) or type(width) is not int or width < 0:
        raise ValueError(f"{column!r} is {kind!r} of width {width!r}")
    if not all(isinstance(word, str) for word in vocabulary):
        raise ValueError(f"the words of {column!r} are not all text")
    return Feature(column, kind, width, vocabulary)


def stable_hash(column: str, word: str, width: int) -> tuple[int, float]:
    """The column in [0, width) and the sign (-1 or 1) of a word: from 64 bits of BLAKE2b, equal on every machine."""
    digest = int.from_bytes(hashlib.blake2b(f"{column}={word}".encode(), digest_size=8).digest(), "little")
    return (digest >> 1) % width, 1.0 if digest & 1 else -1.0


def _encode(feature: Feature, values: Any, first_row: int) -> Float[np.ndarray, "row width"]:
    if feature.kind == "numeric":
        return _numbers(feature, values, first_row)
    words = words_of(values)
    encoded = np.zeros((len(words), feature.width), np.float32)
    if feature.kind == "categorical":
        codes = _codes(words, feature.vocabulary)
        rows = np.flatnonzero(codes >= 0)
        encoded[rows, codes[rows]] = 1.0
        return encoded
    dictionary = words.dictionary_encode()
    places = [stable_hash(feature.column, word, feature.width) for word in dictionary.dictionary.to_pylist()]
    codes = dictionary.indices.to_numpy(zero_copy_only=False)
    columns, signs = (np.asarray(values)[codes] for values in zip(*places)) if places else (np.zeros(0, int), np.zeros(0))
    encoded[np.arange(len(words)), columns] = signs
    return encoded


def _numbers(feature: Feature, values: Any, first_row: int) -> Float[np.ndarray, "row width"]:
    pa, pc = package("pyarrow"), package("pyarrow.compute")
    listed = str(values.type).startswith(("list", "fixed_size_list", "large_list"))
    if listed:
        widths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
        wrong = ~(widths == feature.width)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise BadInput(
                f"column {feature.column} at row {first_row + row} has {widths[row]:g} entries where {feature.width} are due: "
                "give lists of one length"
            )
        values = pc.list_flatten(values)
    try:
        numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float32)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadInput(
            f"column {feature.column} holds something that is no number ({str(error).splitlines()[0]}): mend it, or say "
            f"{feature.column}:categorical"
        ) from error
    missing = np.isnan(numbers)
    if missing.any():
        row = int(np.argmax(missing)) // feature.width
        raise BadInput(f"column {feature.column} at row {first_row + row} is missing: fill it in or leave the row out")
    return numbers.reshape(-1, feature.width)


def column_of(table: Any, name: str) -> Any:
    """One column of an Arrow table or of a dict as a single Arrow array. Raises `BadInput` if there is none of that name."""
    pa = package("pyarrow", "reading tables")
    if isinstance(table, Mapping):
        if name not in table:
            raise BadInput(
                f"there is no column {name!r}: the encoder was fitted with it; the columns are {', '.join(map(str, table))}"
            )
        return pa.array(table[name])
    if name not in table.column_names:
        raise BadInput(
            f"there is no column {name!r}: the encoder was fitted with it; the columns are {', '.join(table.column_names[:20])}"
        )
    values = table.column(name)
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


def words_of(values: Any) -> Any:
    """Values as strings; a missing one is the empty word."""
    pa, pc = package("pyarrow"), package("pyarrow.compute")
    return pc.fill_null(values.cast(pa.string()), "")


def _codes(words: Any, vocabulary: tuple[str, ...]) -> Int[np.ndarray, " row"]:
    pa, pc = package("pyarrow"), package("pyarrow.compute")
    found = pc.fill_null(pc.index_in(words, value_set=pa.array(vocabulary, pa.string())), -1)
    return found.to_numpy(zero_copy_only=False).astype(np.int32)
