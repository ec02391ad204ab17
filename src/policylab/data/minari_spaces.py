"""Spaces as Minari writes them (JSON beside the data), and values of these spaces as arrays of ours."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import PyTree

from policylab import spaces
from policylab.data.packages import package
from policylab.errors import BadInput


@dataclass
class Reader:
    """Turns stored values of one Minari space into our arrays; words are numbered in the order in which they first occur."""

    document: dict[str, Any]
    jpeg: bool = False
    words: dict[str, dict[str, int]] = field(default_factory=dict)

    def read(self, stored: Any) -> PyTree[np.ndarray]:
        """The values of one episode; `stored` is nested like the space, with tuples keyed `0`, `1` ..."""
        return self._read(self.document, stored, "")

    def space(self) -> spaces.Space:
        """Our space for the document; call it after all episodes were read, when all words are known."""
        return self._space(self.document, "")

    def _read(self, document: dict[str, Any], stored: Any, path: str) -> PyTree[np.ndarray]:
        match document["type"]:
            case "Dict" | "Tuple":
                return {name: self._read(part, stored[name], f"{path}/{name}") for name, part in _parts(document)}
            case "Text":
                codes = self.words.setdefault(path, {})
                return np.asarray([codes.setdefault(_word(word), len(codes)) for word in stored], np.int32)
            case "Discrete":
                return (np.asarray(stored).reshape(-1) - document.get("start", 0)).astype(np.int32)
            case "MultiDiscrete":
                values = np.asarray(stored).reshape(len(stored), -1) - np.reshape(document.get("start", 0), -1)
                return {str(i): values[:, i].astype(np.int32) for i in range(values.shape[1])}
            case "MultiBinary":
                return np.asarray(stored).astype(np.int8)
        if document["type"] != "Box":
            raise _unknown(document)
        if self.jpeg and _is_image(document):
            return _decode_images(stored)
        values = np.asarray(stored)
        values = values.astype(np.float32) if np.issubdtype(values.dtype, np.floating) else values
        return values.reshape(len(values), *document["shape"])

    def _space(self, document: dict[str, Any], path: str) -> spaces.Space:
        match document["type"]:
            case "Dict" | "Tuple":
                return spaces.Composite(tuple((name, self._space(part, f"{path}/{name}")) for name, part in _parts(document)))
            case "Text":
                return spaces.Discrete(len(self.words[path]), tuple(self.words[path]))
            case "Discrete":
                start, n = document.get("start", 0), document["n"]
                return spaces.Discrete(n, tuple(str(start + i) for i in range(n)) if start else ())
            case "MultiDiscrete":
                counts = np.reshape(document["nvec"], -1).tolist()
                return spaces.Composite(tuple((str(i), spaces.Discrete(int(n))) for i, n in enumerate(counts)))
            case "MultiBinary":
                return spaces.Box(tuple(np.atleast_1d(document["n"]).tolist()), 0.0, 1.0, "int8")
            case "Box":
                low, high = (_compact(document[side]) for side in ("low", "high"))
                kind = "float32" if document["dtype"].startswith("float") else document["dtype"]
                return spaces.Box(tuple(document["shape"]), low, high, kind)
        raise _unknown(document)


def write(space: spaces.Space) -> dict[str, Any]:
    """The document that Minari writes for the Gymnasium space with the same values."""
    match space:
        case spaces.Box():
            low, high = (bound.astype(space.dtype).tolist() for bound in space.bounds())
            return {"type": "Box", "dtype": space.dtype, "shape": list(space.shape), "low": low, "high": high}
        case spaces.Discrete():
            return {"type": "Discrete", "dtype": "int64", "start": 0, "n": space.n}
        case spaces.Composite():
            return {"type": "Dict", "subspaces": {name: write(part) for name, part in space.parts}}


def parse(text: Any, where: str) -> dict[str, Any]:
    """The document of a space. Raises `BadInput` if it isn't one."""
    try:
        document = json.loads(text)
        assert document["type"]
        return document
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        raise BadInput(f"{where} is not a space as Minari writes it: download or write the dataset again") from error


def _unknown(document: dict[str, Any]) -> BadInput:
    return BadInput(f"spaces of kind {document['type']!r} have no array form: map them to Box, Discrete or Dict before saving")


def _parts(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    parts = document["subspaces"]
    return list(parts.items()) if isinstance(parts, dict) else [(str(i), part) for i, part in enumerate(parts)]


def _word(word: Any) -> str:
    return word.decode("utf-8") if isinstance(word, bytes) else str(word)


def _compact(bound: Any) -> float | tuple[float, ...]:
    flat = np.asarray(bound, np.float64).reshape(-1)
    return float(flat[0]) if flat.size and np.all(flat == flat[0]) else tuple(map(float, flat))


def _is_image(document: dict[str, Any]) -> bool:
    """Whether Minari stores the values of this space as JPEG files: whole bytes, 2 or 3 axes, at least 32 x 32."""
    shape = document["shape"]
    return (
        document["type"] == "Box"
        and document["dtype"] == "uint8"
        and len(shape) in (2, 3)
        and min(shape[:2]) >= 32
        and bool(np.all(np.asarray(document["low"]) == 0) and np.all(np.asarray(document["high"]) == 255))
    )


def _decode_images(stored: Any) -> np.ndarray:
    image = package("PIL.Image", "reading a dataset with JPEG images")
    return np.stack(
        [
            np.asarray(image.open(io.BytesIO(bytes(np.asarray(frame)) if not isinstance(frame, bytes) else frame)))
            for frame in stored
        ]
    ).astype(np.uint8)
